"""From an encoder's features to what a model works on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from affekt.models.layers.shapes import Mask, Sequence


class StreamInput(nn.Module):
    """From a stream's features to the width that a model works in.

    num_states: number of an encoder's states that the features consist of, concatenated along dim.
    mix: "concat", one linear layer sees all states together; "learned", it sees their softmax-weighted sum.
    norm: "layer", a LayerNorm over each state; "standard", every feature less its mean and over its deviation in the
        training part, which `standardise` sets. Some of an encoder's features are many times as large as others: a
        LayerNorm leaves them so, and an optimiser that moves all weights alike then learns from those few.
    Without any of this, and with equal widths, nothing is added: the papers' reading.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, input_dim: int, dim: int, *, num_states: int = 1, mix: str = "concat", norm: str = "none"
    ) -> None:
        super().__init__()
        state_dim = input_dim // num_states
        width = state_dim if mix == "learned" else input_dim
        self.num_states, self.standard = num_states, norm == "standard"
        if self.standard:
            self.register_buffer("mean", torch.zeros(input_dim))
            self.register_buffer("deviation", torch.ones(input_dim))
        self.norms = nn.ModuleList(nn.LayerNorm(state_dim) for _ in range(num_states)) if norm == "layer" else None
        self.weights = nn.Parameter(torch.zeros(num_states)) if mix == "learned" else None
        self.projection = nn.Identity() if width == dim else nn.Linear(width, dim)

    def standardise(self, mean: Float[Tensor, " features"], deviation: Float[Tensor, " features"]) -> None:
        if self.standard:
            self.mean.copy_(mean)
            self.deviation.copy_(deviation.clamp(min=1e-3))

    def standardised(self, x: Float[Tensor, "batch frames features"]) -> Float[Tensor, "batch frames features"]:
        return (x - self.mean) / self.deviation if self.standard else x

    def forward(self, x: Float[Tensor, "batch frames features"]) -> Sequence:
        """From features, standardised already."""
        if self.norms is None and self.weights is None:
            return self.projection(x)
        states = list(x.chunk(self.num_states, dim=2))
        if self.norms is not None:
            states = [norm(state) for norm, state in zip(self.norms, states, strict=True)]
        if self.weights is None:
            return self.projection(torch.cat(states, dim=2))
        shares = self.weights.softmax(dim=0)
        return self.projection(sum(share * state for share, state in zip(shares, states, strict=True)))


def strided(
    x: Float[Tensor, "batch frames dim"], mask: Mask | None, stride: int
) -> tuple[Float[Tensor, "batch fewer dim"], Bool[Tensor, "batch fewer"] | None]:
    """The mean of every `stride` frames, and of what is left at an utterance's end; with the mask that goes with it."""
    frames = x.shape[1]
    padding = stride * ((frames + stride - 1) // stride) - frames
    real = torch.ones_like(x[:, :, 0]) if mask is None else mask.to(x.dtype)
    groups = F.pad(x * real.unsqueeze(2), (0, 0, 0, padding)).unflatten(1, (-1, stride)).sum(dim=2)
    counts = F.pad(real, (0, padding)).unflatten(1, (-1, stride)).sum(dim=2)
    return groups / counts.clamp(min=1).unsqueeze(2), None if mask is None else counts > 0
