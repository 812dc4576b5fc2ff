"""Temperature scaling, fitted on utterances that no model was trained on (Guo et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import Labels, Probabilities, cross_entropy

LOWEST, HIGHEST, STEPS = 0.2, 5.0, 400


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
