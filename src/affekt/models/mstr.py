"""MSTR: the multi-scale temporal transformer of Li et al., "Multi-Scale Temporal Transformer For Speech Emotion
Recognition", Interspeech 2023. Its attention is fractal: windows of `factor` frames at `scales` time scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from affekt.batch import Batch
from affekt.models.layers import FractalAttention
from affekt.models.temporal import TemporalTransformer, TransformerConfig


@dataclass(frozen=True)
class MSTRConfig(TransformerConfig):
    factor: int = 3  # p: window length and ratio between scales
    scales: int = 4  # L
    # Table 2's operations include the zero frames that fill up the last window; whether its softmax does is not said.
    mask_window_padding: bool = False


class MSTR(TemporalTransformer):
    """The multi-scale temporal transformer. Stream: speech, (batch, frames, input_dim)."""

    Config = MSTRConfig
    config: MSTRConfig

    def attention(self, config: TransformerConfig) -> FractalAttention:
        assert isinstance(config, MSTRConfig)
        return FractalAttention(
            config.dim,
            config.heads,
            factor=config.factor,
            scales=config.scales,
            mask_window_padding=config.mask_window_padding,
            dropout=config.attention_dropout,
        )

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """`embedding` (batch, width); `scale_share` (batch, blocks, scales, frames), which sums to one over the scales."""
        return {"embedding": self.embed(batch), "scale_share": self.attention_maps(batch)}

    def inert_parameters(self) -> frozenset[str]:
        # A bias common to all keys of a softmax cancels; the zero frames that fill up a window have none, so with them
        # it does not.
        config = self.config
        whole = (
            isinstance(config.frames, int) and not config.masked and config.frames % config.factor**config.scales == 0
        )
        inert = super().inert_parameters()
        return inert | self.key_biases() if config.mask_window_padding or whole else inert
