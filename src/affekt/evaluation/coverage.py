"""Coverage against accuracy: how many clips are answered at a threshold of confidence, and how many of these correctly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from affekt.evaluation.metrics import Labels, Probabilities, confusion, most_probable, ua, wa
from affekt.evaluation.scores import as_seeds

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The thresholds of tables."""


@dataclass(frozen=True)
class CoveragePoint:
    """The clips whose most probable emotion has at least a probability."""

    threshold: float
    answered: int
    """Number of these clips."""
    coverage: float
    """Their fraction of all clips, including those that are refused because no speech is found."""
    WA: float | None
    """Their fraction that is classified correctly; None without clips."""
    UA: float | None
    """The mean of the recalls of the emotions that occur among them; None without clips."""


def coverage_curve(
    labels: Labels, probabilities: Probabilities | Sequence[Probabilities], thresholds: Sequence[float] = THRESHOLDS
) -> list[CoveragePoint]:
    """Return a point for each threshold. The predictions of several seeds are counted together.

    Args:
        labels: The index of each clip's emotion, (clips,).
        probabilities: The probabilities, (clips, emotions), or those of each seed.
        thresholds: The thresholds.
    """
    seeds = as_seeds(probabilities)
    stacked, repeated = np.concatenate(seeds), np.tile(labels, len(seeds))
    confidence = stacked.max(axis=1)
    points = []
    for threshold in thresholds:
        chosen = (confidence >= threshold) & (confidence > 0)
        counts = confusion(repeated[chosen], most_probable(stacked[chosen]), stacked.shape[1])
        scores = (wa(counts), ua(counts)) if chosen.any() else (None, None)
        points.append(CoveragePoint(threshold, int(chosen.sum()), float(chosen.mean()), *scores))
    return points
