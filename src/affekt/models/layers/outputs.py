"""From frames to one vector per utterance, and from that to the emotions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.layers.shapes import NEGATIVE, Mask, Sequence


class Pooling(nn.Module):
    """(batch, frames, dim) -> one vector per utterance, over time: `mean`, `max`, or two of them side by side."""

    KINDS = ("mean", "max", "mean+max", "mean+deviation")

    def __init__(self, kind: str = "mean") -> None:
        super().__init__()
        assert kind in self.KINDS
        self.kind = kind

    def width(self, dim: int) -> int:
        return dim * (1 + self.kind.count("+"))

    def forward(self, x: Sequence, mask: Mask | None = None) -> Float[Tensor, "batch width"]:
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
    """Fully connected layers down to the emotions, with ReLU and dropout between; MSTR's are F -> F/2 -> F/4 -> emotions."""

    def __init__(self, width: int, emotions: int, *, hidden: tuple[int, ...], dropout: float = 0.5) -> None:
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(dropout)]
            width = size
        super().__init__(*layers, nn.Linear(width, emotions))

    @property
    def last(self) -> nn.Linear:
        """The layer whose rows are the emotions."""
        last = self[-1]
        assert isinstance(last, nn.Linear)
        return last
