"""Full attention over all frames."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.layers.projection import projected
from affekt.models.layers.shapes import NEGATIVE, Context, KeyMask, Sequence


class FullAttention(nn.Module):
    """Multi-head attention over all frames (Vaswani et al., 2017), with its projections.

    Queries are of `x`; keys and values too, or of `context`, (batch, keys, key_dim), another sequence. `mask`, (batch, keys),
    is True for the keys that may be attended to. Scores are divided by `temperature`, a head's width to the half if None.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        key_dim: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        key_dim = key_dim or dim
        self.query, self.output = nn.Linear(dim, dim, bias=bias), nn.Linear(dim, dim, bias=bias)
        self.key, self.value = nn.Linear(key_dim, dim, bias=bias), nn.Linear(key_dim, dim, bias=bias)
        self.heads, self.dropout = heads, dropout
        self.temperature = temperature or (dim // heads) ** 0.5

    def _projected(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        if context is None:
            streams = projected(x, self.query, self.key, self.value)
        else:
            streams = [self.query(x), *projected(context, self.key, self.value)]
        return [
            rearrange(stream, "batch frames (heads dim) -> batch heads frames dim", heads=self.heads)
            for stream in streams
        ]

    def forward(self, x: Sequence, mask: KeyMask | None = None, context: Context | None = None) -> Sequence:
        query, key, value = self._projected(x, context)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            # Spelt out for every query: onnxruntime's Attention does not broadcast a mask over queries.
            attn_mask=None if mask is None else mask[:, None, None, :].expand(-1, -1, x.shape[1], -1),
            dropout_p=self.dropout if self.training else 0.0,
            scale=1 / self.temperature,
        )
        return self.output(rearrange(attended, "batch heads frames dim -> batch frames (heads dim)"))

    def explain(
        self, x: Sequence, mask: KeyMask | None = None, context: Context | None = None
    ) -> Float[Tensor, "batch heads frames keys"]:
        """The attention weights: rows are queries and sum to one."""
        query, key, _ = self._projected(x, context)
        scores = query @ key.transpose(2, 3) / self.temperature
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], NEGATIVE)
        return scores.softmax(dim=3)
