"""Scores of groups of speakers, such as by gender, and whether the largest gap between two groups is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import Labels, Probabilities
from affekt.evaluation.scores import Interval, Scores, as_seeds, score_and_draw


@dataclass(frozen=True)
class Gap:
    """The largest difference of UA between two groups."""

    higher: str
    lower: str
    value: float
    low: float
    high: float
    """The 95 % interval of the difference. It is simultaneous over all pairs of groups, because the pair was selected."""

    @property
    def excludes_zero(self) -> bool:
        """Return True if the interval excludes 0; only then is the difference called a gap."""
        return self.low > 0


@dataclass(frozen=True)
class Subgroups:
    """The scores of groups of utterances."""

    attribute: str
    """The attribute that a group shares: "gender", "age" or "speaker"."""
    scores: Mapping[str, Scores]
    """Group -> its scores, in the order of the names."""
    gap: Gap | None
    """The largest gap; None if fewer than two groups have enough utterances for an interval."""
    unknown: int
    """The number of utterances whose group is unknown; they are left out."""


def score_subgroups(
    attribute: str,
    groups: Sequence[str],
    labels: Labels,
    probabilities: Probabilities | Sequence[Probabilities],
    emotions: Sequence[str],
    speakers: Sequence[str] | None = None,
) -> Subgroups:
    """Score each group of utterances, and compare the best group with the worst.

    Args:
        attribute: What the groups have in common.
        groups: The group of each utterance; "" if it is unknown.
        labels: The index of each utterance's emotion, (utterances,).
        probabilities: The probabilities, (utterances, emotions), or those of each seed.
        emotions: The emotions' names.
        speakers: The speaker of each utterance; None if they are unknown.
    """
    seeds, names = as_seeds(probabilities), np.array(groups)
    scores: dict[str, Scores] = {}
    draws: dict[str, NDArray[np.float64]] = {}
    for name in sorted(set(groups) - {""}):
        indices = np.flatnonzero(names == name)
        members = np.array(speakers)[indices].tolist() if speakers else None
        chosen = [predictions[indices] for predictions in seeds]
        scores[name], group_draws = score_and_draw(labels[indices], chosen, emotions, members)
        if group_draws is not None:
            draws[name] = group_draws
    values = {name: scores[name].UA for name in draws}
    return Subgroups(attribute, scores, largest_gap(values, draws), int((names == "").sum()))


def largest_gap(values: Mapping[str, Interval], draws: Mapping[str, NDArray[np.float64]]) -> Gap | None:
    """Return the difference between the best group and the worst, with an interval that is simultaneous over all pairs.

    The interval's width is the 95 % quantile of the largest standardized deviation over all pairs of groups, so that a pair
    that was selected for its difference is not called a gap by chance.

    Args:
        values: Group -> its UA.
        draws: Group -> bootstrap draws of its UA, independent of the other groups'.
    """
    names = list(draws)
    spreads = np.array([draws[name].std() for name in names])
    if len(names) < 2 or not spreads.all():
        return None
    scores = np.array([values[name].value for name in names])
    deviations = np.stack([draws[name] for name in names]) - scores[:, None]
    largest = np.zeros(deviations.shape[1])
    for index in range(len(names) - 1):
        errors = np.sqrt(spreads[index] ** 2 + spreads[index + 1 :] ** 2)[:, None]
        largest = np.maximum(largest, np.abs((deviations[index] - deviations[index + 1 :]) / errors).max(axis=0))
    best, worst = int(scores.argmax()), int(scores.argmin())
    half = float(np.quantile(largest, 0.95) * np.hypot(spreads[best], spreads[worst]))
    value = float(scores[best] - scores[worst])
    return Gap(names[best], names[worst], value, value - half, value + half)
