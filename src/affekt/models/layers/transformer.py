"""The Transformer's block, with any kind of attention, and its position encoding."""

from __future__ import annotations

import torch
from torch import nn

from affekt.models.layers.shapes import ContextFrames, Frames, KeyMask


class FeedForward(nn.Sequential):
    """Two linear layers with an activation between them; the vanilla Transformer uses a ReLU."""

    def __init__(self, dim: int, width: int, *, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(nn.Linear(dim, width), activation(), nn.Linear(width, dim))


class TransformerBlock(nn.Module):
    """Attention and feed-forward layers, each with a residual connection, dropout and LayerNorm.

    Post-norm unless `norm_first`. In `forward`, `mask` is the mask of the keys, and `context` is another sequence that
    supplies keys and values, if the attention accepts one.
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

    def attention_input(self, x: Frames) -> Frames:
        """Return the input of the attention, given the block's input."""
        return self.norm1(x) if self.norm_first else x

    def forward(self, x: Frames, mask: KeyMask | None = None, context: ContextFrames | None = None) -> Frames:
        contexts = () if context is None else (context,)
        attended = self.dropout(self.attention(self.attention_input(x), mask, *contexts))
        if self.norm_first:
            x = x + attended
            return x + self.dropout(self.feedforward(self.norm2(x)))
        x = self.norm1(x + attended)
        return self.norm2(x + self.dropout(self.feedforward(x)))


def add_sinusoids(x: Frames) -> Frames:
    """Add the sinusoidal position encoding of Vaswani et al. (2017): sin(position / 10000^(2i / dim)) to feature 2i, and the
    cosine of the same angle to feature 2i + 1."""
    _, frames, dim = x.shape
    rate = 10000.0 ** (-torch.arange(0, dim, 2, device=x.device, dtype=torch.float64) / dim)
    angle = torch.arange(frames, device=x.device, dtype=torch.float64).unsqueeze(1) * rate
    return x + torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim].to(x.dtype)
