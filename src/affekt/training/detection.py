"""Fit the speech detector: its settings in a recipe, its weights and its threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from affekt.bundle.detector import SpeechDetector
from affekt.bundle.pipeline import round_to_half
from affekt.errors import BadConfig
from affekt.features.augment import Alteration

MAX_REFUSED_SPEECH = 0.005
"""Largest fraction of the training speech that the threshold may refuse."""
MAX_ACCEPTED_SOUNDS = 0.01
"""Fraction of the training sounds that is ignored as outliers when the threshold is chosen."""
MAX_ITERATIONS = 200


@dataclass(frozen=True)
class DetectorConfig:
    """The settings of the speech detector, which is trained when a bundle is made."""

    not_speech: tuple[str, ...] = ()
    """Sound files that are not speech: folders, files, or patterns with *, absolute or below AFFEKT_DATA. The last fifth of
    each folder's files is held out, for the scores."""
    speech: tuple[str, ...] = ()
    """Further speech in the same form, in addition to the training subset of the corpora."""
    credits: tuple[str, ...] = ()
    """Source and license of these files, a line each, for the model card."""
    generated: int = 300
    """Number of generated sounds of each kind (`affekt.features.generated`)."""
    copies: int = 2
    """Number of altered copies of each sound file."""
    hidden: int = 0
    """Width of a hidden layer; 0 for a logistic regression."""
    decay: float = 0.03
    """Weight decay: the factor of the sum of squared weights in the loss."""
    alteration: Alteration = field(
        default_factory=lambda: Alteration(
            reverb=(0.1, 0.7),
            reverb_probability=0.35,
            noise=(3.0, 40.0),
            noise_probability=0.6,
            lowpass_probability=0.25,
            codec_probability=0.25,
        )
    )
    """How the copies are altered."""

    def __post_init__(self) -> None:
        if self.generated < 1 or min(self.copies, self.hidden) < 0 or self.decay < 0:
            raise BadConfig(
                f"detector: generated = {self.generated}, copies = {self.copies}, hidden = {self.hidden}, "
                f"decay = {self.decay}: expected at least 1 generated sound of each kind, and no negative number"
            )


def fit_detector(
    speech: Float[Tensor, "recordings statistics"],
    extra_speech: Float[Tensor, "more_recordings statistics"],
    sounds: Float[Tensor, "sounds statistics"],
    config: DetectorConfig,
    *,
    seed: int = 0,
) -> tuple[SpeechDetector, float]:
    """Fit a detector, and return it with its weights rounded to 16 bits, and its threshold.

    The threshold is midway, in logits, between the smallest of speech and the largest of sounds, apart from outliers. Speech
    and sounds from other recordings thus have the same margin. At most `MAX_REFUSED_SPEECH` of `speech` is below it.

    Args:
        speech: The two results of `affekt.bundle.adaptation.time_statistics` for recordings of speech, mean and log standard
            deviation, concatenated.
        extra_speech: The same for further speech, which is not used to choose the threshold.
        sounds: The same for sounds that are not speech.
        config: The settings.
        seed: The seed of the weights of a hidden layer.
    """
    positive = torch.cat([speech, extra_speech])
    statistics = torch.cat([positive, sounds])
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(sounds))])
    weights = torch.where(labels > 0, 0.5 / len(positive), 0.5 / len(sounds))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        detector = SpeechDetector(statistics.shape[1] // 2, config.hidden)
    detector.fit_standardization(statistics)
    if not config.hidden:
        for parameter in detector.parameters():
            torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(detector.parameters(), max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.binary_cross_entropy_with_logits(detector.logits(statistics), labels, weights, reduction="sum")
        squared_weights = sum(parameter.square().sum() for parameter in detector.parameters() if parameter.ndim == 2)
        total: Tensor = fit + config.decay * squared_weights
        total.backward()
        return total

    optimizer.step(loss)
    round_to_half(detector)
    detector.requires_grad_(False)
    return detector.eval(), _choose_threshold(detector.logits(speech), detector.logits(sounds))


def _choose_threshold(speech: Float[Tensor, " recordings"], sounds: Float[Tensor, " sounds"]) -> float:
    """Return the threshold of the probability, given the logits."""
    lowest, highest = speech.quantile(MAX_REFUSED_SPEECH), sounds.quantile(1 - MAX_ACCEPTED_SOUNDS)
    return round(float(torch.minimum(lowest, (lowest + highest) / 2).sigmoid()), 6)
