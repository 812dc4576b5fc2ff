"""What every model is: a module that turns a batch into logits, says which streams it needs, and can explain itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch


class EmotionModel(nn.Module):
    """The contract of the registry `affekt.models.models`.

    A subclass names its parts' streams in `streams` and its frozen dataclass of settings in `Config`, takes
    `(config, emotions)`, and is built from a recipe without further code.
    """

    Config: ClassVar[type[Any]]
    streams: ClassVar[tuple[str, ...]]  # the parts it must be given: "speech", "text", "speaker"

    emotions: int  # how many it tells apart
    frames: int | None = None  # the one length that it takes; None where it takes any

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Logits."""
        raise NotImplementedError

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """What the model can name of its inner life, by name; always `embedding`, (batch, width): the utterance's vector."""
        raise NotImplementedError

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Told once, before training: stream -> mean and deviation of each feature over the training part, (dim,) each."""

    def inert_parameters(self) -> frozenset[str]:
        """Names of parameters that provably never get a gradient (a key's bias under a softmax over all keys)."""
        return frozenset()
