"""Full attention over all frames."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.layers.projection import project
from affekt.models.layers.shapes import NEGATIVE, ContextFrames, Frames, KeyMask


class FullAttention(nn.Module):
    """Multi-head attention over all frames (Vaswani et al., 2017), with its projections.

    Args:
        dim: Width of the queries and of the output.
        heads: Number of heads.
        key_dim: Width of the context, if keys and values come from another sequence.
        dropout: Dropout probability of the attention weights.
        bias: Whether the projections have biases.
        temperature: Divisor of the scores; default: the square root of a head's width.
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

    def _project(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        if context is None:
            projections = project(x, self.query, self.key, self.value)
        else:
            projections = [self.query(x), *project(context, self.key, self.value)]
        return [
            rearrange(projection, "batch frames (heads dim) -> batch heads frames dim", heads=self.heads)
            for projection in projections
        ]

    def forward(self, x: Frames, mask: KeyMask | None = None, context: ContextFrames | None = None) -> Frames:
        """Attend from x to `context`, or to x itself; `mask` is True for the keys that may be attended to."""
        query, key, value = self._project(x, context)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            # Expanded for every query: onnxruntime's Attention does not broadcast a mask over queries.
            attn_mask=None if mask is None else mask[:, None, None, :].expand(-1, -1, x.shape[1], -1),
            dropout_p=self.dropout if self.training else 0.0,
            scale=1 / self.temperature,
        )
        return self.output(rearrange(attended, "batch heads frames dim -> batch frames (heads dim)"))

    def explain(
        self, x: Frames, mask: KeyMask | None = None, context: ContextFrames | None = None
    ) -> Float[Tensor, "batch heads frames keys"]:
        """Return the attention weights; each row belongs to a query and sums to one."""
        query, key, _ = self._project(x, context)
        scores = query @ key.transpose(2, 3) / self.temperature
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], NEGATIVE)
        return scores.softmax(dim=3)


def key_biases(model: nn.Module) -> frozenset[str]:
    """Return the names of all `attention.key.bias` parameters. They get no gradient: a bias shifts all scores of a query
    equally, which a softmax ignores."""
    return frozenset(name for name, _ in model.named_parameters() if name.endswith("attention.key.bias"))
