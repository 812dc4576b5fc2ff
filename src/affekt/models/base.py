"""What every model is: a module that turns a batch into logits, says which streams it needs, and can explain itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.errors import BadConfig


def check_sizes(config: Any, *, may_be_zero: Collection[str] = ()) -> None:
    """Raise `BadConfig` for settings that no network can have: sizes below 1, shares that are none."""
    for field in fields(config):
        value = getattr(config, field.name)
        least = 0 if field.name in may_be_zero else 1
        numbers = [one for one in (value if isinstance(value, tuple) else (value,)) if type(one) is int]
        if any(number < least for number in numbers):
            raise BadConfig(f"{field.name} = {value}: expected {least} or more")
        if "drop" in field.name and not 0 <= value < 1:
            raise BadConfig(f"{field.name} = {value}: expected a share, from 0 to below 1")


@dataclass(frozen=True)
class FeatureSpec:
    """What is known of a stream's features before one is read."""

    dim: int
    frame_rate: float | None  # frames per second; None for words, and for a stream without time
    num_states: int = 1  # states of the encoder, concatenated along dim
    has_time: bool = True


@dataclass(frozen=True)
class PaperSizes:
    """What a paper feeds its model."""

    emotions: int
    frames: Mapping[str, int]  # stream -> frames; 0 for a stream without time


class EmotionModel(nn.Module):
    """The contract of the registry `affekt.models.models`.

    A subclass names its parts' streams in `streams` and its frozen dataclass of settings in `Config`, takes
    `(config, emotions)`, and is built from a recipe without further code.
    """

    Config: ClassVar[type[Any]]
    # NAME-PRESET in a recipe: these settings, where none is given.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    paper: ClassVar[PaperSizes]

    # The parts it must be given, such as "speech", "text", "speaker"; an instance has fewer where its settings say so.
    streams: tuple[str, ...]
    dims: Mapping[str, int]  # stream -> features of a frame
    lengths: Mapping[str, int] = {}  # stream -> the one length it is cut or padded to; others are taken at any
    emotions: int  # how many it tells apart

    @classmethod
    def streams_of(cls, config: Any) -> tuple[str, ...]:  # noqa: ARG003 (most take the same with any settings)
        """The parts that a model with these settings must be given."""
        return cls.streams

    @classmethod
    def for_lengths(cls, config: Any, frames: Mapping[str, int]) -> Any:
        """The settings for utterances of so many frames, where they name the one length that a stream is brought to.

        The setting is `STREAM_frames`, or `frames` in a model of one stream, which counts what a `stride` leaves of them; one
        that is no number is left as it is.
        """
        streams, stride = cls.streams_of(config), getattr(config, "stride", 1)
        sizes = {f"{stream}_frames": frames.get(stream) for stream in streams}
        if len(streams) == 1 and streams[0] in frames:
            sizes["frames"] = -(-frames[streams[0]] // stride)
        numbers = {field.name for field in fields(config) if isinstance(getattr(config, field.name), int)}
        return replace(config, **{name: size for name, size in sizes.items() if size and name in numbers})

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], emotions: int) -> EmotionModel:
        """The model for streams of these sizes, which replace what the settings say of sizes."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Logits."""
        raise NotImplementedError

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """What the model can name of its inner life, by name; always `embedding`, (batch, width): the utterance's vector."""
        raise NotImplementedError

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Told once, before training: stream -> mean and deviation of each feature over the training part, (dim,) each."""

    def output(self) -> nn.Linear:
        """The last layer, whose rows are the emotions."""
        raise NotImplementedError

    def set_progress(self, progress: float) -> None:
        """Told before every step of a training how far it is, from 0 to 1: for what grows stricter as training goes on."""

    def depth(self, parameter: str) -> int | None:  # noqa: ARG002 (a model of features has no encoder's blocks)
        """How many blocks below the last a pretrained encoder's parameter lies; None for what is trained from the start."""
        return None

    def paper_flops(self, frames: Mapping[str, int]) -> int | None:  # noqa: ARG002 (most papers print no operations)
        """Operations for so many frames of each stream, by the rule behind the paper's table; None where it prints none."""
        return None

    def inert_parameters(self) -> frozenset[str]:
        """Names of parameters that provably never get a gradient (a key's bias under a softmax over all keys)."""
        return frozenset()
