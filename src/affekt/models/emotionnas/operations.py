"""The eight candidate operations of EmotionNAS's spectrogram branch (section 3.3), which are those of DARTS (Liu et al.,
"DARTS: Differentiable Architecture Search", ICLR 2019). Images are (batch, channels, height, width).

While searching, every normalisation is without weights of its own, and one follows the poolings too: an operation is then
chosen for what it does, not for the scale of what comes out. In a derived network (`searched=False`) normalisations have
weights, and poolings none behind them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.errors import BadConfig

Image = Float[Tensor, "batch channels height width"]
NewImage = Float[Tensor, "batch new_channels new_height new_width"]

# In the order of the columns of the architecture's weights.
OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


def operation(name: str, channels: int, stride: int, *, searched: bool) -> nn.Module:
    """The operation of a name, from `channels` channels to as many; `stride` 2 halves height and width."""
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=not searched)
    if name.endswith("pool_3x3"):
        return _pooling(name, channels, stride, searched=searched)
    size = 5 if name.endswith("5x5") else 3
    if name.startswith("sep_conv"):
        return SeparableConv(channels, size, stride, affine=not searched)
    return DilatedConv(channels, size, stride, affine=not searched)


def _pooling(name: str, channels: int, stride: int, *, searched: bool) -> nn.Module:
    """Over 3 x 3 pixels; beyond the image there is nothing: an average counts real pixels only."""
    pool: nn.Module = nn.MaxPool2d(3, stride, padding=1)
    if name.startswith("avg"):
        pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False)) if searched else pool


class Zero(nn.Module):
    """No connection: zeros of the size that the other operations give."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Image) -> NewImage:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


class ConvNorm(nn.Sequential):
    """ReLU, a 1 x 1 convolution without bias at 1, normalisation at 2: what brings a cell's input to its channels."""

    def __init__(self, before: int, channels: int, *, affine: bool) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(before, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=affine))


def _separated(channels: int, size: int, stride: int, dilation: int, *, affine: bool) -> list[nn.Module]:
    """ReLU, each channel convolved by itself, channels mixed pixel by pixel, normalisation; no biases."""
    padding = dilation * (size // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, size, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


class SeparableConv(nn.Sequential):
    """A depthwise separable convolution, twice; the second at stride 1. Weights at 1, 2, 3 and 5, 6, 7."""

    def __init__(self, channels: int, size: int, stride: int, *, affine: bool) -> None:
        super().__init__(
            *_separated(channels, size, stride, 1, affine=affine), *_separated(channels, size, 1, 1, affine=affine)
        )


class DilatedConv(nn.Sequential):
    """A depthwise separable convolution that takes every other pixel. Weights at 1, 2, 3."""

    def __init__(self, channels: int, size: int, stride: int, *, affine: bool) -> None:
        super().__init__(*_separated(channels, size, stride, 2, affine=affine))


class FactorizedReduce(nn.Module):
    """Half the height and width with every pixel seen: half the channels from the pixels at even places (`even`), then
    half from those at odd ones (`odd`), by 1 x 1 convolutions of stride 2 after a ReLU; normalisation (`norm`).

    Raises `BadConfig` for a height or width that is odd.
    """

    def __init__(self, before: int, channels: int, *, affine: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(before, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(before, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Image) -> NewImage:
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise BadConfig(f"an image of {x.shape[2]} x {x.shape[3]} cannot be halved: give even height and width")
        x = x.relu()
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
