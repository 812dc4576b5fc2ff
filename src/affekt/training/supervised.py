"""The default training strategy: cross-entropy on labels, with AdamW or SGD."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.errors import BadConfig
from affekt.features.augment import Masking
from affekt.models.base import EmotionModel
from affekt.training.dataset import Dataset
from affekt.training.distributed import wrap_ddp
from affekt.training.finetuning import training_module
from affekt.training.strategies import Datasets, TrainingContext

if TYPE_CHECKING:
    from affekt.training.recipe import TrainingConfig

NATIVE_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
"""The names in torch of the processor capabilities, of x86 and ARM, that include multiplication in bfloat16."""


@dataclass(frozen=True)
class SupervisedConfig:
    """Settings of supervised training. The defaults are plain Adam, as in the papers."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """"adamw" is plain Adam without weight decay."""
    momentum: float = 0.0
    """Momentum of SGD."""
    learning_rate: float = 1e-4
    encoder_rate: float = 0.1
    """With tune = "all", the ratio of the learning rate of the encoder's last block to `learning_rate`."""
    encoder_decay: float = 1.0
    """The ratio of each encoder block's learning rate to that of the block above it."""
    weight_decay: float = 0.0
    """AdamW: decoupled. SGD: the factor of the weights in the gradient (an L2 penalty)."""
    warmup: float = 0.0
    """Fraction of the run in which the learning rate rises from 0."""
    cosine: bool = False
    """If true, the learning rate is multiplied by a cosine that falls from 1 to 0 over the run."""
    decay_every: int = 0
    """Number of epochs between multiplications of the learning rate by `decay_factor`; 0 for none."""
    decay_factor: float = 0.5
    clip: float = 0.0
    """Largest norm of the gradient; 0 for none."""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    """Alpha of the beta distribution of the weights with which two utterances are mixed; 0 for no mixup."""
    averaging: float = 0.0
    """Decay of a running average of the weights, which is then used for predictions; 0 for none."""
    distillation: float = 1.0
    """Weight of the distillation loss, which is added to the loss on labels if there is a teacher."""
    class_weights: bool = False
    """If true, utterances are weighted so that every emotion counts equally in the loss, however often it occurs."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Precision of matrix products in training; sums, weights and all predictions stay 32-bit. "auto" is bfloat16 if the
    processor or GPU supports it, and float32 otherwise, so two machines may train differently; the log has the precision
    that was used."""

    renamed: ClassVar[Mapping[str, str]] = {"imitation": "distillation"}

    def __post_init__(self) -> None:
        if self.momentum and self.optimizer != "sgd":
            raise BadConfig(f"momentum = {self.momentum}: only SGD has a momentum; set optimizer = 'sgd'")
        if not 0 <= self.momentum < 1:
            raise BadConfig(f"momentum = {self.momentum}: expected at least 0 and less than 1, such as 0.9")
        if self.decay_every < 0 or self.decay_factor <= 0:
            raise BadConfig(
                f"decay_every = {self.decay_every}, decay_factor = {self.decay_factor}: expected a number of epochs, "
                "or 0 for never, and a positive factor, such as 30 and 0.5"
            )


class Supervised:
    """Cross-entropy on labels, or on soft labels where the batch has them, with AdamW or SGD."""

    Config: ClassVar[type[SupervisedConfig]] = SupervisedConfig

    @classmethod
    def check(cls, config: SupervisedConfig, training: TrainingConfig) -> None:
        """Raise `BadConfig` for mixup with a teacher: the teacher has no frames for a mixture of two utterances."""
        if training.teacher and config.mixup:
            raise BadConfig("mixup cannot be combined with a teacher, which has no frames for mixed utterances")

    @classmethod
    def validation_setting(cls, config: SupervisedConfig) -> str:  # noqa: ARG003 (no setting needs one)
        return ""

    @classmethod
    def prepare(
        cls, config: SupervisedConfig, model: EmotionModel, datasets: Datasets, context: TrainingContext
    ) -> tuple[Supervised, Datasets]:
        counts = class_counts(datasets.train, model)
        forward = wrap_ddp(training_module(model))
        masking, epochs = context.masking, context.epochs
        return cls(model, config, forward=forward, masking=masking, counts=counts, epochs=epochs), datasets

    def __init__(
        self,
        model: EmotionModel,
        config: SupervisedConfig,
        *,
        forward: nn.Module | None = None,
        masking: Masking | None = None,
        counts: Sequence[int] | None = None,
        epochs: int = 1,
    ) -> None:
        """Set up the optimizer.

        Args:
            model: The model.
            config: The settings.
            forward: The module that training calls, if it is not the model itself (its DDP wrapper).
            masking: SpecAugment of the streams, in training only.
            counts: Number of training utterances of each emotion; needed for class weights only.
            epochs: Number of epochs of the whole run; needed for `decay_every` only.
        """
        self.model, self.config, self.masking, self.epochs = model, config, masking or Masking(), epochs
        self.forward = forward or model
        self.device = next(model.parameters()).device
        self.precision = config.precision
        if config.precision == "auto":
            self.precision = "bfloat16" if supports_bfloat16(self.device) else "float32"
        self.optimizer = build_optimizer(parameter_groups(model, config), config)
        self.average = {name: value.clone() for name, value in model.state_dict().items()} if config.averaging else None
        self.steps = 0  # how often the running average was updated
        self.class_weights = None
        if config.class_weights:
            assert counts is not None
            count = torch.tensor(counts, dtype=torch.float32)
            weights = torch.where(count > 0, count.sum() / (count > 0).sum() / count.clamp(min=1), 0.0)
            self.class_weights = weights.to(self.device)

    def rate_factor(self, progress: float) -> float:
        """Return the number by which warmup, cosine and step decay multiply the learning rate."""
        factor = min(1.0, progress / self.config.warmup) if self.config.warmup else 1.0
        if self.config.cosine:
            factor *= 0.5 * (1 + math.cos(math.pi * progress))
        if self.config.decay_every:
            # Rounded, because (epoch / epochs) * epochs may be slightly less than epoch.
            finished_epochs = math.floor(round(progress * self.epochs, 6))
            factor *= self.config.decay_factor ** (finished_epochs // self.config.decay_every)
        return factor

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        self.forward.train()
        self.model.set_progress(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * group["share"] * self.rate_factor(progress)
        batch = self._augment(batch.to(self.device))
        assert batch.soft_labels is not None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            output = self.forward(batch)
        logits, penalty = output if isinstance(output, tuple) else (output, None)
        loss = F.cross_entropy(
            logits.float(),
            batch.soft_labels,
            weight=self.class_weights,
            label_smoothing=self.config.label_smoothing,
        )
        losses = {"loss": float(loss.detach())}
        if penalty is not None:
            losses["distillation"] = float(penalty.detach())
            loss = loss + self.config.distillation * penalty
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        if self.average is not None:
            self._update_average(self.average)
        return losses

    def _augment(self, batch: Batch) -> Batch:
        """Return the batch with soft labels, after masking and mixup."""
        soft = batch.soft_labels
        if soft is None:
            assert batch.labels is not None
            soft = F.one_hot(batch.labels, self.model.num_emotions).to(next(self.model.parameters()).dtype)
        streams = {
            name: mask_stream(stream, self.masking) if name in self.model.streams else stream
            for name, stream in batch.streams.items()
        }
        if self.config.mixup:
            alpha = torch.tensor(self.config.mixup)
            weight = float(torch.distributions.Beta(alpha, alpha).sample())
            other = torch.randperm(len(batch)).to(self.device)
            streams = {name: _mix(stream, weight, other) for name, stream in streams.items()}
            soft = weight * soft + (1 - weight) * soft[other]
        return replace(batch, streams=streams, soft_labels=soft)

    def _update_average(self, average: dict[str, Tensor]) -> None:
        """Update the running average of the weights; faster at first, so that it soon forgets their initial values."""
        self.steps += 1
        rate = max(1 - self.config.averaging, 9 / (9 + self.steps))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, rate)
                else:
                    average[name].copy_(value)

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        self.model.eval()
        with torch.no_grad():
            logits = torch.func.functional_call(self.model, dict(self.weights()), (batch.to(self.device),))
        return logits.softmax(dim=1)

    def notes(self) -> dict[str, Any]:
        return {"precision": self.precision} if self.config.precision == "auto" else {}

    def weights(self) -> Mapping[str, Tensor]:
        return self.average if self.average is not None else self.model.state_dict()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "steps": self.steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        average = state["average"]
        # Copied, because tensors read from a file may be unaligned, and products of unaligned tensors may differ in a bit.
        copies = {name: value.to(self.device, copy=True) for name, value in (average or {}).items()}
        self.average = None if average is None else copies


def class_counts(dataset: Dataset, model: EmotionModel) -> list[int]:
    """Return the number of utterances of each emotion."""
    counts: list[int] = np.bincount(dataset.labels, minlength=model.num_emotions).tolist()
    return counts


def supports_bfloat16(device: torch.device) -> bool:
    """Return True if a device multiplies bfloat16 in hardware; emulated products would be slower than 32-bit ones.

    It is also False if this version of torch does not report the capabilities of processors.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return device.type == "cpu" and any(capabilities.get(name) for name in NATIVE_BFLOAT16)


def build_optimizer(groups: list[dict[str, Any]], config: SupervisedConfig) -> torch.optim.Optimizer:
    """Return the optimizer that the settings name, for groups of parameters."""
    # A fused optimizer makes one pass over weights, gradients and moments; the default makes a dozen.
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **shared)
    return torch.optim.AdamW(groups, **shared)


def parameter_groups(model: EmotionModel, config: SupervisedConfig) -> list[dict[str, Any]]:
    """Return the trained parameters, grouped by the ratio of their learning rate to the configured one.

    The key of that ratio, "share", is stored in checkpoints.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            depth = model.depth(name)
            ratio = 1.0 if depth is None else config.encoder_rate * config.encoder_decay**depth
            groups.setdefault(ratio, []).append(parameter)
    return [{"params": parameters, "share": ratio} for ratio, parameters in groups.items()]


def mask_stream(stream: Stream, masking: Masking) -> Stream:
    """Apply SpecAugment: set intervals of time and bands of features to each feature's mean over the utterance.

    Before that, with probability `masking.floor_probability`, the dynamic range is limited: a lower limit is drawn at a
    random distance below the utterance's maximum, and smaller values are raised to this limit.
    Padding and streams without a frame rate, such as text, are not changed. Random numbers come from torch's generator.
    """
    if (
        not (masking.num_time_masks or masking.num_feature_masks or masking.floor_probability)
        or stream.frame_rate is None
    ):
        return stream
    values = stream.values.clone()
    for row, frames in zip(values, stream.lengths().tolist(), strict=True):
        draw, position = torch.rand(2).tolist() if masking.floor_probability else (1.0, 0.0)
        if draw < masking.floor_probability:
            low, high = masking.floor
            row[:frames] = row[:frames].clamp(min=float(row[:frames].max()) - (low + position * (high - low)))
        mean = row[:frames].mean(dim=0)
        for _ in range(masking.num_time_masks):
            start, end = _random_interval(frames, masking.max_time_fraction)
            row[start:end] = mean
        for _ in range(masking.num_feature_masks):
            start, end = _random_interval(row.shape[1], masking.max_feature_fraction)
            row[:frames, start:end] = mean[start:end]
    return replace(stream, values=values)


def _random_interval(size: int, max_fraction: float) -> tuple[int, int]:
    """Return start and end of a random interval in [0, `size`] whose length is at most `max_fraction * size`."""
    length, position = torch.rand(2).tolist()
    length = int(length * (max_fraction * size + 1))
    start = int(position * (size - length + 1))
    return start, start + length


def _mix(stream: Stream, weight: float, other: Tensor) -> Stream:
    """Mix each utterance with another; a frame of the mixture is padding only if it is padding in both."""
    values = weight * stream.values + (1 - weight) * stream.values[other]
    mask = None if stream.mask is None else stream.mask | stream.mask[other]
    return replace(stream, values=values, mask=mask)
