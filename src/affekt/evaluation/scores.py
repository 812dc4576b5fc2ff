"""From probabilities and labels to scores with intervals, and from two systems' answers to a paired comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.metrics import Labels, Probabilities, confusion, ece, recalls, ua, wa, wf1

DRAWS = 2000
METHOD = f"95 % bootstrap intervals over utterances, {DRAWS} draws within each emotion, seed 0"


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float

    def percent(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f} to {100 * self.high:.1f})"


@dataclass(frozen=True)
class Scores:
    """Shares, from 0 to 1."""

    utterances: int
    WA: Interval
    UA: Interval
    WF1: Interval
    recall: dict[str, Interval]
    ece: float


def score(labels: Labels, probabilities: Probabilities, emotions: Sequence[str]) -> Scores:
    """Scores of answers given as (utterances, emotions). UA is over the emotions that occur in `labels`."""
    if len(labels) == 0:
        raise BadConfig("there is no utterance to score")
    predicted = probabilities.argmax(axis=1)
    counts = confusion(labels, predicted, len(emotions))
    drawn = [confusion(labels[draw], predicted[draw], len(emotions)) for draw in _draws(labels)]

    def interval(value: float, draws: Sequence[float]) -> Interval:
        low, high = np.percentile(draws, [2.5, 97.5])
        return Interval(value, float(low), float(high))

    per_draw = np.array([recalls(one) for one in drawn])
    return Scores(
        utterances=len(labels),
        WA=interval(wa(counts), [wa(one) for one in drawn]),
        UA=interval(ua(counts), [ua(one) for one in drawn]),
        WF1=interval(wf1(counts), [wf1(one) for one in drawn]),
        recall={
            emotion: interval(float(recalls(counts)[index]), per_draw[:, index].tolist())
            for index, emotion in enumerate(emotions)
            if counts[index].sum()
        },
        ece=ece(labels, probabilities),
    )


def _draws(labels: Labels) -> list[NDArray[np.int64]]:
    """Bootstrap samples of indices, drawn within each emotion, so that none vanishes and UA stays what it is."""
    generator = np.random.default_rng(0)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return [np.concatenate([generator.choice(group, len(group)) for group in groups]) for _ in range(DRAWS)]


@dataclass(frozen=True)
class Comparison:
    """One system beside another on the same utterances.

    difference: of UA, first minus second, with its 95 % interval from drawing whole speakers with replacement (the same
        for both systems): utterances of one speaker are not independent.
    better, worse: utterances that only the first, or only the second, gets right.
    p: McNemar's exact test, two-sided, that both are as often right.
    """

    difference: Interval
    better: int
    worse: int
    p: float


def compare(labels: Labels, first: Probabilities, second: Probabilities, people: Sequence[str]) -> Comparison:
    emotions = max(first.shape[1], second.shape[1])
    answers = [first.argmax(axis=1), second.argmax(axis=1)]
    names, place = np.unique(np.array(people), return_inverse=True)
    # Confusion matrices per speaker: a draw of speakers is then a sum of them.
    per_person = [
        np.stack([confusion(labels[place == n], answer[place == n], emotions) for n in range(len(names))])
        for answer in answers
    ]
    generator = np.random.default_rng(0)
    gains = []
    for _ in range(DRAWS):
        weights = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        one, other = (ua(np.tensordot(weights, counts, axes=1)) for counts in per_person)
        gains.append(one - other)
    right = [answer == labels for answer in answers]
    better, worse = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    one, other = (ua(counts.sum(axis=0)) for counts in per_person)
    low, high = np.percentile(gains, [2.5, 97.5])
    return Comparison(Interval(one - other, float(low), float(high)), better, worse, mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided probability of so uneven a split of better + worse fair coins."""
    total, fewer = better + worse, min(better, worse)
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)
