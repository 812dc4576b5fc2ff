"""Mixed operations (eq. 2 of EmotionNAS): all candidate operations on all edges that leave a state, computed together.

The operations are those of DARTS (Liu et al., ICLR 2019) in the form of the supernet, whose norms have no parameters. The
edges are concatenated as channels, so that one convolution computes the same operation on all of them. Operations without
parameters are computed once for all edges: the ReLU, the poolings with their norms, the identity. The weight of an
operation, the softmax of alpha, is applied as the weight of the norm after it. Operations whose weight is exactly zero
are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.emotionnas.convolutions import channels_last, contiguous_gradient, depthwise, pointwise
from affekt.models.emotionnas.operations import CONVOLUTIONS, OPERATIONS, Image, NewImage, check_even

ActiveOps = Sequence[Sequence[bool]]  # for each edge, which of `OPERATIONS` are computed


@dataclass(frozen=True)
class ActiveEdges:
    """The edges on which an operation is computed, out of `edges`.

    A tensor for all edges contains the rows (or channels) of the first edge, then those of the second, and so on, with the
    same number for each.
    """

    indices: tuple[int, ...]
    edges: int

    @property
    def all(self) -> bool:
        return len(self.indices) == self.edges

    def select(self, tensor: Tensor) -> Tensor:
        """Return the rows of the active edges."""
        return tensor if self.all else tensor.unflatten(0, (self.edges, -1))[list(self.indices)].flatten(0, 1)

    def update(self, tensor: Tensor, rows: Tensor) -> None:
        """Write the changed result of `select` back into `tensor`; with all edges active, the two are the same tensor."""
        if not self.all:
            tensor.view(self.edges, -1)[list(self.indices)] = rows.view(len(self.indices), -1)

    def spread(self, x: Image) -> NewImage:
        """Return the channels of all edges, with zeros for the inactive ones."""
        if self.all:
            return x
        channels = dict(zip(self.indices, x.chunk(len(self.indices), dim=1), strict=True))
        zeros = torch.zeros_like(channels[self.indices[0]])
        return torch.cat([channels.get(edge, zeros) for edge in range(self.edges)], dim=1)


class EdgeNorm(nn.Module):
    """Batch norm of every channel of every edge, with the weight of the edge's operation as the norm's weight."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, edges: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("running_mean", torch.zeros(edges * channels))
        self.register_buffer("running_var", torch.ones(edges * channels))

    def forward(self, active: ActiveEdges, x: Image, weights: Float[Tensor, " edges"] | None) -> Image:
        mean, variance = active.select(self.running_mean), active.select(self.running_var)
        # Repeated for each channel, because torch's norm gives wrong results for an expanded weight.
        weight = None if weights is None else active.select(weights.repeat_interleave(self.channels))
        x = F.batch_norm(x, mean, variance, weight, None, self.training)
        if self.training:
            active.update(self.running_mean, mean)
            active.update(self.running_var, variance)
        return x


class SeparableConvs(nn.Module):
    """Depthwise and pointwise convolution and norm on every edge, for inputs after a ReLU.

    `depthwise` is (edges * channels, 1, size, size), `pointwise` is (edges * channels, channels, 1, 1), edge by edge.
    """

    def __init__(self, edges: int, channels: int, size: int, stride: int, dilation: int) -> None:
        super().__init__()
        width = edges * channels
        self.stride, self.dilation = stride, dilation
        self.depthwise = nn.Conv2d(width, width, size, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1, groups=edges, bias=False)
        self.norm = EdgeNorm(edges, channels)

    def forward(self, active: ActiveEdges, x: Image, weights: Float[Tensor, " edges"] | None) -> NewImage:
        x = depthwise(x, active.select(self.depthwise.weight), self.stride, self.dilation)
        return self.norm(active, pointwise(x, active.select(self.pointwise.weight), len(active.indices)), weights)


class Convolution(nn.ModuleList):
    """The operation `sep_conv`, with two layers of `SeparableConvs`, or `dil_conv`, with one."""

    def __init__(self, name: str, edges: int, channels: int, stride: int) -> None:
        size = 5 if name.endswith("5x5") else 3
        self.dilated = name.startswith("dil")
        if self.dilated:  # at stride 2 its input is every other pixel, so the dilation is 1
            super().__init__([SeparableConvs(edges, channels, size, 1, 1 if stride == 2 else 2)])
        else:
            super().__init__(SeparableConvs(edges, channels, size, step, 1) for step in (stride, 1))

    def forward(self, active: ActiveEdges, x: Image, weights: Float[Tensor, " edges"]) -> NewImage:
        *first_layers, last = self
        for layer in first_layers:
            x = layer(active, x, None).relu_()
        return last(active, x, weights)


class FactorizedReduces(nn.Module):
    """`skip_connect` at stride 2, on every edge: half of an edge's channels are from the pixels at even positions, half from
    those at odd ones.

    `even` and `odd` are (edges * channels / 2, channels, 1, 1), edge by edge.
    """

    def __init__(self, edges: int, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, edges * (channels // 2), 1, bias=False)
        self.odd = nn.Conv2d(channels, edges * (channels // 2), 1, bias=False)
        self.norm = EdgeNorm(edges, 2 * (channels // 2))

    def forward(self, active: ActiveEdges, even: Image, odd: Image, weights: Float[Tensor, " edges"]) -> NewImage:
        halves = [pointwise(x, active.select(layer.weight)) for x, layer in ((even, self.even), (odd, self.odd))]
        both = torch.stack([half.unflatten(1, (len(active.indices), -1)) for half in halves], dim=2)
        return self.norm(active, channels_last(both.flatten(1, 3)), weights)


class MixedEdges(nn.Module):
    """The mixed operations on all edges from one state to `edges` nodes; their outputs are concatenated as channels.

    Submodules are named after the operations that have parameters or statistics. Those of the poolings are norms.
    """

    def __init__(self, edges: int, channels: int, stride: int) -> None:
        super().__init__()
        self.edges, self.channels, self.stride = edges, channels, stride
        self.max_pool_3x3, self.avg_pool_3x3 = EdgeNorm(1, channels), EdgeNorm(1, channels)
        if stride == 2:
            self.skip_connect = FactorizedReduces(edges, channels)
        for name in CONVOLUTIONS:
            self.add_module(name, Convolution(name, edges, channels, stride))

    def forward(self, state: Image, weights: Float[Tensor, "edges operations"], active: ActiveOps) -> NewImage:
        terms = [
            term
            for term in (self._sum_poolings(state, weights, active), self._sum_convolutions(state, weights, active))
            if term is not None
        ]
        if not terms:
            rows, columns = (-(-side // self.stride) for side in state.shape[2:])
            return state.new_zeros(len(state), self.edges * self.channels, rows, columns)
        return contiguous_gradient(sum(terms[1:], start=terms[0]))

    def _active(self, name: str, active: ActiveOps) -> ActiveEdges:
        return ActiveEdges(tuple(edge for edge, row in enumerate(active) if row[OPERATIONS.index(name)]), self.edges)

    def _sum_poolings(self, state: Image, weights: Tensor, active: ActiveOps) -> NewImage | None:
        """Return the weighted sum of the poolings, and of the identity at stride 1, for every edge.

        Each operation is computed once for all edges, and a matrix product forms the weighted sums.
        """
        names = ["max_pool_3x3", "avg_pool_3x3"] + (["skip_connect"] if self.stride == 1 else [])
        images, rows = [], []
        for name in names:
            if self._active(name, active).indices:
                images.append(state if name == "skip_connect" else self._pool(state, name))
                rows.append(weights[:, OPERATIONS.index(name)])
        if not images:
            return None
        eye = torch.eye(self.channels, dtype=weights.dtype, device=weights.device)
        mixing = einsum(torch.stack(rows), eye, "image edge, new old -> edge new image old")
        return pointwise(
            torch.cat(images, dim=1), rearrange(mixing, "edge new image old -> (edge new) (image old) 1 1")
        )

    def _pool(self, state: Image, name: str) -> NewImage:
        if name.startswith("max"):
            pooled = F.max_pool2d(state, 3, self.stride, padding=1)
        else:  # the mean does not include the padding
            pooled = F.avg_pool2d(state, 3, self.stride, padding=1, count_include_pad=False)
        return contiguous_gradient(getattr(self, name)(ActiveEdges((0,), 1), pooled, None))

    def _sum_convolutions(self, state: Image, weights: Tensor, active_ops: ActiveOps) -> NewImage | None:
        """Return the weighted sum of the convolutions, and of the skip connection at stride 2, for every edge."""
        views = self._views(state.relu())
        repeated = cache(lambda pixels, copies: torch.cat([views[pixels]] * copies, dim=1))
        total: Tensor | None = None
        for column, name in enumerate(OPERATIONS):
            operation, active = getattr(self, name, None), self._active(name, active_ops)
            if not active.indices or not isinstance(operation, FactorizedReduces | Convolution):
                continue
            if isinstance(operation, FactorizedReduces):
                x = operation(active, views["even"], views["odd"], weights[:, column])
            else:
                pixels = "even" if self.stride == 2 and operation.dilated else "all"
                x = operation(active, repeated(pixels, len(active.indices)), weights[:, column])
            x = active.spread(x)
            total = x if total is None else total.add_(x)
        return total

    def _views(self, state: Image) -> dict[str, Image]:
        """Return the image with all pixels and, at stride 2, with those at even and those at odd positions."""
        if self.stride == 1:
            return {"all": state}
        check_even(state)
        even, odd = (channels_last(state[:, :, start::2, start::2]) for start in (0, 1))
        return {"all": state, "even": even, "odd": odd}
