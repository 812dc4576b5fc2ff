"""From probabilities and labels to scores with intervals, and from two systems' answers to a paired comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.evaluation.metrics import Labels, Probabilities, confusion, ece, recalls, ua, wa, wf1

DRAWS = 2000
PEOPLE = 10  # from so many speakers on, the bootstrap draws speakers


@dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """Shares, from 0 to 1. `intervals` says what the intervals were drawn over, and so what they mean."""

    utterances: int
    intervals: str
    WA: Interval
    UA: Interval
    WF1: Interval
    recall: dict[str, Interval]
    ece: float


def score(
    labels: Labels,
    probabilities: Probabilities,
    emotions: Sequence[str],
    people: Sequence[str] | None = None,
    *,
    units: Sequence[str] | None = None,
) -> Scores:
    """Scores of answers given as (utterances, emotions). UA is over the emotions that occur in `labels`.

    units: names of the utterances, where one may stand several times (answered by several runs): it is drawn as a whole.

    people: who speaks each utterance. Utterances of one speaker are not independent: with 10 speakers or more the
    bootstrap draws whole speakers, and its intervals speak of other people too; with fewer, or where nobody knows, it
    draws utterances, and its intervals speak of these people alone.
    """
    if len(labels) == 0:
        raise BadConfig("there is no utterance to score")
    predicted = probabilities.argmax(axis=1)
    counts = confusion(labels, predicted, len(emotions))
    if people is not None and len(set(people)) >= PEOPLE:
        intervals = f"95 % bootstrap over {len(set(people))} speakers, {DRAWS} draws"
        drawn = _drawn_people(_by_person(labels, predicted, people, len(emotions)))
    else:
        intervals = f"95 % bootstrap over utterances within each emotion, {DRAWS} draws: valid for these speakers only"
        drawn = _drawn_units(labels, predicted, units or [str(n) for n in range(len(labels))], len(emotions))
    per_draw = np.array([recalls(one) for one in drawn])
    return Scores(
        utterances=len(labels),
        intervals=intervals,
        WA=_interval(wa(counts), [wa(one) for one in drawn]),
        UA=_interval(ua(counts), [ua(one) for one in drawn]),
        WF1=_interval(wf1(counts), [wf1(one) for one in drawn]),
        recall={
            emotion: _interval(float(recalls(counts)[index]), per_draw[:, index].tolist())
            for index, emotion in enumerate(emotions)
            if counts[index].sum()
        },
        ece=ece(labels, probabilities),
    )


def _interval(value: float, draws: Sequence[float]) -> Interval:
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _drawn_units(labels: Labels, predicted: Labels, units: Sequence[str], emotions: int) -> list[NDArray[np.int64]]:
    """Confusion matrices of bootstrap samples of utterances, drawn within each emotion, so that none vanishes and UA
    stays what it is."""
    generator = np.random.default_rng(0)
    per_unit = _by_person(labels, predicted, units, emotions)
    emotion = per_unit.sum(axis=2).argmax(axis=1)
    groups = [np.flatnonzero(emotion == label) for label in np.unique(emotion)]
    drawn = []
    for _ in range(DRAWS):
        draw = np.concatenate([generator.choice(group, len(group)) for group in groups])
        weights = np.bincount(draw, minlength=len(per_unit))
        drawn.append(np.tensordot(weights, per_unit, axes=1))
    return drawn


def _by_person(labels: Labels, predicted: Labels, people: Sequence[str], emotions: int) -> NDArray[np.int64]:
    """(people, emotions, emotions): everybody's confusion matrix. A draw of people is a sum of them."""
    names, place = np.unique(np.array(people), return_inverse=True)
    counts = np.zeros((len(names), emotions, emotions), np.int64)
    np.add.at(counts, (place, labels, predicted), 1)
    return counts


def _drawn_people(per_person: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Confusion matrices of bootstrap samples of people; the same people whatever system answered."""
    generator, number = np.random.default_rng(0), len(per_person)
    weights = [np.bincount(generator.integers(number, size=number), minlength=number) for _ in range(DRAWS)]
    return [np.tensordot(one, per_person, axes=1) for one in weights]


@dataclass(frozen=True)
class Comparison:
    """One system beside another on the same utterances.

    value: difference of UA, first minus second.
    interval: 95 %, from drawing the same speakers for both; None below 10 speakers.
    better, worse: utterances that only the first, or only the second, gets right.
    p: McNemar's exact test, two-sided, that both are as often right; it takes utterances as independent.
    """

    value: float
    interval: tuple[float, float] | None
    better: int
    worse: int
    p: float


def compare(
    labels: Labels, first: Probabilities, second: Probabilities, people: Sequence[str] | None = None
) -> Comparison:
    answers = [first.argmax(axis=1), second.argmax(axis=1)]
    people = people if people is not None else [""] * len(labels)
    one, other = (_by_person(labels, answer, people, first.shape[1]) for answer in answers)
    interval = None
    if len(one) >= PEOPLE:
        gains = [ua(a) - ua(b) for a, b in zip(_drawn_people(one), _drawn_people(other), strict=True)]
        low, high = np.percentile(gains, [2.5, 97.5])
        interval = (float(low), float(high))
    right = [answer == labels for answer in answers]
    better, worse = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return Comparison(ua(one.sum(axis=0)) - ua(other.sum(axis=0)), interval, better, worse, mcnemar(better, worse))


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided probability of so uneven a split of better + worse fair coins."""
    total, fewer = better + worse, min(better, worse)
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**total)
