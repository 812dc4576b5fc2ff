"""The vanilla Transformer that MSTR is measured against (Li et al., Interspeech 2023, Table 2's "Baseline"): the same
blocks and head with full attention over all frames in place of fractal attention, and no GELU before W^O."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from affekt.batch import Batch
from affekt.models.layers import FullAttention
from affekt.models.temporal import TemporalTransformer, TransformerConfig


class VanillaTransformer(TemporalTransformer):
    """MSTR's baseline. Stream: speech, (batch, frames, input_dim)."""

    Config = TransformerConfig

    def attention(self, config: TransformerConfig) -> FullAttention:
        return FullAttention(config.dim, config.heads, dropout=config.attention_dropout)

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """`embedding` (batch, width); `attention` (batch, blocks, heads, frames, keys), rows sum to one."""
        return {"embedding": self.embed(batch), "attention": self.attention_maps(batch)}

    def inert_parameters(self) -> frozenset[str]:
        # A bias common to all keys of a softmax cancels.
        return super().inert_parameters() | self.key_biases()
