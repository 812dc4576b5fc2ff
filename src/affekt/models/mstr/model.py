"""MSTR: the multi-scale temporal transformer of Li et al., "Multi-Scale Temporal Transformer For Speech Emotion
Recognition", Interspeech 2023. Its attention is fractal: windows of `factor` frames at `scales` time scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from affekt.batch import Batch
from affekt.errors import BadConfig
from affekt.models.layers import FractalAttention
from affekt.models.mstr.backbone import TemporalTransformer, TransformerConfig


@dataclass(frozen=True)
class MSTRConfig(TransformerConfig):
    """The settings of MSTR: those of `TransformerConfig` and of fractal attention."""

    factor: int = 3
    """p: frames of a window, and ratio between scales."""
    scales: int = 4
    """L: number of time scales."""
    mask_window_padding: bool = False
    """If true, a softmax ignores the zero frames that fill the last window. Table 2's operation counts include them;
    the text does not mention them."""
    scale_operator: Literal["average", "depthwise", "convolution"] = "average"
    """How a scale is computed from the next finer one. Section 2.1 prefers the average to "the convolution", which it does
    not describe. Our convolution has kernel and stride p, and separate weights for query, key, value and every step between
    scales."""
    mixer: Literal["sum", "concat", "attention"] = "sum"
    """How scales are combined. Section 2.3: the sum "performs the best among all the fusion methods we explored"; of the
    other methods it names scale attention, without details."""
    upsampling: Literal["interpolate", "repeat"] = "interpolate"
    """How a coarse scale is up-sampled to T frames, by "nearest up-sample" in the paper. "interpolate": as torch's nearest
    interpolation. "repeat": every frame of scale k is repeated p^k times, and the last one up to the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor < 2:
            raise BadConfig(f"factor = {self.factor}: expected 2 or more, the frames of a window")
        if self.scales < 1:
            raise BadConfig(f"scales = {self.scales}: expected 1 or more")


class MSTR(TemporalTransformer):
    """The multi-scale temporal transformer. Stream: speech, (batch, frames, input_dim).

    Submodules besides those of `TemporalTransformer`, all in `blocks.N.attention`: `operators.K.{query,key,value}`, from
    scale K to K + 1 (0 is the finest), unless the scale operator is the average; `score`, with mixer "attention". With
    mixer "concat", `output` takes the scales side by side, finest first.
    """

    Config = MSTRConfig
    explained_scales = "scale_fraction"
    config: MSTRConfig

    def build_attention(self, config: TransformerConfig) -> FractalAttention:
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
        """Return the sum of eq. 6 over the two products, with p instead of p^2, because only p agrees with Table 2.

        Scale k has floor(frames / p^k) frames, rounded up to a multiple of p.
        """
        factor = self.config.factor
        counts = [frames // factor**scale for scale in range(self.config.scales)]
        return sum(2 * factor * self.config.dim * factor * -(-count // factor) for count in counts)

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return `embedding` (batch, width) and `scale_fraction` (batch, blocks, scales, frames), which sums to one over
        the scales."""
        return {"embedding": self.embed(batch), "scale_fraction": self.attention_maps(batch)}

    def inert_attention_parameters(self) -> set[str]:
        config = self.config
        names = {"score.weight"} if config.mixer == "attention" and not self._can_have(1, scale=1) else set()
        if self._key_bias_cancels(0) and config.projection_bias:
            names.add("key.bias")
        if not self._can_have(self._min_frames_for_two_keys, scale=0):
            names |= {"query.weight", "key.weight"} | ({"query.bias", "key.bias"} if config.projection_bias else set())
        for step in range(0 if config.scale_operator == "average" else config.scales - 1):
            names |= {f"operators.{step}.{name}" for name in self._inert_operator(step + 1)}
        return names

    def _inert_operator(self, scale: int) -> set[str]:
        """Return the inert parameters of the operator that leads to this scale."""
        parameters = ("weight", "bias")
        if not self._can_have(1, scale):
            return {f"{name}.{kind}" for name in ("query", "key", "value") for kind in parameters}
        if not self._can_have(self._min_frames_for_two_keys, scale):
            return {f"{name}.{kind}" for name in ("query", "key") for kind in parameters}
        return {"key.bias"} if self._key_bias_cancels(scale) else set()

    @property
    def _min_frames_for_two_keys(self) -> int:
        """The frames that a scale needs for a softmax over two keys or more; zero frames are keys unless masked."""
        return 2 if self.config.mask_window_padding else 1

    def _can_have(self, frames: int, scale: int) -> bool:
        """Return whether this scale has that many frames in the longest possible utterance."""
        length = self.config.frames
        return scale < self.config.scales and (length == "any" or length // self.config.factor**scale >= frames)

    def _key_bias_cancels(self, scale: int) -> bool:
        """Return whether all keys of every softmax, at this and all coarser scales, contain the same bias, so that it
        cancels. This is not so if a window is filled with zero frames, which have no bias."""
        config = self.config
        if config.mask_window_padding:
            return True
        if config.masked or config.frames == "any":
            return False
        counts = [config.frames // config.factor**k for k in range(scale, config.scales)]
        return all(count % config.factor == 0 for count in counts)
