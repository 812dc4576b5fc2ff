"""The two parts of a separable convolution, depthwise and pointwise, with forward and backward passes that are fast on a CPU.

torch's own gradient of a depthwise convolution's weights is slow for kernels wider than three pixels, and both gradients
are slow for dilated kernels: ten times the cost of the convolution. The same sums are computed faster in other ways: the
gradient of the image is a convolution with the flipped kernel; the gradient of a wide kernel is assembled from narrow
pieces; and a dilated convolution of an image is an ordinary convolution of four images, each of which has every other row
and column of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torch.nn.grad
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

NARROW = 3  # pixels: the gradient of kernels of at most this width is fast, whatever their height

Image = Float[Tensor, "batch channels height width"]
Kernels = Float[Tensor, "channels 1 size size"]


def channels_last(x: Image) -> Image:
    """Return the image in channels-last layout on a CPU, the fastest layout there for everything in this file."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def contiguous_gradient(x: Image) -> Image:
    """Return the image unchanged, but make its gradient contiguous on a CPU.

    torch's norms are slow if their gradient is a slice of another tensor.
    """
    if x.requires_grad and not torch.compiler.is_exporting():
        x.register_hook(channels_last)
    return x


class Depthwise(nn.Conv2d):
    """A depthwise convolution with zero padding and no bias; `stride` 2 halves height and width.

    The kernel size is odd. Shapes and weights are those of `torch.nn.Conv2d` with one group per channel.
    """

    def __init__(self, channels: int, size: int, stride: int, dilation: int) -> None:
        padding = dilation * (size // 2)
        super().__init__(channels, channels, size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, input: Image) -> Tensor:
        return depthwise(input, self.weight, self.stride[0], self.dilation[0])


class Pointwise(nn.Conv2d):
    """A pointwise (1 x 1) convolution without bias."""

    def __init__(self, channels: int, new_channels: int) -> None:
        super().__init__(channels, new_channels, 1, bias=False)

    def forward(self, input: Image) -> Tensor:
        return pointwise(input, self.weight)


def pointwise(
    x: Image, weight: Float[Tensor, "new_channels channels_of_a_group 1 1"], groups: int = 1
) -> Float[Tensor, "batch new_channels height width"]:
    """Apply a pointwise convolution with the given weight, in groups.

    With one thread torch is slow for fewer than 16 images, which are therefore passed as rows of pixels.
    """
    if torch.compiler.is_exporting() or len(x) >= 16 or not x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, weight, groups=groups)
    rows = rearrange(x, "batch channels height width -> (batch height) channels 1 width")
    return rearrange(F.conv2d(rows, weight, groups=groups), "(b height) c 1 width -> b c height width", b=len(x))


def depthwise(x: Image, kernels: Kernels, stride: int, dilation: int) -> Float[Tensor, "batch channels new_h new_w"]:
    """Apply a depthwise convolution with the given kernels.

    Args:
        x: Images, (batch, channels, height, width).
        kernels: One kernel per channel.
        stride: Stride in both directions, in pixels.
        dilation: Distance of the kernel's elements, in pixels.
    """
    if stride == dilation == 2:  # only every other pixel is used
        x, stride, dilation = x[:, :, ::2, ::2], 1, 1
    if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_exporting():
        if torch.is_autocast_enabled("cpu"):
            # The backward pass runs outside autocast, where the two types would differ.
            dtype = torch.get_autocast_dtype("cpu")
            x, kernels = x.to(dtype), kernels.to(dtype)
        return _Depthwise.apply(x, kernels, stride, dilation)  # type: ignore[no-untyped-call]
    return _convolve(x, kernels, stride, dilation)


def _convolve(x: Tensor, kernels: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (kernels.shape[-1] // 2)
    return F.conv2d(x, kernels, None, stride, padding, dilation, groups=len(kernels))


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution with a fast, itself differentiable, backward pass."""

    @staticmethod
    def forward(x: Tensor, kernels: Tensor, stride: int, dilation: int) -> Tensor:
        return _convolve(x, kernels, stride, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, kernels, ctx.stride, ctx.dilation = inputs
        ctx.save_for_backward(x, kernels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, kernels) = gradients, ctx.saved_tensors
        needs_image, needs_kernels = ctx.needs_input_grad[:2]
        return (
            _gradient_of_image(gradient, kernels, ctx.stride, ctx.dilation, x.shape) if needs_image else None,
            _gradient_of_kernels(x, gradient, kernels.shape[-1], ctx.stride, ctx.dilation) if needs_kernels else None,
            None,
            None,
        )


def _gradient_of_image(gradient: Tensor, kernels: Tensor, stride: int, dilation: int, shape: torch.Size) -> Tensor:
    if stride == 1:
        return _convolve(gradient, kernels.flip(2, 3), 1, dilation)
    padding = kernels.shape[-1] // 2
    missing = [shape[d] - (stride * (gradient.shape[d] - 1) + 1) for d in (2, 3)]  # rows and columns after the last one
    return F.conv_transpose2d(gradient, kernels, None, stride, padding, missing, groups=len(kernels))


def _gradient_of_kernels(x: Tensor, gradient: Tensor, size: int, stride: int, dilation: int) -> Tensor:
    if stride == 1:
        x, gradient = _pad_end(x, size, dilation), _pad_end(gradient, size, dilation)
    if dilation == 2:
        x, gradient = _quarters(x), _quarters(gradient)
    channels, columns, reach = x.shape[1], gradient.shape[3], size // 2
    padding = (reach, reach)
    if size > NARROW:  # the pieces take their columns from an image that is already padded
        x, padding = F.pad(x, (reach, reach)), (reach, 0)
    pieces = []
    for left in range(0, size, NARROW):
        width = min(NARROW, size - left)
        columns_of_x = x if size <= NARROW else x[..., left : left + stride * (columns - 1) + width]
        shape = (channels, 1, size, width)
        pieces.append(torch.nn.grad.conv2d_weight(columns_of_x, shape, gradient, stride, padding, groups=channels))
    return torch.cat(pieces, dim=3) if len(pieces) > 1 else pieces[0]


def _pad_end(x: Tensor, size: int, dilation: int) -> Tensor:
    """Pad with zeros at the end until the image is at least as high as the kernel and can be cut into `_quarters`.

    Without this, the gradient is slow for images that are lower than the kernel, too.
    """
    height, width = x.shape[2:]
    below, right = max(-height % dilation, dilation * size - height), -width % dilation
    return F.pad(x, (0, right, 0, below)) if below or right else x


def _quarters(x: Tensor) -> Tensor:
    """Return four images, each of every other row and column, concatenated along the batch."""
    return torch.cat([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)])
