"""The interface of every model: a torch module that turns a batch into logits, lists the streams it needs, and
returns its intermediate results on request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.batch import Batch
from affekt.errors import BadConfig


def check_sizes(config: Any, *, may_be_zero: Collection[str] = ()) -> None:
    """Check a model's settings: whole numbers are at least 1, dropout probabilities lie in [0, 1).

    Args:
        config: A dataclass of settings.
        may_be_zero: Names of the fields that may also be 0.

    Raises:
        BadConfig: A value is out of range.
    """
    for setting in fields(config):
        value = getattr(config, setting.name)
        minimum = 0 if setting.name in may_be_zero else 1
        numbers = [number for number in (value if isinstance(value, tuple) else (value,)) if type(number) is int]
        if any(number < minimum for number in numbers):
            raise BadConfig(f"{setting.name} = {value}: expected {minimum} or more")
        if "drop" in setting.name and not 0 <= value < 1:
            raise BadConfig(f"{setting.name} = {value}: expected a probability, from 0 to below 1")


@dataclass(frozen=True)
class FeatureSpec:
    """The properties of a stream's features that are known before the features are read."""

    dim: int
    frame_rate: float | None
    """Frames per second; None for tokens, and for a stream without a time axis."""
    num_states: int = 1
    """Number of hidden states of the encoder, which are concatenated along dim."""
    has_time: bool = True


@dataclass(frozen=True)
class PaperEncoder:
    """The encoder that computes a stream's features in a paper."""

    name: str
    """A key of `affekt.cost.encoders.ENCODERS`."""
    frames: int = 1
    """Number of encoder frames for each frame of the stream."""


@dataclass(frozen=True)
class PaperSizes:
    """The sizes at which a paper uses its model."""

    num_emotions: int
    frames: Mapping[str, int]
    """Stream -> number of frames; 0 for a stream without a time axis."""
    encoders: Mapping[str, PaperEncoder] = field(default_factory=dict)
    """Stream -> encoder."""


@dataclass(frozen=True)
class ExplainedAttention:
    """An attention map that `explain` returns: which stream attends to which, and the keys of its arrays in the result."""

    queries: str
    """The stream whose frames are the rows."""
    keys: str
    """The stream whose frames are the columns."""
    weights: str
    """Key of the weights, (batch, layers, heads, queries, keys). Rows sum to one over the frames without padding."""
    sparse: str = ""
    """Key of the weights over the kept keys only, of the same shape; "" if all keys are kept."""
    kept: str = ""
    """Key of which keys are kept, (batch, layers, heads, keys), bool; "" if all are kept."""


class EmotionModel(nn.Module):
    """The base class of everything in the registry `affekt.models.models`.

    A subclass names its streams in `streams` and its frozen dataclass of settings in `Config`, and its constructor takes
    `(config, num_emotions)`. Recipes, exports, costs and the contract tests then work without further code.
    """

    Config: ClassVar[type[Any]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Preset -> settings: NAME-PRESET in a recipe uses these as defaults."""
    tiny: ClassVar[Mapping[str, Any]]
    """Settings of a network that is small enough for tests, gives the same logits with any padding, and accepts up to 61
    frames of each stream."""
    submodules: ClassVar[Mapping[str, str]] = {}
    """Submodule -> its model's name in the registry, for submodules whose weights may come from a finished run."""
    paper: ClassVar[PaperSizes]
    explained_attention: ClassVar[Mapping[str, ExplainedAttention]] = {}
    """Name -> an attention map that `explain` returns, at least with some settings."""
    explained_embeddings: ClassVar[Mapping[str, str]] = {"fused": "embedding"}
    """Name, such as "speech" -> key of `explain`'s result: a vector per utterance. With some settings, some are missing."""
    explained_scales: ClassVar[str] = ""
    """Key of `explain`'s result: each scale's fraction of each frame, (batch, blocks, scales, frames); "" without scales."""

    streams: tuple[str, ...]
    """Streams that a batch must have, such as "speech", "text" or "speaker". An instance may need fewer than its class."""
    dims: Mapping[str, int]
    """Stream -> number of features of a frame."""
    lengths: Mapping[str, int] = {}
    """Stream -> the fixed length to which it is cut or padded; streams that are not listed may have any length."""
    strides: Mapping[str, int] = {}
    """Stream -> number of frames that become one frame of the network; 1 for streams that are not listed."""
    num_emotions: int

    @classmethod
    def streams_of(cls, config: Any) -> tuple[str, ...]:  # noqa: ARG003 (most models need the same with any settings)
        """Return the streams that a model with these settings needs."""
        return cls.streams

    @classmethod
    def pretrained(cls, config: Any) -> tuple[str, ...]:  # noqa: ARG003 (most models are trained as a whole)
        """Return the submodules that training leaves unchanged, and which therefore need the weights of a finished run."""
        return ()

    @classmethod
    def for_lengths(cls, config: Any, frames: Mapping[str, int]) -> Any:
        """Return the settings for utterances of these lengths.

        The setting `STREAM_frames` becomes the stream's number of frames. A model of one stream has the setting `frames`
        instead, which becomes the number of frames after averaging over `stride`. Settings that are not numbers ("any")
        remain unchanged.

        Args:
            config: The settings to change.
            frames: Stream -> number of frames.
        """
        streams, stride = cls.streams_of(config), getattr(config, "stride", 1)
        sizes = {f"{stream}_frames": frames.get(stream) for stream in streams}
        if len(streams) == 1 and streams[0] in frames:
            sizes["frames"] = -(-frames[streams[0]] // stride)
        numbers = {setting.name for setting in fields(config) if isinstance(getattr(config, setting.name), int)}
        return replace(config, **{name: size for name, size in sizes.items() if size and name in numbers})

    @classmethod
    def build(cls, config: Any, specs: Mapping[str, FeatureSpec], num_emotions: int) -> EmotionModel:
        """Build the model for streams of these sizes, which replace the sizes in `config`."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Float[Tensor, "batch emotions"]:
        """Return logits."""
        raise NotImplementedError

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return intermediate results by name. `embedding`, (batch, width), is always among them: a vector per utterance."""
        raise NotImplementedError

    def num_positions(self, batch: Batch) -> Mapping[str, Int[Tensor, " batch"]]:
        """Return, for each stream with a time axis, the number of positions in the results of `explain` without padding."""
        counts = {}
        for name in self.streams:
            if batch.streams[name].has_time:
                stride = self.strides.get(name, 1)
                count = (batch.streams[name].lengths() + stride - 1) // stride
                counts[name] = count.clamp(max=self.lengths[name]) if name in self.lengths else count
        return counts

    def set_statistics(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Store each stream's mean and standard deviation over the training set, (dim,) each, before training."""

    @property
    def output_layer(self) -> nn.Linear:
        """The last layer, which has one row per emotion."""
        raise NotImplementedError

    def set_progress(self, progress: float) -> None:
        """Set how much of the training is done, from 0 to 1, for schedules inside the model. Called before every step."""

    def depth(self, parameter: str) -> int | None:  # noqa: ARG002 (only fine-tuned models contain an encoder)
        """Return how many blocks below the last one a pretrained encoder's parameter lies; None for any other parameter."""
        return None

    def paper_flops(self, frames: Mapping[str, int]) -> int | None:  # noqa: ARG002 (most papers count no operations)
        """Return the number of operations for these frames, counted as in the paper's table; None if the paper has none."""
        return None

    def inert_parameters(self) -> frozenset[str]:
        """Return the names of parameters that provably get no gradient, such as the bias of an attention's keys."""
        return frozenset()
