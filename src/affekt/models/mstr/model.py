"""MSTR: the multi-scale temporal transformer of Li et al., "Multi-Scale Temporal Transformer For Speech Emotion
Recognition", Interspeech 2023. Its attention is fractal: windows of `factor` frames at `scales` time scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from affekt.batch import Batch
from affekt.errors import BadConfig
from affekt.models.layers import FractalAttention
from affekt.models.mstr.backbone import SMALL, TemporalTransformer, TransformerConfig


@dataclass(frozen=True)
class MSTRConfig(TransformerConfig):
    factor: int = 3  # p: window length and ratio between scales
    scales: int = 4  # L
    # Table 2's operations include the zero frames that fill up the last window; whether its softmax does is not said.
    mask_window_padding: bool = False
    # Section 2.1: the average "rather than the convolution can perform better"; of the convolution it says no more. Ours has
    # kernel and stride p and weights of its own for query, key, value and every step between scales.
    scale_operator: Literal["average", "depthwise", "convolution"] = "average"
    # Section 2.3: the sum "performs the best among all the fusion methods we explored"; scale attention is named.
    mixer: Literal["sum", "concat", "attention"] = "sum"
    # "Nearest up-sample" to T frames. "repeat" takes every frame p^k times and the last one to the end.
    upsampling: Literal["interpolate", "repeat"] = "interpolate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 2:
            raise BadConfig(f"factor = {self.factor}: expected 2 or more, the frames of a window")
        if self.scales < 1:
            raise BadConfig(f"scales = {self.scales}: expected 1 or more")


class MSTR(TemporalTransformer):
    """The multi-scale temporal transformer. Stream: speech, (batch, frames, input_dim).

    Submodules beyond those of `TemporalTransformer`, all of `blocks.N.attention`: with another scale operator than the
    average `operators.K.{query,key,value}`, from scale K to K + 1, 0 the finest; with mixer "attention" `score`; with mixer
    "concat" `output` takes the scales side by side, finest first.
    """

    Config = MSTRConfig
    config: MSTRConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": SMALL}

    def attention(self, config: TransformerConfig) -> FractalAttention:
        assert isinstance(config, MSTRConfig)
        return FractalAttention(
            config.dim,
            config.heads,
            factor=config.factor,
            scales=config.scales,
            mask_window_padding=config.mask_window_padding,
            dropout=config.attention_dropout,
            bias=config.projection_bias,
            temperature=config.dim**0.5 if config.score_width == "model" else None,
            operator=config.scale_operator,
            mixer=config.mixer,
            upsampling=config.upsampling,
        )

    def attention_flops(self, frames: int) -> int:
        """Eq. 6 for each of the two products, with p where it prints p^2: Table 2 agrees with p alone. A scale's frames
        are its floor(frames / p^k), filled up to a multiple of p."""
        factor = self.config.factor
        counts = [frames // factor**scale for scale in range(self.config.scales)]
        return sum(2 * factor * self.config.dim * factor * -(-count // factor) for count in counts)

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """`embedding` (batch, width); `scale_share` (batch, blocks, scales, frames), which sums to one over the scales."""
        return {"embedding": self.embed(batch), "scale_share": self.attention_maps(batch)}

    def inert_attention(self) -> set[str]:
        config = self.config
        names = {"score.weight"} if config.mixer == "attention" and self._reaches(1, frames=1) is False else set()
        if self._cancels(0) and config.projection_bias:
            names.add("key.bias")
        if not self._reaches(0, frames=self._enough):
            names |= {"query.weight", "key.weight"} | ({"query.bias", "key.bias"} if config.projection_bias else set())
        for step in range(0 if config.scale_operator == "average" else config.scales - 1):
            names |= {f"operators.{step}.{name}" for name in self._inert_operator(step + 1)}
        return names

    def _inert_operator(self, scale: int) -> set[str]:
        """Of the operator that leads to this scale."""
        parameters = ("weight", "bias")
        if not self._reaches(scale, frames=1):
            return {f"{name}.{kind}" for name in ("query", "key", "value") for kind in parameters}
        if not self._reaches(scale, frames=self._enough):
            return {f"{name}.{kind}" for name in ("query", "key") for kind in parameters}
        return {"key.bias"} if self._cancels(scale) else set()

    @property
    def _enough(self) -> int:
        """Frames of a scale from which on its softmax has something to choose: zero frames count as keys, or do not."""
        return 2 if self.config.mask_window_padding else 1

    def _reaches(self, scale: int, *, frames: int) -> bool:
        """Whether this scale can have so many frames, in the longest utterance."""
        length = self.config.frames
        return scale < self.config.scales and (length == "any" or length // self.config.factor**scale >= frames)

    def _cancels(self, scale: int) -> bool:
        """Whether from this scale on a bias common to the keys is common to all that a softmax sees: the zero frames that
        fill up a window have none, so there it is not."""
        config = self.config
        if config.mask_window_padding:
            return True
        if config.masked or config.frames == "any":
            return False
        counts = [config.frames // config.factor**k for k in range(scale, config.scales)]
        return all(count % config.factor == 0 for count in counts)
