"""Fitting of the speech detector: its settings in a recipe, its weights and its threshold."""

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

LOST = 0.005
"""Largest fraction of the training speech that the threshold may refuse."""
MISSED = 0.01
"""Fraction of the training sounds that may lie above the point from which the threshold keeps its distance."""
ITERATIONS = 200


@dataclass(frozen=True)
class DetectorConfig:
    """The settings of the speech detector, which is trained when a bundle is made."""

    not_speech: tuple[str, ...] = ()
    """Sound files that are not speech: folders, files, or patterns with *, absolute or below AFFEKT_DATA. The last fifth of
    each folder is not trained on, but scored."""
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
    """Weight of the squared weights in the loss."""
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
    """The alteration of the copies."""

    def __post_init__(self) -> None:
        if self.generated < 1 or min(self.copies, self.hidden) < 0 or self.decay < 0:
            raise BadConfig(
                f"detector: generated = {self.generated}, copies = {self.copies}, hidden = {self.hidden}, "
                f"decay = {self.decay}: expected at least 1 generated sound of each kind, and no negative number"
            )


def fit_detector(
    speech: Float[Tensor, "recordings statistics"],
    further: Float[Tensor, "more_recordings statistics"],
    sounds: Float[Tensor, "sounds statistics"],
    config: DetectorConfig,
    *,
    seed: int = 0,
) -> tuple[SpeechDetector, float]:
    """Fit a detector, and return it with its weights rounded to 16 bits, and its threshold.

    The threshold lies midway, in logits, between almost all speech and almost all sounds: voices and sounds that are recorded
    differently from those here have the same margin. At most `LOST` of `speech` is below it.

    Args:
        speech: What `affekt.bundle.adaptation.time_statistics` returns for recordings of speech, mean and log standard
            deviation side by side.
        further: The same for further speech, which does not determine the threshold.
        sounds: The same for sounds that are not speech.
        config: The settings.
        seed: The seed of the weights of a hidden layer.
    """
    positive = torch.cat([speech, further])
    statistics = torch.cat([positive, sounds])
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(sounds))])
    weights = torch.where(labels > 0, 0.5 / len(positive), 0.5 / len(sounds))
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        detector = SpeechDetector(statistics.shape[1] // 2, config.hidden)
    detector.standardize(statistics)
    if not config.hidden:
        for parameter in detector.parameters():
            torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.LBFGS(detector.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.binary_cross_entropy_with_logits(detector.logits(statistics), labels, weights, reduction="sum")
        size = sum(parameter.square().sum() for parameter in detector.parameters() if parameter.ndim == 2)
        total: Tensor = fit + config.decay * size
        total.backward()
        return total

    optimizer.step(loss)
    round_to_half(detector)
    detector.requires_grad_(False)
    return detector.eval(), _choose_threshold(detector.logits(speech), detector.logits(sounds))


def _choose_threshold(speech: Float[Tensor, " recordings"], sounds: Float[Tensor, " sounds"]) -> float:
    """Return the threshold of the probability, given the logits."""
    lowest, highest = speech.quantile(LOST), sounds.quantile(1 - MISSED)
    return round(float(torch.minimum(lowest, (lowest + highest) / 2).sigmoid()), 6)
