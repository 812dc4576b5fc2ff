"""The vanilla Transformer that MSTR is compared with (Li et al., Interspeech 2023, Table 2's "Baseline"): the same blocks and
head, with full attention over all frames instead of fractal attention, and no GELU before W^O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from affekt.batch import Batch
from affekt.models.base import ExplainedAttention
from affekt.models.layers import FullAttention
from affekt.models.mstr.backbone import TemporalTransformer, TransformerConfig


class VanillaTransformer(TemporalTransformer):
    """MSTR's baseline. Stream: speech, (batch, frames, input_dim)."""

    Config = TransformerConfig
    explained_attention: ClassVar[Mapping[str, ExplainedAttention]] = {
        "attention": ExplainedAttention("speech", "speech", "attention")
    }

    def build_attention(self, config: TransformerConfig) -> FullAttention:
        return FullAttention(
            config.dim,
            config.heads,
            dropout=config.attention_dropout,
            bias=config.projection_bias,
            temperature=config.dim**0.5 if config.score_width == "model" else None,
        )

    def attention_flops(self, frames: int) -> int:
        """Return the sum of eq. 5 over the two products."""
        return 2 * frames**2 * self.config.dim

    def explain(self, batch: Batch) -> Mapping[str, Tensor]:
        """Return `embedding` (batch, width) and `attention` (batch, blocks, heads, frames, keys), whose rows sum to one."""
        return {"embedding": self.embed(batch), "attention": self.attention_maps(batch)}

    def inert_attention_parameters(self) -> set[str]:
        # A bias common to all keys of a softmax cancels.
        return {"key.bias"} if self.config.projection_bias else set()
