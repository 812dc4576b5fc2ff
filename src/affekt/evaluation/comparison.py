"""Paired comparisons of two systems on the same utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affekt.evaluation.bootstrap import MIN_SPEAKERS, confusion_by_group, resample_groups
from affekt.evaluation.metrics import Labels, Probabilities, most_probable, ua
from affekt.extras import need


@dataclass(frozen=True)
class Comparison:
    """Two systems compared on the same utterances."""

    value: float
    """The difference of UA, first minus second."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of the difference; each draw has the same speakers for both. None below 10 speakers."""
    better: int
    """The number of utterances that only the first system classifies correctly."""
    worse: int
    """The number of utterances that only the second system classifies correctly."""
    p: float
    """The two-sided p-value of McNemar's exact test of whether both systems are equally accurate. The test treats utterances
    as independent."""


def compare(
    labels: Labels, first: Probabilities, second: Probabilities, speakers: Sequence[str] | None = None
) -> Comparison:
    """Compare two systems' probabilities, (utterances, emotions) each.

    Args:
        speakers: The speaker of each utterance; None if they are unknown; there is then no interval.
    """
    predictions = [most_probable(first), most_probable(second)]
    groups = speakers if speakers is not None else [""] * len(labels)
    first_counts, second_counts = (
        confusion_by_group(labels, predicted, groups, first.shape[1]) for predicted in predictions
    )
    interval = None
    if len(first_counts) >= MIN_SPEAKERS:
        pairs = zip(resample_groups(first_counts), resample_groups(second_counts), strict=True)
        low, high = np.percentile([ua(a) - ua(b) for a, b in pairs], [2.5, 97.5])
        interval = (float(low), float(high))
    first_correct, second_correct = (predicted == labels for predicted in predictions)
    better, worse = int((first_correct & ~second_correct).sum()), int((second_correct & ~first_correct).sum())
    difference = ua(first_counts.sum(axis=0)) - ua(second_counts.sum(axis=0))
    return Comparison(difference, interval, better, worse, mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """Return the two-sided p-value of McNemar's exact test; 1 if both counts are 0.

    Args:
        better: The number of utterances that only the first system classifies correctly.
        worse: The number of utterances that only the second system classifies correctly.
    """
    if better + worse == 0:
        return 1.0
    stats = need("scipy.stats", extra="train", purpose="McNemar's test")
    return float(stats.binomtest(better, better + worse).pvalue)
