"""Scores, each defined once. Labels are indices; probabilities are (utterances, emotions)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Probabilities = NDArray[np.floating]


def confusion(labels: Labels, predicted: Labels, emotions: int) -> NDArray[np.int64]:
    """(emotions, emotions): rows are what was said, columns what was heard."""
    counts = np.zeros((emotions, emotions), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def recalls(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each emotion, from a confusion matrix; NaN for one that does not occur."""
    totals = counts.sum(axis=1)
    return np.where(totals > 0, np.diag(counts) / np.maximum(totals, 1), np.nan)


def wa(counts: NDArray[np.int64]) -> float:
    """WA, weighted accuracy: the share of utterances that are right."""
    return float(np.trace(counts) / counts.sum())


def ua(counts: NDArray[np.int64]) -> float:
    """UA, unweighted accuracy: the mean of the recalls of the emotions that occur."""
    return float(np.nanmean(recalls(counts)))


def wf1(counts: NDArray[np.int64]) -> float:
    """WF1: the F1 scores of the emotions, weighted by how often each occurs."""
    totals, heard, right = counts.sum(axis=1), counts.sum(axis=0), np.diag(counts)
    f1 = 2 * right / np.maximum(totals + heard, 1)
    return float((f1 * totals).sum() / totals.sum())


def cross_entropy(labels: Labels, probabilities: Probabilities) -> float:
    """The mean of -log p of what was said, in nats."""
    said = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(said, np.finfo(np.float32).tiny)).mean())


def ece(labels: Labels, probabilities: Probabilities, *, bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| in equally wide bins of confidence, weighted by size."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
