"""Tests of paired differences, with Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.extras import need

MIN_FOLDS = 6
"""With fewer folds, Wilcoxon's signed-rank test cannot reach p = 0.05, so it is not computed."""
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of whether two systems are equally accurate. It treats utterances as independent."""

    better: int
    """The number of utterances that only the first system classifies correctly."""
    worse: int
    """The number of utterances that only the second system classifies correctly."""
    p: float
    """The two-sided p-value of the exact test; 1 if both counts are 0."""
    mid_p: float
    """The mid-p value, which is less conservative than the exact one."""


def mcnemar(better: int, worse: int) -> McNemar:
    """Compute McNemar's exact test and its mid-p variant (Fagerland et al., BMC Med. Res. Methodol. 2013).

    Args:
        better: The number of utterances that only the first system classifies correctly.
        worse: The number of utterances that only the second system classifies correctly.
    """
    total = better + worse
    if total == 0:
        return McNemar(0, 0, 1.0, 1.0)
    stats = need("scipy.stats", extra="train", purpose="McNemar's test")
    exact = float(stats.binomtest(better, total).pvalue)
    return McNemar(better, worse, exact, min(1.0, exact - float(stats.binom.pmf(min(better, worse), total, 0.5))))


def cohens_g(better: int, worse: int) -> float:
    """Return Cohen's g, the effect size of McNemar's test: the fraction of disagreements that the first wins, minus 0.5.

    By Cohen's convention, 0.05 is small, 0.15 medium and 0.25 large. 0 if the systems never disagree.
    """
    return better / (better + worse) - 0.5 if better + worse else 0.0


def wilcoxon(differences: Sequence[float]) -> float | None:
    """Return the two-sided p-value of Wilcoxon's signed-rank test over folds; None below 6 folds.

    Args:
        differences: The difference of the metric in each fold, first minus second.
    """
    if len(differences) < MIN_FOLDS:
        return None
    rounded = np.round(differences, 12)  # so that equal differences are ties in spite of rounding errors
    if not rounded.any():
        return 1.0
    stats = need("scipy.stats", extra="train", purpose="Wilcoxon's test")
    return float(stats.wilcoxon(rounded, method="auto").pvalue)


def bootstrap_p(draws: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of a difference from its bootstrap draws: twice the fraction on the far side of 0."""
    number = len(draws) + 1
    below, above = (1 + int((draws <= 0).sum())) / number, (1 + int((draws >= 0).sum())) / number
    return min(1.0, 2 * min(below, above))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons by Holm's step-down method, in the same order."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
