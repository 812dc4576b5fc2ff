"""What the loop asks of a way to train. The loop knows epochs, order, records and resumption; a strategy knows networks,
optimisers and losses, so that one that alternates two optimisers (an architecture search) needs no other loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.models.base import EmotionModel


class Strategy(Protocol):
    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """Train on a batch; `progress` through the whole training, from 0 to 1. Returns what the log should hold."""

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Probabilities, by the weights that would be used after training."""

    def weights(self) -> Mapping[str, Tensor]:
        """The weights that `predict` uses, under the model's names."""

    def state(self) -> dict[str, Any]:
        """Everything that training must have to go on to the very same weights."""

    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class SupervisedConfig:
    """How a model is fitted to labels. The defaults are Adam with nothing else, as the papers print it."""

    learning_rate: float = 1e-4
    weight_decay: float = 0.0  # AdamW's: decoupled
    warmup: float = 0.0  # share of the training in which the rate rises from 0
    cosine: bool = False  # whether the rate then falls to 0 along a cosine
    clip: float = 0.0  # largest norm of the gradient; 0 for none
    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha of the beta distribution that two utterances are mixed by; 0 for none
    averaging: float = 0.0  # decay of a running average of the weights, which then predicts; 0 for none


class Supervised:
    """Cross-entropy on labels, or on soft labels where the batch has them, with AdamW."""

    def __init__(self, model: EmotionModel, config: SupervisedConfig, *, forward: nn.Module | None = None) -> None:
        """`forward`: what is called in training, where it is not the model itself (its DDP wrapper)."""
        self.model, self.config = model, config
        self.forward = forward or model
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.average = {name: value.clone() for name, value in model.state_dict().items()} if config.averaging else None

    def rate(self, progress: float) -> float:
        """The learning rate's factor."""
        rising = min(1.0, progress / self.config.warmup) if self.config.warmup else 1.0
        return rising * (0.5 * (1 + math.cos(math.pi * progress)) if self.config.cosine else 1.0)

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        self.forward.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.rate(progress)
        batch = self._augmented(batch)
        assert batch.soft_labels is not None
        logits = self.forward(batch)
        loss = F.cross_entropy(logits, batch.soft_labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        if self.average is not None:
            self._follow(self.average)
        return {"loss": float(loss.detach())}

    def _augmented(self, batch: Batch) -> Batch:
        """The batch with soft labels, mixed as the settings say."""
        soft = batch.soft_labels
        if soft is None:
            assert batch.labels is not None
            soft = F.one_hot(batch.labels, self.model.emotions).to(next(self.model.parameters()).dtype)
        streams = dict(batch.streams)
        if self.config.mixup:
            alpha = torch.tensor(self.config.mixup)
            share = float(torch.distributions.Beta(alpha, alpha).sample())
            other = torch.randperm(len(batch))
            streams = {name: _mixed(stream, share, other) for name, stream in streams.items()}
            soft = share * soft + (1 - share) * soft[other]
        return replace(batch, streams=streams, soft_labels=soft)

    def _follow(self, average: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - self.config.averaging)
                else:
                    average[name].copy_(value)

    def predict(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        self.model.eval()
        with torch.no_grad():
            logits = torch.func.functional_call(self.model, dict(self.weights()), (batch,))
        return logits.softmax(dim=1)

    def weights(self) -> Mapping[str, Tensor]:
        return self.average if self.average is not None else self.model.state_dict()

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]


def _mixed(stream: Stream, share: float, other: Tensor) -> Stream:
    """Each utterance with another laid under it; a frame is real where either has one."""
    values = share * stream.values + (1 - share) * stream.values[other]
    mask = None if stream.mask is None else stream.mask | stream.mask[other]
    return replace(stream, values=values, mask=mask)
