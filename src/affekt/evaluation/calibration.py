"""Calibration: reliability diagrams, ECE, Brier score, and temperature scaling (Guo et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import ECE_BINS, Labels, Probabilities, cross_entropy, ece, most_probable
from affekt.evaluation.scores import as_seeds

LOWEST, HIGHEST, STEPS = 0.2, 5.0, 400


@dataclass(frozen=True)
class Reliability:
    """The data of a reliability diagram: utterances in bins of equal width by the confidence of their prediction."""

    edges: tuple[float, ...]
    """The bins' edges, (bins + 1,)."""
    utterances: tuple[int, ...]
    """The number of predictions in each bin."""
    confidence: tuple[float | None, ...]
    """The mean confidence in each bin; None for an empty bin."""
    accuracy: tuple[float | None, ...]
    """The fraction of correct predictions in each bin; None for an empty bin."""


@dataclass(frozen=True)
class Calibration:
    """How well probabilities match accuracy. With several seeds, each number is the mean over the seeds."""

    ece: float
    """The expected calibration error."""
    brier: float
    """The Brier score, from 0 to 2."""
    cross_entropy: float
    """In nats."""


@dataclass(frozen=True)
class TemperatureScaling:
    """Calibration before and after dividing the logits by a temperature that was fitted on the validation subset."""

    before: Calibration
    after: Calibration | None
    """None without a validation subset."""
    temperatures: Mapping[int, tuple[float, ...]]
    """Seed -> the temperature of each fold; {} without a validation subset."""


def reliability(
    labels: Labels, probabilities: Probabilities | Sequence[Probabilities], *, bins: int = ECE_BINS
) -> Reliability:
    """Return the data of a reliability diagram. The predictions of several seeds are counted together.

    Args:
        labels: The index of each utterance's emotion, (utterances,).
        probabilities: The probabilities, (utterances, emotions), or those of each seed.
        bins: The number of bins.
    """
    seeds = as_seeds(probabilities)
    confidence = np.concatenate([predictions.max(axis=1) for predictions in seeds]).astype(np.float64)
    correct = np.concatenate([most_probable(predictions) == labels for predictions in seeds])
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)

    def means(values: NDArray[np.floating | np.bool_]) -> tuple[float | None, ...]:
        sums = np.bincount(index, weights=values, minlength=bins)
        return tuple(float(total / count) if count else None for total, count in zip(sums, counts, strict=True))

    edges = tuple(np.linspace(0, 1, bins + 1).tolist())
    return Reliability(edges, tuple(counts.tolist()), means(confidence), means(correct))


def brier(labels: Labels, probabilities: Probabilities) -> float:
    """Return the Brier score: the mean squared distance of the probabilities from the label's, summed over the emotions."""
    targets = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - targets) ** 2).sum(axis=1).mean())


def calibration(labels: Labels, probabilities: Sequence[Probabilities]) -> Calibration:
    """Return the calibration of predictions as the mean over the seeds.

    Args:
        labels: The index of each utterance's emotion, (utterances,).
        probabilities: The probabilities of each seed, (utterances, emotions) each.
    """
    return Calibration(
        *(
            float(np.mean([metric(labels, predictions) for predictions in probabilities]))
            for metric in (ece, brier, cross_entropy)
        )
    )


def fit_temperature(labels: Labels, predictions: Sequence[Probabilities]) -> float:
    """Return the temperature at which the members' mean probabilities have the lowest cross-entropy.

    Args:
        labels: Index of each utterance's emotion, (utterances,).
        predictions: The probabilities of each member of an ensemble at temperature 1, (utterances, emotions) each.
    """
    grid = np.geomspace(LOWEST, HIGHEST, STEPS)
    losses = [cross_entropy(labels, average_at_temperature(predictions, temperature)) for temperature in grid]
    return float(grid[np.argmin(losses)])


def average_at_temperature(predictions: Sequence[Probabilities], temperature: float) -> NDArray[np.float64]:
    """Return the members' mean probabilities, (utterances, emotions), after dividing their logits by a temperature."""
    return np.mean([_scale(probabilities, temperature) for probabilities in predictions], axis=0)


def _scale(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12)) / temperature
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))
