"""Scores with 95 % intervals, from probabilities and labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig, MissingExtra
from affekt.evaluation import bootstrap
from affekt.evaluation.metrics import METRICS, Labels, Probabilities, ece, is_refused, most_probable, recalls

Z95 = 1.959964
"""The 97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % interval, as fractions."""

    value: float
    low: float | None
    """None if there are too few utterances for an interval."""
    high: float | None


@dataclass(frozen=True)
class Scores:
    """The scores of one system on one set of utterances, as fractions from 0 to 1.

    With several seeds, each score is the mean over the seeds of the metric.
    """

    utterances: int
    refused: int
    """Number of utterances in which the model finds no speech. They count as misclassified."""
    intervals: str
    """How the intervals were computed. Their meaning depends on whether the bootstrap resampled speakers or utterances."""
    WA: Interval
    UA: Interval
    WF1: Interval
    recall: dict[str, Interval]
    """Recall by emotion, for the emotions that occur."""
    ece: float


def score(
    labels: Labels,
    probabilities: Probabilities | Sequence[Probabilities],
    emotions: Sequence[str],
    speakers: Sequence[str] | None = None,
    *,
    units: Sequence[str] | None = None,
) -> Scores:
    """Return the scores of predictions, with intervals. UA is the mean over the emotions that occur in `labels`.

    With the predictions of several seeds, every score is the mean over the seeds of the metric of each seed's predictions,
    in every bootstrap sample too.

    Utterances of one speaker are not independent. With 10 speakers or more the bootstrap resamples whole speakers, and the
    intervals are valid for other speakers too. With fewer or unknown speakers, the intervals are valid for these speakers
    only: those of WA and recall are Wilson intervals, those of UA and WF1 resample utterances within each emotion.
    With too few utterances or speakers, there is no interval.

    Args:
        labels: The index of each utterance's emotion.
        probabilities: Predicted probabilities, (utterances, emotions), or those of each seed.
        emotions: The emotions' names, in the order of the columns.
        speakers: The speaker of each utterance; None if they are unknown.
        units: The id of each utterance, for resampling utterances. It is needed if an utterance occurs in the test subsets of
            several folds, because its predictions are resampled together.

    Raises:
        BadConfig: There is no utterance.
    """
    return score_and_draw(labels, probabilities, emotions, speakers, units=units)[0]


def score_and_draw(
    labels: Labels,
    probabilities: Probabilities | Sequence[Probabilities],
    emotions: Sequence[str],
    speakers: Sequence[str] | None = None,
    *,
    units: Sequence[str] | None = None,
) -> tuple[Scores, NDArray[np.float64] | None]:
    """Return the scores, as `score` does, and the bootstrap's draws of UA, (draws,); None if UA has no interval."""
    if len(labels) == 0:
        raise BadConfig("there is no utterance to score")
    seeds = as_seeds(probabilities)
    predicted = np.stack([most_probable(seed_predictions) for seed_predictions in seeds])
    num_units = len(set(units)) if units else len(labels)
    low, high, how, draws = _intervals(labels, predicted, len(emotions), speakers, units)
    counts = bootstrap.confusion_by_group(labels, predicted, [""] * len(labels), len(emotions))[0]
    values = _values(counts[None].astype(np.float64))[:, 0]
    intervals = [
        Interval(float(value), *(None if math.isnan(end) else float(end) for end in ends))
        for value, *ends in zip(values, low, high, strict=True)
    ]
    by_name = dict(zip([*METRICS, *emotions], intervals, strict=True))
    scores = Scores(
        utterances=num_units,
        refused=int(np.stack([is_refused(seed_predictions) for seed_predictions in seeds]).any(axis=0).sum()),
        intervals=how,
        **{name: by_name[name] for name in METRICS},
        recall={emotion: by_name[emotion] for emotion, row in zip(emotions, counts[0], strict=True) if row.sum()},
        ece=float(np.mean([ece(labels, seed_predictions) for seed_predictions in seeds])),
    )
    return scores, None if draws is None or scores.UA.low is None else draws


def as_seeds(probabilities: Probabilities | Sequence[Probabilities]) -> list[Probabilities]:
    """Return the predictions of each seed, (utterances, emotions), from those of one or several seeds."""
    if isinstance(probabilities, np.ndarray) and probabilities.ndim == 2:
        return [probabilities]
    return list(probabilities)


def _values(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return UA, WA, WF1 and each emotion's recall, (values, draws), each the mean over the seeds.

    Args:
        counts: Confusion matrices, (draws, seeds, emotions, predictions).
    """
    metrics = [metric(counts).mean(axis=1) for metric in METRICS.values()]
    return np.stack([*metrics, *np.moveaxis(recalls(counts).mean(axis=1), -1, 0)])


def _intervals(
    labels: Labels,
    predicted: NDArray[np.int64],
    num_emotions: int,
    speakers: Sequence[str] | None,
    units: Sequence[str] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], str, NDArray[np.float64] | None]:
    """Return the ends of the intervals of `_values`, NaN where there is none; a description; and the draws of UA."""
    num_speakers = len(set(speakers)) if speakers else 0
    ids = list(units or map(str, range(len(labels))))
    by_speaker = speakers is not None and num_speakers >= bootstrap.MIN_SPEAKERS
    counts = bootstrap.confusion_by_group(labels, predicted, speakers if by_speaker and speakers else ids, num_emotions)
    try:
        draw = bootstrap.bootstrap_groups if by_speaker else bootstrap.bootstrap_within_emotions
        sample = draw(counts, _values)
    except MissingExtra as error:
        nothing = np.full(len(METRICS) + num_emotions, np.nan)
        return nothing, nothing, f"none: {error}", None
    draws = sample.draws[list(METRICS).index("UA")]
    if by_speaker:
        how = f"95 % BCa bootstrap over {num_speakers} speakers, {bootstrap.DRAWS} draws"
        return sample.low, sample.high, how, draws
    low, high, how = _use_wilson(sample, counts)
    return low, high, f"95 %, valid for these speakers only: Wilson (WA, recall), {how}", draws


def _use_wilson(
    sample: bootstrap.Bootstrap, counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Replace the intervals of WA and recall by Wilson intervals, and remove those of UA and WF1 if there are few utterances.

    Args:
        sample: The bootstrap of `_values` over utterances.
        counts: The confusion matrices of each utterance, (utterances, systems, emotions, predictions).
    """
    low, high = sample.low.copy(), sample.high.copy()
    values = _values(counts.sum(axis=0)[None].astype(np.float64))[:, 0]
    support = (counts.sum(axis=(1, 3)) > 0).sum(axis=0)  # of each emotion, in distinct utterances
    wa_index, first_recall = list(METRICS).index("WA"), len(METRICS)
    for index, number in ((wa_index, len(counts)), *enumerate(support, first_recall)):
        low[index], high[index] = wilson(values[index], int(number)) if number else (np.nan, np.nan)
    present = support[support > 0]
    if present.min() >= bootstrap.MIN_PER_EMOTION and len(present) > 1:
        how = f"bootstrap within emotions (UA, WF1), {bootstrap.DRAWS} draws"
        return low, high, how
    for metric in ("UA", "WF1"):
        low[list(METRICS).index(metric)] = high[list(METRICS).index(metric)] = np.nan
    return low, high, f"none (UA, WF1): under {bootstrap.MIN_PER_EMOTION} utterances of an emotion"


def wilson(fraction: float, number: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a fraction of a number of independent utterances."""
    centre = fraction + Z95**2 / (2 * number)
    half = Z95 * math.sqrt(fraction * (1 - fraction) / number + Z95**2 / (4 * number**2))
    scale = 1 + Z95**2 / number
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
