"""The arithmetic of learning a profile from unlabeled clips of one source: pure functions of arrays, and their constants.

Two shifts are estimated. The difference of the clips' mean features from those of training is the offset of the recording
chain. The difference of their mean probabilities from the expected distribution of emotions is a bias of the model for or
against an emotion. Both estimates are wrong if the source has another distribution of emotions than expected: the features
of 50 angry clips differ from the average of training because the clips are angry. This is detected by the diversity of the
predictions, which an offset does not change.

A model is less certain of a source that is recorded in another way than its training data, so that its predictions are less
diverse, and such a source has the most to gain. It is recognized by the distance of its features.

The limits of the diversity for near sources were chosen with the model shipped first in version 0.1.0, on clips of its test
speakers, unaltered and with other frequency responses and noise, and with linear probes on Whisper's states of CREMA-D and
EmoDB. Samples of 20 to 200 clips with equally frequent emotions had diversities of 0.41 to 0.69, and samples with 80 % of
one emotion 0.21 to 0.37. The limits for far sources were chosen with a model trained on CREMA-D alone, on EmoDB: 0.34 to
0.42 with 50 clips of all emotions, and 0.20 to 0.27 with 80 % of one. The distance of CREMA-D's validation speakers, also
altered or with 80 % of one emotion, was at most 0.5 with 8 clips and 0.4 with 20, and that of EmoDB at least 1.8.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from affekt.inference.class_bias import MIN_PROBABILITY, apply_class_bias, solve_class_bias

Values = NDArray[np.floating]

MIN_VARIANCE = 1e-6
"""Lower bound of the variance between clips, for features that are the same in all of them."""


@dataclass(frozen=True)
class LearningSettings:
    """The constants of learning a profile."""

    min_expected: float = 0.01
    """Lower bound of an emotion's expected fraction, so that no emotion becomes impossible."""

    min_clips: int = 8
    """Fewer clips are refused."""
    feature_shrinkage: float = 20.0
    """With n clips, the offsets are multiplied by n / (n + feature_shrinkage)."""
    bias_shrinkage: float = 20.0
    """With n clips, the class biases are multiplied by n / (n + bias_shrinkage)."""
    max_log_std: float = 1.0
    """Largest absolute difference of a clip's log standard deviation that is counted, since short clips have outliers."""
    max_bias: float = 3.0
    """Largest absolute value of a class bias."""
    near: float = 0.5
    """Largest distance at which a source counts as recorded like the training data; see `distance`."""
    far: float = 1.0
    """Smallest distance at which a source counts as recorded in another way. Between the two, the constants of near and far
    sources are interpolated."""
    tolerance: float = 1.5
    """For near sources: the largest factor by which an emotion's mean probability may differ from the expected fraction
    without a bias. Few sources have exactly the expected distribution. For far sources, and if the user states the
    distribution, it is 1."""
    low_diversity: float = 0.37
    """For near sources: at this diversity or a lower one, nothing is adapted; see `diversity`."""
    high_diversity: float = 0.45
    """For near sources: at this diversity or a higher one, the adaptation has its full strength."""
    diversity_reduction: float = 0.1
    """For far sources, both limits of the diversity are lower by this: a model is less certain of them, and gains more."""

    def at_distance(self, value: float) -> LearningSettings:
        """Return the settings for a source at this distance, with its limits of diversity and its tolerance."""
        blend = float(np.clip((value - self.near) / (self.far - self.near), 0, 1))
        return replace(
            self,
            tolerance=self.tolerance ** (1 - blend),
            low_diversity=self.low_diversity - blend * self.diversity_reduction,
            high_diversity=self.high_diversity - blend * self.diversity_reduction,
        )


def shrunk_mean(values: Values, shrinkage: float, limit: float = np.inf) -> NDArray[np.float64]:
    """Return the mean over clips, limited per clip and multiplied by n / (n + shrinkage).

    Args:
        values: (clips, dim).
        shrinkage: The number of clips at which the factor is a half.
        limit: Largest absolute value of a single clip's entries.
    """
    count = len(values)
    return np.clip(values, -limit, limit).mean(axis=0, dtype=np.float64) * count / (count + shrinkage)


def distance(values: Values) -> float:
    """Return the distance of a source's features from those of training: about 1 for a difference of one standard deviation.

    It is the squared difference of the means, divided by the variance between clips, averaged over the features,
    minus its expected value if there is no difference.

    Args:
        values: The clips' means over time minus that of training, (clips, dim).
    """
    variance = values.var(axis=0, ddof=1, dtype=np.float64)
    ratio = np.square(values.mean(axis=0, dtype=np.float64)) / np.maximum(variance, MIN_VARIANCE)
    return float(max(0.0, ratio.mean() - 1 / len(values)))


def diversity(probabilities: Values, expected: Values) -> float:
    """Return how much the clips' predictions differ, relative to what the expected distribution allows: from 0 to 1.

    The predictions are first biased so that their mean is the expected distribution; then, it is the mutual information of
    clip and emotion, divided by the entropy of the expected distribution. It does not depend on a constant offset of the
    model's logits. Clips that are nearly all of one emotion have similar predictions, whatever the recording chain does.

    Args:
        probabilities: (clips, emotions).
        expected: (emotions,).
    """
    biased = apply_class_bias(probabilities, solve_class_bias(probabilities, expected))
    return float(1 - _entropy(biased).mean() / _entropy(expected))


def adaptation_strength(value: float, settings: LearningSettings) -> float:
    """Return the factor of all offsets and biases at this diversity, from 0 to 1."""
    low, high = settings.low_diversity, settings.high_diversity
    return float(np.clip((value - low) / (high - low), 0, 1))


def estimate_class_bias(
    probabilities: Values, expected: Values, settings: LearningSettings, *, tolerance: float = 1.0
) -> tuple[NDArray[np.float64], bool]:
    """Return the shrunk class biases, (emotions,), and whether one was limited to `max_bias`.

    Args:
        probabilities: Predictions for the clips with adapted features, (clips, emotions).
        expected: The expected distribution, (emotions,).
        settings: The constants.
        tolerance: Largest factor between the mean of the biased predictions and the expected distribution.
    """
    count = len(probabilities)
    target = closest_distribution(probabilities.mean(axis=0), expected, tolerance)
    bias = solve_class_bias(probabilities, target) * count / (count + settings.bias_shrinkage)
    return np.clip(bias, -settings.max_bias, settings.max_bias), bool(np.abs(bias).max() > settings.max_bias)


def closest_distribution(mean: Values, expected: Values, tolerance: float) -> NDArray[np.float64]:
    """Return the distribution closest to `mean`, (emotions,), that differs from the expected one by at most the tolerance.

    It is `mean` times a factor, limited to `expected / tolerance` and `expected * tolerance`; bisection finds the factor.
    """
    low, high = expected / tolerance, expected * tolerance
    smallest, largest = 0.0, 1 / MIN_PROBABILITY
    for _ in range(100):
        factor = (smallest + largest) / 2
        if np.clip(np.maximum(mean, MIN_PROBABILITY) * factor, low, high).sum() < 1:
            smallest = factor
        else:
            largest = factor
    distribution = np.clip(np.maximum(mean, MIN_PROBABILITY) * largest, low, high)
    return distribution / distribution.sum()


def _entropy(distribution: Values) -> NDArray[np.float64]:
    """Return the entropy in nats along the last axis."""
    values = np.asarray(distribution, np.float64)
    return -(values * np.log(np.maximum(values, 1e-12))).sum(axis=-1)
