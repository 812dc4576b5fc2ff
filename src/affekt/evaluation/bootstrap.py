"""Bootstrap samples as confusion matrices, drawn over speakers or over utterances, with a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import Labels

DRAWS = 2000
"""The number of bootstrap samples."""
MIN_SPEAKERS = 10
"""With this number of speakers or more, intervals are drawn over speakers."""


def confusion_by_group(
    labels: Labels, predicted: Labels, groups: Sequence[str], num_emotions: int
) -> NDArray[np.int64]:
    """Return the confusion matrix of each group of utterances, (groups, emotions, emotions), as `confusion` does.

    Args:
        groups: The name of each utterance's group, such as its speaker.
    """
    names, group_index = np.unique(np.array(groups), return_inverse=True)
    counts = np.zeros((len(names), num_emotions, max(num_emotions, 1 + int(predicted.max(initial=0)))), np.int64)
    np.add.at(counts, (group_index, labels, predicted), 1)
    return counts


def resample_groups(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Draw groups with replacement; return the confusion matrix of each draw.

    The draws depend on the number of groups alone, so that two systems are compared on the same draws.

    Args:
        counts: The confusion matrix of each group, (groups, emotions, emotions).
    """
    generator, num_groups = np.random.default_rng(0), len(counts)
    weights = [np.bincount(generator.integers(num_groups, size=num_groups), minlength=num_groups) for _ in range(DRAWS)]
    return [np.tensordot(weight, counts, axes=1) for weight in weights]


def resample_within_emotions(counts: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Draw utterances with replacement within each emotion; return the confusion matrix of each draw.

    Every draw then contains every emotion, so UA is always the mean over the same emotions.

    Args:
        counts: The confusion matrix of each utterance, (utterances, emotions, emotions).
    """
    generator = np.random.default_rng(0)
    emotions = counts.sum(axis=2).argmax(axis=1)
    strata = [np.flatnonzero(emotions == emotion) for emotion in np.unique(emotions)]
    matrices = []
    for _ in range(DRAWS):
        draw = np.concatenate([generator.choice(stratum, len(stratum)) for stratum in strata])
        weights = np.bincount(draw, minlength=len(counts))
        matrices.append(np.tensordot(weights, counts, axes=1))
    return matrices
