"""Bootstrap of the systems' confusion matrices, which resamples speakers or utterances, with a fixed seed.

`scipy.stats.bootstrap` draws the samples and makes the intervals.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import Labels
from affekt.extras import need

DRAWS = 2000
"""The number of bootstrap samples."""
BATCH = 250
"""Number of samples drawn at once, which bounds the memory."""
MIN_SPEAKERS = 10
"""With this number of speakers or more, the bootstrap resamples speakers."""
MIN_PER_EMOTION = 5
"""UA and WF1 have no interval over utterances if an emotion that occurs has fewer utterances than this."""

Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function from confusion matrices, (draws, systems, emotions, predictions), to its values, (values, draws)."""


@dataclass(frozen=True)
class Bootstrap:
    """The draws of several values, and their 95 % intervals. An interval is NaN where all draws are equal."""

    draws: NDArray[np.float64]
    """(values, draws)"""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    """(values,)"""


def confusion_by_group(
    labels: Labels, predicted: NDArray[np.int64], groups: Sequence[str], num_emotions: int
) -> NDArray[np.int64]:
    """Return the confusion matrix of each group of utterances, (groups, systems, emotions, predictions).

    Args:
        labels: The index of each utterance's emotion, (utterances,).
        predicted: The index of each system's predictions, (systems, utterances).
        groups: The name of each utterance's group, such as its speaker.
        num_emotions: The number of emotions.
    """
    names, group_index = np.unique(np.array(groups), return_inverse=True)
    num_predictions = max(num_emotions, 1 + int(predicted.max(initial=0)))
    counts = np.zeros((len(predicted), len(names), num_emotions, num_predictions), np.int64)
    for system_predictions, system_counts in zip(predicted, counts, strict=True):
        np.add.at(system_counts, (group_index, labels, system_predictions), 1)
    return np.moveaxis(counts, 0, 1)


def bootstrap_groups(counts: NDArray[np.int64], statistic: Statistic) -> Bootstrap:
    """Draw groups with replacement. The intervals are BCa, or percentile intervals where BCa is not defined.

    The draws depend on the number of groups alone, so that all systems are compared on the same draws.

    Args:
        counts: The confusion matrices of each group, (groups, systems, emotions, predictions).
        statistic: The values to compute from the sum over the groups of a draw.
    """
    return _bootstrap(counts, [np.arange(len(counts))], statistic, "BCa")


def bootstrap_within_emotions(counts: NDArray[np.int64], statistic: Statistic) -> Bootstrap:
    """Draw utterances with replacement within each emotion, and return percentile intervals.

    Every draw then contains every emotion, so UA is always the mean over the same emotions.

    Args:
        counts: The confusion matrices of each utterance, (utterances, systems, emotions, predictions).
        statistic: The values to compute from the sum over the utterances of a draw.
    """
    emotions = counts.sum(axis=(1, 3)).argmax(axis=1)
    strata = [np.flatnonzero(emotions == emotion) for emotion in np.unique(emotions)]
    return _bootstrap(counts, strata, statistic, "percentile")


def _bootstrap(
    counts: NDArray[np.int64], strata: Sequence[NDArray[np.int64]], statistic: Statistic, method: str
) -> Bootstrap:
    stats = need("scipy.stats", extra="train", purpose="a bootstrap interval")
    fixed = [int(stratum[0]) for stratum in strata if len(stratum) == 1]  # in every sample
    resampled = [stratum for stratum in strata if len(stratum) > 1]
    if not resampled:
        value = statistic(counts.sum(axis=0)[None].astype(np.float64))
        return Bootstrap(np.repeat(value, DRAWS, axis=1), *np.full((2, len(value)), np.nan))

    def value_of(*indices: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        assert axis == -1
        index = np.concatenate(indices, axis=-1)
        sums = _sum_groups(counts, index.reshape(-1, index.shape[-1]), fixed)
        return statistic(sums).reshape(-1, *index.shape[:-1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns where all draws are equal, and returns NaN
        result = stats.bootstrap(
            resampled,
            value_of,
            n_resamples=DRAWS,
            batch=BATCH,
            vectorized=True,
            axis=-1,
            method=method,
            random_state=np.random.default_rng(0),
        )
    draws = np.asarray(result.bootstrap_distribution)
    return Bootstrap(draws, *_finite(draws, np.stack([*result.confidence_interval])))


def _sum_groups(counts: NDArray[np.int64], index: NDArray[np.int64], fixed: Sequence[int]) -> NDArray[np.float64]:
    """Return the sum of the confusion matrices over the groups of each draw; the fixed groups are in every draw."""
    num_draws, num_groups = len(index), len(counts)
    flat = (index + num_groups * np.arange(num_draws)[:, None]).ravel()
    weights = np.bincount(flat, minlength=num_draws * num_groups).reshape(num_draws, num_groups).astype(np.float64)
    weights[:, fixed] = 1
    return np.tensordot(weights, counts.astype(np.float64), axes=1)


def _finite(draws: NDArray[np.float64], interval: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace undefined intervals, (2, values), by percentile intervals; NaN where all draws are equal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns where all draws are NaN
        percentiles = np.nanpercentile(draws, [2.5, 97.5], axis=1)
        constant = ~(np.nanmax(draws, axis=1) > np.nanmin(draws, axis=1))
    undefined = np.isnan(interval).any(axis=0) | np.isnan(draws).any(axis=1)
    result: NDArray[np.float64] = np.where(constant, np.nan, np.where(undefined, percentiles, interval))
    return result
