"""Linear probes: what a logistic regression makes of features, mean and deviation over time. A head that does not beat
them adds nothing."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from affekt.extras import need


def pooled(values: Iterable[NDArray[np.floating]]) -> NDArray[np.float64]:
    """(utterances, 2 dim): mean and standard deviation of each utterance's frames, (frames, dim) each."""
    return np.stack([np.r_[x.mean(axis=0), x.std(axis=0)] for x in (one.astype(np.float64) for one in values)])


def linear_probe(
    train: NDArray[np.float64], labels: NDArray[np.int64], test: NDArray[np.float64], *, emotions: int, strength: float
) -> NDArray[np.float64]:
    """Probabilities on `test`, (utterances, emotions), of a logistic regression on standardised features.

    strength: C, the inverse of the L2 penalty's weight. An emotion that `labels` lacks gets no probability.
    """
    linear = need("sklearn.linear_model", extra="train", purpose="a linear probe")
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-9
    model = linear.LogisticRegression(C=strength, max_iter=500).fit((train - mean) / deviation, labels)
    probabilities = np.zeros((len(test), emotions))
    probabilities[:, model.classes_] = model.predict_proba((test - mean) / deviation)
    return probabilities
