"""Confidence that means what it says: a temperature fitted on utterances that nobody trained on (Guo et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import Labels, Probabilities

LOWEST, HIGHEST, STEPS = 0.2, 5.0, 400


def fitted_temperature(labels: Labels, predictions: Sequence[Probabilities]) -> float:
    """The temperature at which the mean of the members' probabilities makes the labels likeliest.

    predictions: per member (utterances, emotions), at temperature 1.
    """
    grid = np.geomspace(LOWEST, HIGHEST, STEPS)
    return float(grid[np.argmin([unlikelihood(labels, tempered(predictions, one)) for one in grid])])


def tempered(predictions: Sequence[Probabilities], temperature: float) -> NDArray[np.float64]:
    """The mean of the members' probabilities, (utterances, emotions), with their logits divided by a temperature."""
    return np.mean([_softened(one, temperature) for one in predictions], axis=0)


def _softened(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-12)) / temperature
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def unlikelihood(labels: Labels, probabilities: Probabilities) -> float:
    """The mean negative logarithm of the probability of what is so."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())
