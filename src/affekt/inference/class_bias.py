"""Class biases: one number for each emotion, which is added to the logarithm of its probability.

`affekt.inference.onnx.Graph` applies those of a profile to the graph's output. The graph's input `class_bias` does the same
(`affekt.bundle.pipeline.Pipeline.outputs`), for programs that run model.onnx without affekt.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS = 1000
"""Number of iterations after which `solve_class_bias` stops even if TOLERANCE is not reached."""
TOLERANCE = 1e-4
"""Largest accepted difference between the mean of the biased probabilities and the expected distribution."""
MIN_PROBABILITY = 1e-6
"""Lower bound of probabilities for `solve_class_bias`, so that no emotion is impossible."""


def apply_class_bias(probabilities: NDArray[Any], bias: NDArray[Any]) -> NDArray[np.float64]:
    """Return probabilities proportional to `probabilities * exp(bias)`, (clips, emotions); rows of zeros do not change."""
    weighted = np.asarray(probabilities, np.float64) * np.exp(bias)
    total = weighted.sum(axis=1, keepdims=True)
    return np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0)


def solve_class_bias(probabilities: NDArray[Any], expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return the biases, (emotions,) with mean 0, that make the mean of the probabilities the expected distribution.

    Args:
        probabilities: (clips, emotions).
        expected: The expected distribution, (emotions,); all entries are positive, and their sum is 1.
    """
    probabilities = np.maximum(probabilities, MIN_PROBABILITY)
    bias = np.zeros(len(expected))
    for _ in range(MAX_ITERATIONS):
        mean = apply_class_bias(probabilities, bias).mean(axis=0)
        if np.abs(mean - expected).max() < TOLERANCE:
            break
        bias += np.log(expected / mean)
    return bias - bias.mean()
