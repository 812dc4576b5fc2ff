"""Paired comparisons of two systems on the same utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.bootstrap import (
    MIN_PER_EMOTION,
    MIN_SPEAKERS,
    Bootstrap,
    bootstrap_groups,
    bootstrap_within_emotions,
    confusion_by_group,
)
from affekt.evaluation.metrics import METRICS, Labels, Probabilities, most_probable
from affekt.evaluation.significance import McNemar, bootstrap_p, cohens_g, mcnemar, wilcoxon


@dataclass(frozen=True)
class SeedComparison:
    """Two systems with the same seed, compared on the same utterances."""

    value: float
    """The difference of the metric, first minus second."""
    mcnemar: McNemar

    @property
    def p(self) -> float:
        """The p-value of McNemar's exact test."""
        return self.mcnemar.p


@dataclass(frozen=True)
class Comparison:
    """Two systems compared on the same utterances. With several seeds, a system's score is the mean over its seeds."""

    metric: str
    value: float
    """The difference of the metric, first minus second."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of the difference; None if there are too few speakers and utterances for one, or if all
    samples have the same difference."""
    p: float | None
    """The two-sided p-value of the paired bootstrap; None without a bootstrap."""
    resampled: str
    """The unit of the bootstrap: "speakers", or "utterances" if fewer than 10 speakers are known, and the result is valid for
    these speakers only. "" without a bootstrap."""
    by_seed: Mapping[int, SeedComparison]
    """Seed -> the comparison of the two systems with this seed, for the seeds that both have."""
    effect: float
    """Cohen's g over these seeds."""
    by_fold: Sequence[float]
    """The difference in each fold, mean over the seeds."""
    wilcoxon_p: float | None
    """The p-value of Wilcoxon's signed-rank test over the folds; None below 6 folds."""


def compare(
    labels: Labels,
    first: Mapping[int, Probabilities],
    second: Mapping[int, Probabilities],
    speakers: Sequence[str] | None = None,
    *,
    units: Sequence[str] | None = None,
    folds: NDArray[np.int64] | None = None,
    metric: str = "UA",
) -> Comparison:
    """Compare two systems on the same utterances.

    Every bootstrap sample has the same speakers (or utterances) for both systems and all seeds.

    Args:
        labels: The index of each utterance's emotion, (utterances,).
        first: Seed -> the first system's probabilities, (utterances, emotions).
        second: Seed -> the second system's probabilities.
        speakers: The speaker of each utterance; None if they are unknown.
        units: The id of each utterance, if some occur in several folds.
        folds: The index of each utterance's fold, (utterances,); None for a single fold.
        metric: One of "UA", "WA" and "WF1".
    """
    predicted = [
        np.stack([most_probable(predictions) for predictions in system.values()]) for system in (first, second)
    ]
    num_emotions = next(iter(first.values())).shape[1]
    sample, resampled = _bootstrap_difference(labels, predicted, num_emotions, speakers, units, metric)
    difference = _difference(labels, predicted, num_emotions, metric)
    by_seed = {
        seed: _compare_seed(labels, most_probable(first[seed]), most_probable(second[seed]), num_emotions, metric)
        for seed in first
        if seed in second
    }
    tests = [comparison.mcnemar for comparison in by_seed.values()]
    wins, losses = sum(test.better for test in tests), sum(test.worse for test in tests)
    by_fold = _by_fold(labels, predicted, num_emotions, folds, metric)
    return Comparison(
        metric=metric,
        value=difference,
        interval=None if sample is None or np.isnan(sample.low[0]) else (float(sample.low[0]), float(sample.high[0])),
        p=None if sample is None else bootstrap_p(sample.draws[0]),
        resampled=resampled,
        by_seed=by_seed,
        effect=cohens_g(wins, losses),
        by_fold=by_fold,
        wilcoxon_p=wilcoxon(by_fold),
    )


def _compare_seed(
    labels: Labels, first: NDArray[np.int64], second: NDArray[np.int64], num_emotions: int, metric: str
) -> SeedComparison:
    better, worse = ((first == labels) & (second != labels)).sum(), ((second == labels) & (first != labels)).sum()
    value = _difference(labels, [first[None], second[None]], num_emotions, metric)
    return SeedComparison(value, mcnemar(int(better), int(worse)))


def _counts(
    labels: Labels, predicted: Sequence[NDArray[np.int64]], groups: Sequence[str], num_emotions: int
) -> NDArray[np.int64]:
    """Return the confusion matrices of all seeds of both systems, (groups, seeds of both, emotions, predictions)."""
    return confusion_by_group(labels, np.concatenate(predicted), groups, num_emotions)


def _bootstrap_difference(
    labels: Labels,
    predicted: Sequence[NDArray[np.int64]],
    num_emotions: int,
    speakers: Sequence[str] | None,
    units: Sequence[str] | None,
    metric: str,
) -> tuple[Bootstrap | None, str]:
    """Return the bootstrap of the difference and the unit that it resamples; None and "" if there are too few utterances."""
    num_first = len(predicted[0])

    def difference(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        values = METRICS[metric](counts)
        return np.asarray(values[:, :num_first].mean(axis=1) - values[:, num_first:].mean(axis=1))[None]

    if speakers is not None and len(set(speakers)) >= MIN_SPEAKERS:
        return bootstrap_groups(_counts(labels, predicted, speakers, num_emotions), difference), "speakers"
    ids = list(units or map(str, range(len(labels))))
    support = [len({ids[index] for index in np.flatnonzero(labels == emotion)}) for emotion in np.unique(labels)]
    if min(support) < MIN_PER_EMOTION:
        return None, ""
    return bootstrap_within_emotions(_counts(labels, predicted, ids, num_emotions), difference), "utterances"


def _difference(labels: Labels, predicted: Sequence[NDArray[np.int64]], num_emotions: int, metric: str) -> float:
    counts = _counts(labels, predicted, [""] * len(labels), num_emotions)[0]
    values, num_first = METRICS[metric](counts), len(predicted[0])
    return float(values[:num_first].mean() - values[num_first:].mean())


def _by_fold(
    labels: Labels,
    predicted: Sequence[NDArray[np.int64]],
    num_emotions: int,
    folds: NDArray[np.int64] | None,
    metric: str,
) -> list[float]:
    if folds is None:
        return []
    masks = [folds == fold for fold in np.unique(folds)]
    return [
        _difference(labels[mask], [system[:, mask] for system in predicted], num_emotions, metric) for mask in masks
    ]
