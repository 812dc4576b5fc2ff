"""The eight candidate operations of EmotionNAS's spectrogram branch (section 3.3), the same as in DARTS (Liu et al.,
"DARTS: Differentiable Architecture Search", ICLR 2019), in the form of derived networks. Images are (batch, channels, height,
width). The supernet computes many operations at once, in `mixed_ops`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.errors import BadConfig
from affekt.models.emotionnas.convolutions import Depthwise, Pointwise

Image = Float[Tensor, "batch channels height width"]
NewImage = Float[Tensor, "batch new_channels new_height new_width"]

CONVOLUTIONS = ("sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
# In the order of the columns of the architecture weights.
OPERATIONS = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", *CONVOLUTIONS)


def make_operation(name: str, channels: int, stride: int) -> nn.Module:
    """Return the operation with this name, other than "none". It keeps the channels; `stride` 2 halves height and width."""
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=True)
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, padding=1)
    if name == "avg_pool_3x3":  # the mean does not include the padding
        return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
    size = 5 if name.endswith("5x5") else 3
    return (SeparableConv if name.startswith("sep") else DilatedConv)(channels, size, stride)


def check_even(x: Image) -> None:
    """Raise `BadConfig` if the height or width is odd."""
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise BadConfig(f"an image of {x.shape[2]} x {x.shape[3]} cannot be halved: expected an even height and width")


class ConvNorm(nn.Sequential):
    """ReLU, 1 x 1 convolution without bias (submodule 1) and norm (submodule 2).

    They change an input of a cell to the cell's number of channels.
    """

    def __init__(self, in_channels: int, channels: int, *, affine: bool) -> None:
        super().__init__(nn.ReLU(), Pointwise(in_channels, channels), nn.BatchNorm2d(channels, affine=affine))


def _separable_layers(channels: int, size: int, stride: int, dilation: int) -> list[nn.Module]:
    """Return ReLU, depthwise and pointwise convolution without biases, and norm."""
    return [
        nn.ReLU(),
        Depthwise(channels, size, stride, dilation),
        Pointwise(channels, channels),
        nn.BatchNorm2d(channels),
    ]


class SeparableConv(nn.Sequential):
    """Two depthwise separable convolutions, the second at stride 1. Submodules 1, 2, 3 and 5, 6, 7 have weights."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__(*_separable_layers(channels, size, stride, 1), *_separable_layers(channels, size, 1, 1))


class DilatedConv(nn.Sequential):
    """A depthwise separable convolution with dilation 2. Submodules 1, 2, 3 have weights."""

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__(*_separable_layers(channels, size, stride, 2))


class FactorizedReduce(nn.Module):
    """A skip connection that halves height and width: after a ReLU, 1 x 1 convolutions of stride 2 make half the channels
    from the pixels at even positions (`even`) and half from those at odd positions (`odd`); then a norm (`norm`).

    Raises:
        BadConfig: The height or width of the image is odd.
    """

    def __init__(self, in_channels: int, channels: int, *, affine: bool) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, x: Image) -> NewImage:
        check_even(x)
        x = x.relu()
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
