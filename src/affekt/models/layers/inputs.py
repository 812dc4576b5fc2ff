"""From an encoder's features to the input of a model's first block."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Stream
from affekt.models.layers.shapes import Frames

MIN_STD = 1e-3
"""Lower bound of the standard deviation, so that a nearly constant feature is not divided by almost zero."""


class StreamInput(nn.Module):
    """The standardization of a stream's features, and their projection to a model's width.

    If no option is set and the widths are equal, the features remain unchanged, as in the papers.

    Args:
        input_dim: Number of features of a frame.
        dim: Width of the model.
        num_states: Number of hidden states of the encoder, which are concatenated along dim.
        mix: "concat": one linear layer is applied to all states side by side; "learned": it is applied to their sum, weighted
            by a softmax over learned scores.
        norm: "none": features are not standardized; "layer": a LayerNorm over each state; "standard": the feature's mean over
            the training set is subtracted, and the result is divided by its standard deviation (`set_statistics` stores
            both). Some features of an encoder are many times as large as others. A LayerNorm preserves these ratios, and an
            optimizer with equal steps for all weights then learns from the few large features only.
    """

    mean: Tensor
    deviation: Tensor
    """The standard deviation. Saved weights have this name."""

    def __init__(
        self, input_dim: int, dim: int, *, num_states: int = 1, mix: str = "concat", norm: str = "none"
    ) -> None:
        super().__init__()
        state_dim = input_dim // num_states
        width = state_dim if mix == "learned" else input_dim
        self.num_states, self.standardizes = num_states, norm == "standard"
        if self.standardizes:
            self.register_buffer("mean", torch.zeros(input_dim))
            self.register_buffer("deviation", torch.ones(input_dim))
        self.norms = nn.ModuleList(nn.LayerNorm(state_dim) for _ in range(num_states)) if norm == "layer" else None
        self.weights = nn.Parameter(torch.zeros(num_states)) if mix == "learned" else None
        self.projection = nn.Identity() if width == dim else nn.Linear(width, dim)

    def set_statistics(self, mean: Float[Tensor, " features"], std: Float[Tensor, " features"]) -> None:
        """Store the mean and the standard deviation of every feature; without effect unless norm = "standard"."""
        if self.standardizes:
            self.mean.copy_(mean)
            self.deviation.copy_(std.clamp(min=MIN_STD))

    def standardize(self, x: Float[Tensor, "batch *frames features"]) -> Float[Tensor, "batch *frames features"]:
        """Return the standardized features; x itself unless norm = "standard"."""
        return (x - self.mean) / self.deviation if self.standardizes else x

    def prepare(self, stream: Stream, *, masked: bool, length: int | None = None) -> Stream:
        """Return the standardized stream with zeros in its padding, cut or padded to `length` frames.

        Padding is set to zero after the standardization, because standardized zeros may be far from all real frames.

        Args:
            stream: A stream that has time.
            masked: Whether to set padding to zero even if features are not standardized.
            length: Number of frames of the result; None for that of the stream.
        """
        values = self.standardize(stream.values)
        if stream.mask is not None and (masked or self.standardizes):
            values = values.masked_fill(~stream.mask.unsqueeze(2), 0.0)
        stream = replace(stream, values=values)
        return stream if length is None else stream.pad_or_trim(length)

    def forward(self, x: Float[Tensor, "batch frames features"]) -> Frames:
        """Project standardized features to the model's width."""
        if self.norms is None and self.weights is None:
            return self.projection(x)
        states = list(x.chunk(self.num_states, dim=2))
        if self.norms is not None:
            states = [norm(state) for norm, state in zip(self.norms, states, strict=True)]
        if self.weights is None:
            return self.projection(torch.cat(states, dim=2))
        weights = self.weights.softmax(dim=0)
        return self.projection(sum(weight * state for weight, state in zip(weights, states, strict=True)))


def average_frames(stream: Stream, stride: int) -> Stream:
    """Average every `stride` consecutive frames: (batch, frames, dim) becomes (batch, ceil(frames / stride), dim).

    Padding is left out, so the last average of an utterance may be over fewer frames.
    """
    if stride == 1:
        return stream
    x, frames = stream.values, stream.values.shape[1]
    padding = stride * ((frames + stride - 1) // stride) - frames
    real = torch.ones_like(x[:, :, 0]) if stream.mask is None else stream.mask.to(x.dtype)
    sums = F.pad(x * real.unsqueeze(2), (0, 0, 0, padding)).unflatten(1, (-1, stride)).sum(dim=2)
    counts = F.pad(real, (0, padding)).unflatten(1, (-1, stride)).sum(dim=2)
    return Stream(sums / counts.clamp(min=1).unsqueeze(2), None if stream.mask is None else counts > 0)
