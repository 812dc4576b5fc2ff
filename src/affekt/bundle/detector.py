"""The speech detector: whether a recording contains any speech, from the statistics over time of a stream."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Stream
from affekt.bundle.adaptation import time_statistics

MIN_SCALE = 1e-3
"""Lower bound of the standard deviation by which a statistic is divided."""


class SpeechDetector(nn.Module):
    """The probability that a recording contains speech, from the mean and the log standard deviation over time of a stream.

    Args:
        dim: Number of features of a frame.
        hidden: Width of a hidden layer; 0 for a logistic regression.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, hidden: int = 0) -> None:
        super().__init__()
        self.dim, self.hidden = dim, hidden
        self.register_buffer("mean", torch.zeros(2 * dim))
        self.register_buffer("scale", torch.ones(2 * dim))
        self.layers = nn.Sequential(
            *([nn.Linear(2 * dim, hidden), nn.ReLU()] if hidden else []), nn.Linear(hidden or 2 * dim, 1)
        )

    def forward(self, stream: Stream) -> Float[Tensor, " batch"]:
        """Return the probability for each recording of a batch. The stream has a time axis."""
        return self.logits(torch.cat(time_statistics(stream), dim=1)).sigmoid()

    def logits(self, statistics: Float[Tensor, "batch twice_dim"]) -> Float[Tensor, " batch"]:
        """Return the logit of the probability, given the two results of `time_statistics`, concatenated."""
        return self.layers((statistics - self.mean) / self.scale).squeeze(1)

    def fit_standardization(self, statistics: Float[Tensor, "recordings twice_dim"]) -> None:
        """Store the mean and the standard deviation over these recordings, by which `logits` standardizes statistics."""
        self.mean.copy_(statistics.mean(dim=0))
        self.scale.copy_(statistics.std(dim=0).clamp(min=MIN_SCALE))
