"""The vanilla Transformer that MSTR is measured against (Li et al., Interspeech 2023, Table 2's "Baseline"): the same
blocks and head with full attention over all frames in place of fractal attention, and no GELU before W^O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from affekt.batch import Batch
from affekt.models.layers import FullAttention
from affekt.models.mstr.backbone import SMALL, TemporalTransformer, TransformerConfig


class VanillaTransformer(TemporalTransformer):
    """MSTR's baseline. Stream: speech, (batch, frames, input_dim)."""

    Config = TransformerConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"small": SMALL}

    def attention(self, config: TransformerConfig) -> FullAttention:
        return FullAttention(
            config.dim,
            config.heads,
            dropout=config.attention_dropout,
            bias=config.projection_bias,
            temperature=config.dim**0.5 if config.score_width == "model" else None,
        )

    def attention_flops(self, frames: int) -> int:
        """Eq. 5, for each of the two products."""
        return 2 * frames**2 * self.config.dim

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """`embedding` (batch, width); `attention` (batch, blocks, heads, frames, keys), rows sum to one."""
        return {"embedding": self.embed(batch), "attention": self.attention_maps(batch)}

    def inert_attention(self) -> set[str]:
        # A bias common to all keys of a softmax cancels.
        return {"key.bias"} if self.config.projection_bias else set()
