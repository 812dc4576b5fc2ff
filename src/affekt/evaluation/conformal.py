"""Sets of emotions with a promised error rate: split conformal prediction.

The set of a clip has all emotions whose probability is at least a limit, and the most probable one in any case ("least
ambiguous sets", Sadinle, Lei and Wasserman 2019). The limit is a quantile of the probabilities that the model assigns to the
true emotions of n calibration clips, which it was not trained on. If a new clip and these clips are exchangeable, its set
lacks its emotion with a probability of at most the error rate, averaged over clips and over calibration sets, whatever the
model and its errors are. Recordings of other speakers, languages and microphones are not exchangeable with the calibration
clips: measure the error rate on clips of your own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.evaluation.metrics import Labels, Probabilities, is_refused

MIN_TOTAL = 1e-12
"""Lower bound of a sum of probabilities, by which they are divided."""


@dataclass(frozen=True)
class SetScores:
    """The sets of labeled clips: how often they lack the label, and how large they are."""

    error_rate: float
    """The promised fraction of sets without the clip's emotion."""
    errors: float
    """The fraction of sets without the clip's emotion."""
    size: float
    """Mean number of emotions of a set."""
    single: float
    """The fraction of sets with one emotion."""


def restrict(probabilities: Probabilities, columns: Sequence[int]) -> NDArray[np.float64]:
    """Return the probabilities of some of the emotions, (clips, columns), normalized; zeros where no speech was found."""
    chosen = probabilities[:, list(columns)].astype(np.float64)
    total = np.maximum(chosen.sum(axis=1, keepdims=True), MIN_TOTAL)
    return np.asarray(chosen / total)


def min_probability(labels: Labels, probabilities: Probabilities, error_rate: float) -> float:
    """Return the smallest probability of an emotion with which it belongs to the set of a clip.

    It is the floor(error_rate * (n + 1))-th smallest of the probabilities of the true emotions. Clips in which the model
    finds no speech, and which therefore get no set, do not count.

    Args:
        labels: Index of each calibration clip's emotion, (clips,).
        probabilities: Their probabilities, (clips, emotions).
        error_rate: The promised fraction of sets without the clip's emotion.

    Raises:
        BadConfig: There are too few clips for this error rate.
    """
    recognized = ~is_refused(probabilities)
    true = np.sort(probabilities[np.arange(len(labels)), labels][recognized])
    rank = math.floor(error_rate * (true.size + 1) + 1e-9)
    if rank < 1:
        raise BadConfig(
            f"an error rate of {error_rate} needs at least {math.ceil(1 / error_rate) - 1} calibration clips, but there are "
            f"{true.size}: choose a larger error rate, or calibrate with more clips"
        )
    return float(true[rank - 1])


def emotion_sets(probabilities: Probabilities, limit: float) -> NDArray[np.bool_]:
    """Return which emotions the set of each clip has, (clips, emotions).

    Args:
        probabilities: The probabilities, (clips, emotions).
        limit: The result of `min_probability`.
    """
    sets = probabilities >= limit
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets


def score_sets(labels: Labels, sets: NDArray[np.bool_], error_rate: float) -> SetScores:
    """Return how often the sets of clips lack the label, and how large they are."""
    sizes = sets.sum(axis=1)
    missed = ~sets[np.arange(len(labels)), labels]
    return SetScores(error_rate, float(missed.mean()), float(sizes.mean()), float((sizes == 1).mean()))


def held_out_sets(
    labels: Labels, probabilities: Probabilities, speakers: Sequence[str], error_rate: float
) -> NDArray[np.bool_]:
    """Return the sets of clips, (clips, emotions), each calibrated with the clips of all other speakers.

    Args:
        labels: Index of each clip's emotion, (clips,).
        probabilities: The probabilities of the clips, (clips, emotions); all are recognized.
        speakers: The speaker of each clip.
        error_rate: The promised fraction of sets without the clip's emotion.
    """
    names = np.array(speakers)
    sets = np.zeros(probabilities.shape, bool)
    for speaker in sorted(set(speakers)):
        held_out = names == speaker
        limit = min_probability(labels[~held_out], probabilities[~held_out], error_rate)
        sets[held_out] = emotion_sets(probabilities[held_out], limit)
    return sets
