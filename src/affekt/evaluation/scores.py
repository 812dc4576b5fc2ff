"""Scores with 95 % bootstrap intervals, from probabilities and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affekt.errors import BadConfig
from affekt.evaluation import bootstrap
from affekt.evaluation.metrics import (
    Labels,
    Probabilities,
    confusion,
    ece,
    is_refused,
    most_probable,
    recalls,
    ua,
    wa,
    wf1,
)


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % interval, as fractions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """The scores of one system on one set of utterances, as fractions from 0 to 1."""

    utterances: int
    refused: int
    """Number of utterances in which the model finds no speech. They count as classified wrongly."""
    intervals: str
    """How the intervals were computed: whether the bootstrap drew speakers or utterances decides what they mean."""
    WA: Interval
    UA: Interval
    WF1: Interval
    recall: dict[str, Interval]
    """Recall by emotion, for the emotions that occur."""
    ece: float


def score(
    labels: Labels,
    probabilities: Probabilities,
    emotions: Sequence[str],
    speakers: Sequence[str] | None = None,
    *,
    units: Sequence[str] | None = None,
) -> Scores:
    """Return the scores of predictions, with intervals. UA is the mean over the emotions that occur in `labels`.

    Utterances of one speaker are not independent. With 10 speakers or more the bootstrap draws whole speakers, and the
    intervals are valid for other speakers too. With fewer or unknown speakers it draws utterances, and the intervals are
    valid for these speakers only.

    Args:
        labels: The index of each utterance's emotion.
        probabilities: Predicted probabilities, (utterances, emotions).
        emotions: The emotions' names, in the order of the columns.
        speakers: The speaker of each utterance; None if they are unknown.
        units: The id of each utterance, for drawing utterances. It is needed if an utterance occurs several times, with the
            predictions of several runs, because these are drawn together.

    Raises:
        BadConfig: There is no utterance.
    """
    if len(labels) == 0:
        raise BadConfig("there is no utterance to score")
    predicted = most_probable(probabilities)
    counts = confusion(labels, predicted, len(emotions))
    draws = bootstrap.DRAWS
    if speakers is not None and len(set(speakers)) >= bootstrap.MIN_SPEAKERS:
        intervals = f"95 % bootstrap over {len(set(speakers))} speakers, {draws} draws"
        by_speaker = bootstrap.confusion_by_group(labels, predicted, speakers, len(emotions))
        samples = bootstrap.resample_groups(by_speaker)
    else:
        intervals = f"95 % bootstrap over utterances within each emotion, {draws} draws: valid for these speakers only"
        units = units or [str(index) for index in range(len(labels))]
        by_unit = bootstrap.confusion_by_group(labels, predicted, units, len(emotions))
        samples = bootstrap.resample_within_emotions(by_unit)
    sampled_recalls = np.array([recalls(sample) for sample in samples])
    return Scores(
        utterances=len(labels),
        refused=int(is_refused(probabilities).sum()),
        intervals=intervals,
        WA=_interval(wa(counts), [wa(sample) for sample in samples]),
        UA=_interval(ua(counts), [ua(sample) for sample in samples]),
        WF1=_interval(wf1(counts), [wf1(sample) for sample in samples]),
        recall={
            emotion: _interval(float(recalls(counts)[index]), sampled_recalls[:, index].tolist())
            for index, emotion in enumerate(emotions)
            if counts[index].sum()
        },
        ece=ece(labels, probabilities),
    )


def _interval(value: float, draws: Sequence[float]) -> Interval:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(value, float(low), float(high))
