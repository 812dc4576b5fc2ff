"""A score over seeds or folds: its mean and standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import METRICS, Labels, Probabilities, confusion, most_probable


@dataclass(frozen=True)
class Spread:
    """A score over seeds, as fractions. Each seed's score counts the predictions of all its folds together."""

    mean: float
    std: float | None
    """The sample standard deviation; None for a single seed."""
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class FoldScores:
    """The scores of one fold, as means over the seeds."""

    fold: str
    utterances: int
    UA: float
    WA: float
    WF1: float


def spread_of(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of one value per seed."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, tuple(map(float, values)))


def spread_over_seeds(metric: str, labels: Labels, by_seed: Mapping[int, Probabilities]) -> Spread:
    """Return a metric of each seed's predictions, with mean and standard deviation.

    Args:
        metric: One of "UA", "WA" and "WF1".
        labels: The index of each utterance's emotion, (utterances,), of all folds.
        by_seed: Seed -> its probabilities on all folds, (utterances, emotions).
    """
    return spread_of([_metric(METRICS[metric], labels, probabilities) for probabilities in by_seed.values()])


def score_folds(
    labels: Labels, by_seed: Mapping[int, Probabilities], folds: NDArray[np.int64], names: Sequence[str]
) -> list[FoldScores]:
    """Return the scores of each fold.

    Args:
        labels: The index of each utterance's emotion, (utterances,), of all folds.
        by_seed: Seed -> its probabilities on all folds, (utterances, emotions).
        folds: The index of each utterance's fold, (utterances,).
        names: The names of the folds.
    """
    masks = [folds == index for index in range(len(names))]
    return [
        FoldScores(
            name,
            int(mask.sum()),
            **{
                metric: float(
                    np.mean(
                        [_metric(function, labels[mask], probabilities[mask]) for probabilities in by_seed.values()]
                    )
                )
                for metric, function in METRICS.items()
            },
        )
        for name, mask in zip(names, masks, strict=True)
        if mask.any()
    ]


def _metric(
    metric: Callable[[NDArray[np.int64]], NDArray[np.float64]], labels: Labels, probabilities: Probabilities
) -> float:
    return float(metric(confusion(labels, most_probable(probabilities), probabilities.shape[1])))
