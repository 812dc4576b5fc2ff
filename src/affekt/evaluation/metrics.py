"""The metrics, each defined once. Labels are indices, (utterances,); probabilities are (utterances, emotions).

A row of zeros is an utterance that the model refused, because it finds no speech in it. It counts as misclassified.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Probabilities = NDArray[np.floating]
ECE_BINS = 15
"""The number of bins of the expected calibration error and of reliability diagrams."""


def most_probable(probabilities: Probabilities) -> Labels:
    """Return the index of each utterance's most probable emotion; the number of emotions for a refused utterance."""
    return np.where(is_refused(probabilities), probabilities.shape[1], probabilities.argmax(axis=1))


def is_refused(probabilities: Probabilities) -> NDArray[np.bool_]:
    """Return which utterances the model refused, (utterances,)."""
    result: NDArray[np.bool_] = probabilities.sum(axis=1) == 0
    return result


def confusion(labels: Labels, predicted: Labels, num_emotions: int) -> NDArray[np.int64]:
    """Return the confusion matrix, (emotions, emotions): rows are true labels, columns predictions.

    If any utterance was refused, a further column has their numbers.
    """
    counts = np.zeros((num_emotions, max(num_emotions, 1 + int(predicted.max(initial=0)))), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def recalls(counts: NDArray[np.number]) -> NDArray[np.float64]:
    """Return the recall of each emotion, (..., emotions), from confusion matrices, (..., emotions, predictions).

    It is NaN for an emotion that does not occur.
    """
    totals = counts.sum(axis=-1)
    correct = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.where(totals > 0, correct / np.maximum(totals, 1), np.nan)


def _wa(counts: NDArray[np.number]) -> NDArray[np.float64]:
    return np.asarray(np.trace(counts, axis1=-2, axis2=-1) / counts.sum(axis=(-2, -1)))


def _ua(counts: NDArray[np.number]) -> NDArray[np.float64]:
    return np.asarray(np.nanmean(recalls(counts), axis=-1))


def _wf1(counts: NDArray[np.number]) -> NDArray[np.float64]:
    num_emotions = counts.shape[-2]
    support, predicted = counts.sum(axis=-1), counts.sum(axis=-2)[..., :num_emotions]
    f1 = 2 * np.diagonal(counts, axis1=-2, axis2=-1) / np.maximum(support + predicted, 1)
    return np.asarray((f1 * support).sum(axis=-1) / support.sum(axis=-1))


METRICS: dict[str, Callable[[NDArray[np.number]], NDArray[np.float64]]] = {"UA": _ua, "WA": _wa, "WF1": _wf1}
"""Name -> function from confusion matrices, (..., emotions, predictions), to the metric of each, (...)."""


def wa(counts: NDArray[np.number]) -> float:
    """Return WA, weighted accuracy: the fraction of utterances that are classified correctly."""
    return float(_wa(counts))


def ua(counts: NDArray[np.number]) -> float:
    """Return UA, unweighted accuracy: the mean recall of the emotions that occur."""
    return float(_ua(counts))


def wf1(counts: NDArray[np.number]) -> float:
    """Return WF1: the mean F1 score of the emotions, weighted by how often each occurs."""
    return float(_wf1(counts))


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float:
    """Return the mean negative log-likelihood of the true labels, in nats."""
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(likelihood, np.finfo(np.float32).tiny)).mean())


def ece(labels: Labels, probabilities: Probabilities, *, bins: int = ECE_BINS) -> float:
    """Return the expected calibration error: |confidence - accuracy| in bins of equal width, weighted by their size.

    A refused utterance has a confidence of 0.
    """
    confidence, correct = probabilities.max(axis=1), most_probable(probabilities) == labels
    bin_index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_index, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
