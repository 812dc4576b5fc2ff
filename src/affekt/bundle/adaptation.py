"""Adaptation of a stream to one source of recordings: an offset and a scale of each feature.

A recording chain shifts the features of an encoder. The statistics of unlabeled recordings of one source, compared with
those of the training utterances, show by how much (`affekt.inference.profile`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.batch import Stream

MIN_DEVIATION = 1e-4
"""Lower bound of a feature's standard deviation over time, so that its logarithm is finite."""


class Adaptation(nn.Module):
    """The affine adaptation of a stream with a time axis, relative to the statistics of the training utterances.

    In the state dict, `mean` is the mean over training utterances of their mean over time, and `log_std` that of the
    logarithm of their standard deviation over time; (dim,) each.
    """

    mean: Tensor
    log_std: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("log_std", torch.zeros(dim))

    def forward(self, stream: Stream, offset: Float[Tensor, " dim"], log_scale: Float[Tensor, " dim"]) -> Stream:
        """Return the stream with the values `(values - offset - mean) * exp(-log_scale) + mean`; padding does not change.

        With zeros, the values are exactly the same as before.
        """
        scale = (-log_scale).exp()
        values = stream.values * scale + (self.mean - (self.mean + offset) * scale)
        if stream.mask is not None:
            values = torch.where(stream.mask.unsqueeze(2), values, stream.values)
        return replace(stream, values=values)

    def compare(self, stream: Stream) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """Return by how much each utterance's mean and log standard deviation over time exceed those of training."""
        mean, log_std = time_statistics(stream)
        return mean - self.mean, log_std - self.log_std


def time_statistics(stream: Stream) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
    """Return the mean of each feature over time, and the logarithm of its standard deviation. The stream has a time axis."""
    values = stream.values
    if stream.mask is None:
        mean = values.mean(dim=1)
        variance = (values - mean.unsqueeze(1)).square().mean(dim=1)
    else:
        mask = stream.mask.unsqueeze(2)
        count = mask.sum(dim=1).clamp(min=1)
        mean = torch.where(mask, values, 0.0).sum(dim=1) / count
        variance = torch.where(mask, (values - mean.unsqueeze(1)).square(), 0.0).sum(dim=1) / count
    return mean, variance.clamp(min=MIN_DEVIATION**2).log() / 2


def average_statistics(streams: Iterable[Stream]) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
    """Return the averages over utterances of what `time_statistics` returns. Each stream is a batch of utterances."""
    means, log_stds = zip(*map(time_statistics, streams), strict=True)
    mean, log_std = (torch.cat(values).double().mean(dim=0).float() for values in (means, log_stds))
    return mean, log_std
