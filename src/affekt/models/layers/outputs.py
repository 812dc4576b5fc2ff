"""From frames to one vector per utterance, and from there to the logits."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.layers.shapes import NEGATIVE, FrameMask, Frames


class Pooling(nn.Module):
    """Pooling over time, (batch, frames, dim) -> (batch, width): the mean, the maximum, or the mean and a second
    statistic."""

    KINDS = ("mean", "max", "mean+max", "mean+std")

    def __init__(self, kind: str = "mean") -> None:
        super().__init__()
        assert kind in self.KINDS
        self.kind = kind

    def width(self, dim: int) -> int:
        """Return the width of the pooled vector of frames with `dim` features."""
        return dim * (1 + self.kind.count("+"))

    def forward(self, x: Frames, mask: FrameMask | None = None) -> Float[Tensor, "batch width"]:
        if self.kind == "max":
            return _masked_max(x, mask)
        mean = _masked_mean(x, mask)
        if self.kind == "mean+max":
            return torch.cat([mean, _masked_max(x, mask)], dim=1)
        if self.kind == "mean":
            return mean
        variance = _masked_mean((x - mean.unsqueeze(1)) ** 2, mask)
        return torch.cat([mean, (variance + 1e-6).sqrt()], dim=1)


def _masked_max(x: Tensor, mask: Tensor | None) -> Tensor:
    return (x if mask is None else x.masked_fill(~mask.unsqueeze(2), NEGATIVE)).amax(dim=1)


def _masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return x.mean(dim=1)
    weight = mask.unsqueeze(2).to(x.dtype)
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


class Classifier(nn.Sequential):
    """Linear layers with ReLU and dropout between them. Their widths are `width`, those in `hidden`, and the number of
    emotions: F, F/2, F/4, emotions in MSTR."""

    def __init__(self, width: int, num_emotions: int, *, hidden: tuple[int, ...], dropout: float = 0.5) -> None:
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        super().__init__(*layers, nn.Linear(width, num_emotions))

    @property
    def output_layer(self) -> nn.Linear:
        """The last layer, which has one row per emotion."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        return last
