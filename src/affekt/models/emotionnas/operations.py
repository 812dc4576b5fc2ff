"""The eight candidate operations of EmotionNAS's spectrogram branch (section 3.3), which are those of DARTS (Liu et al.,
"DARTS: Differentiable Architecture Search", ICLR 2019), as a derived network has them. Images are (batch, channels,
height, width). The search's network has them in `fans`, many at once.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.errors import BadConfig
from affekt.models.emotionnas.convolutions import Depthwise, Pointwise

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


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """The operation of a name, but "none", from `channels` channels to as many; `stride` 2 halves height and width."""
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=True)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg_pool_3x3":  # beyond the image there is nothing: only real pixels count
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    size = 5 if name.endswith("5x5") else 3
    return (SeparableConv if name.startswith("sep") else DilatedConv)(channels, size, stride)


def check_even(x: Image) -> None:
    """Raises `BadConfig` for a height or width that is odd."""
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise BadConfig(f"an image of {x.shape[2]} x {x.shape[3]} cannot be halved: give even height and width")


class ConvNorm(nn.Sequential):
    """ReLU, a 1 x 1 convolution without bias at 1, normalisation at 2: what brings a cell's input to its channels."""

    def __init__(self, before: int, channels: int, *, affine: bool) -> None:
        super().__init__(nn.ReLU(), Pointwise(before, channels), nn.BatchNorm2d(channels, affine=affine))


def _separated(channels: int, size: int, stride: int, dilation: int) -> list[nn.Module]:
    """ReLU, each channel convolved by itself, channels mixed pixel by pixel, normalisation; no biases."""
    return [
        nn.ReLU(),
        Depthwise(channels, size, stride, dilation),
        Pointwise(channels, channels),
        nn.BatchNorm2d(channels),
    ]


class SeparableConv(nn.Sequential):
    """A depthwise separable convolution, twice; the second at stride 1. Weights at 1, 2, 3 and 5, 6, 7."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__(*_separated(channels, size, stride, 1), *_separated(channels, size, 1, 1))


class DilatedConv(nn.Sequential):
    """A depthwise separable convolution that takes every other pixel. Weights at 1, 2, 3."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__(*_separated(channels, size, stride, 2))


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
        check_even(x)
        x = x.relu()
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
