"""The Transformer's block, around any attention, and its position table."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.layers.shapes import Context, KeyMask, Sequence


class FeedForward(nn.Sequential):
    """Two linear layers with an activation between; a ReLU is the vanilla Transformer's."""

    def __init__(self, dim: int, width: int, *, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(nn.Linear(dim, width), activation(), nn.Linear(width, dim))


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each with its residual, dropout and norm; post-norm unless `norm_first`.

    `context`, where the attention takes one, is another sequence that keys and values are of; `mask` is the keys'.
    """

    def __init__(
        self,
        attention: nn.Module,
        *,
        dim: int,
        feedforward: int,
        norm_shape: tuple[int, ...],
        norm_first: bool = False,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.feedforward = FeedForward(dim, feedforward, activation=activation)
        self.norm1, self.norm2 = nn.LayerNorm(norm_shape), nn.LayerNorm(norm_shape)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def attention_input(self, x: Sequence) -> Sequence:
        return self.norm1(x) if self.norm_first else x

    def forward(self, x: Sequence, mask: KeyMask | None = None, context: Context | None = None) -> Sequence:
        others = () if context is None else (context,)
        attended = self.dropout(self.attention(self.attention_input(x), mask, *others))
        if self.norm_first:
            x = x + attended
            return x + self.dropout(self.feedforward(self.norm2(x)))
        x = self.norm1(x + attended)
        return self.norm2(x + self.dropout(self.feedforward(x)))


def sinusoids(frames: int, dim: int, *, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "frames dim"]:
    """Vaswani's position table: sin(position / 10000^(2i / dim)) at feature 2i, its cosine at 2i + 1."""
    rate = 10000.0 ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float64) / dim)
    angle = torch.arange(frames, device=device, dtype=torch.float64).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim].to(dtype)
