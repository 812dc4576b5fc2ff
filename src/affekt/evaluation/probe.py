"""Linear probes: logistic regression on the mean and standard deviation of features over time.

A model that does not beat the probe on the same features adds nothing to them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from affekt.extras import need


def mean_and_std(values: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Return mean and standard deviation over each utterance's frames, (utterances, 2 dim), from (frames, dim) each."""
    in_float64 = (frames.astype(np.float64) for frames in values)
    return np.stack([np.r_[frames.mean(axis=0), frames.std(axis=0)] for frames in in_float64])


def linear_probe(
    train: NDArray[np.float64],
    labels: NDArray[np.int64],
    test: NDArray[np.float64],
    *,
    num_emotions: int,
    strength: float,
) -> NDArray[np.float64]:
    """Fit a logistic regression on standardized features; return its probabilities on `test`, (utterances, emotions).

    Args:
        train: Features to fit on, (utterances, features).
        labels: The index of each utterance's emotion. An emotion that does not occur here gets probability 0.
        test: Features to predict on, (utterances, features).
        strength: Scikit-learn's C, the inverse of the L2 penalty's weight: a smaller value regularizes more.
    """
    linear = need("sklearn.linear_model", extra="train", purpose="a linear probe")
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-9
    model = linear.LogisticRegression(C=strength, max_iter=500).fit((train - mean) / std, labels)
    probabilities = np.zeros((len(test), num_emotions))
    probabilities[:, model.classes_] = model.predict_proba((test - mean) / std)
    return probabilities
