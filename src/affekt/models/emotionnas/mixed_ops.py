"""All candidate operations on all edges that leave one state of a cell, in few passes: eq. 2 of EmotionNAS, with the
operations of DARTS (Liu et al., ICLR 2019) as the search's network has them, whose norms are without weights.

The edges of a fan stand side by side as channels, so that one convolution does the same operation on all of them. What has
no weights is done once for all edges: the ReLU, the poolings with their norms, the identity. An operation's share is the
weight of the norm behind it. What has no share, an exact zero, is not computed.
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

from affekt.models.emotionnas.convolutions import channels_last, depthwise, even_gradient, pointwise
from affekt.models.emotionnas.operations import OPERATIONS, Image, NewImage, check_even

ActiveOps = Sequence[Sequence[bool]]  # of each edge, which of `OPERATIONS` is computed


@dataclass(frozen=True)
class ActiveEdges:
    """Those of `edges` edges that are computed. A tensor of all edges has as many rows, or channels, for each in turn."""

    places: tuple[int, ...]
    edges: int

    @property
    def all(self) -> bool:
        return len(self.places) == self.edges

    def of(self, tensor: Tensor) -> Tensor:
        """The kept edges' rows."""
        return tensor if self.all else tensor.unflatten(0, (self.edges, -1))[list(self.places)].flatten(0, 1)

    def put(self, tensor: Tensor, rows: Tensor) -> None:
        """Into the kept edges' rows."""
        if not self.all:
            tensor.view(self.edges, -1)[list(self.places)] = rows.view(len(self.places), -1)

    def spread(self, x: Image) -> NewImage:
        """The channels of all edges again: zeros for those that are not kept."""
        if self.all:
            return x
        parts = dict(zip(self.places, x.chunk(len(self.places), dim=1), strict=True))
        nothing = torch.zeros_like(parts[self.places[0]])
        return torch.cat([parts.get(edge, nothing) for edge in range(self.edges)], dim=1)


class EdgeNorm(nn.Module):
    """Of every channel of every edge, as `torch.nn.BatchNorm2d` without weights of its own: an edge's share is the weight."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, edges: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("running_mean", torch.zeros(edges * channels))
        self.register_buffer("running_var", torch.ones(edges * channels))

    def forward(self, kept: ActiveEdges, x: Image, shares: Float[Tensor, " edges"] | None) -> Image:
        mean, variance = kept.of(self.running_mean), kept.of(self.running_var)
        # A row of its own for each channel: the library's norm reads weights that share their memory wrongly.
        weight = None if shares is None else kept.of(shares.repeat_interleave(self.channels))
        x = F.batch_norm(x, mean, variance, weight, None, self.training)
        if self.training:
            kept.put(self.running_mean, mean)
            kept.put(self.running_var, variance)
        return x


class Separated(nn.Module):
    """On every edge: each channel convolved by itself, channels mixed pixel by pixel, normalisation; of a ReLU's output.

    `depthwise` is (edges * channels, 1, size, size), `pointwise` is (edges * channels, channels, 1, 1), edge by edge.
    """

    def __init__(self, edges: int, channels: int, size: int, stride: int, dilation: int) -> None:
        super().__init__()
        width = edges * channels
        self.stride, self.dilation = stride, dilation
        self.depthwise = nn.Conv2d(width, width, size, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1, groups=edges, bias=False)
        self.norm = EdgeNorm(edges, channels)

    def forward(self, kept: ActiveEdges, x: Image, shares: Float[Tensor, " edges"] | None) -> NewImage:
        x = depthwise(x, kept.of(self.depthwise.weight), self.stride, self.dilation)
        return self.norm(kept, pointwise(x, kept.of(self.pointwise.weight), len(kept.places)), shares)


class Convolution(nn.ModuleList):
    """`sep_conv`, of two `Separated`, or `dil_conv`, of one."""

    def __init__(self, name: str, edges: int, channels: int, stride: int) -> None:
        size = 5 if name.endswith("5x5") else 3
        self.dilated = name.startswith("dil")
        if self.dilated:  # at stride 2 it is given every other pixel, which is all it ever sees
            super().__init__([Separated(edges, channels, size, 1, 1 if stride == 2 else 2)])
        else:
            super().__init__(Separated(edges, channels, size, step, 1) for step in (stride, 1))

    def forward(self, kept: ActiveEdges, x: Image, shares: Float[Tensor, " edges"]) -> NewImage:
        *before, last = self
        for one in before:
            x = one(kept, x, None).relu_()
        return last(kept, x, shares)


class FactorizedReduce(nn.Module):
    """`skip_connect` at stride 2: half of an edge's channels from the pixels at even places, half from those at odd ones.

    `even` and `odd` are (edges * channels / 2, channels, 1, 1), edge by edge.
    """

    def __init__(self, edges: int, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, edges * (channels // 2), 1, bias=False)
        self.odd = nn.Conv2d(channels, edges * (channels // 2), 1, bias=False)
        self.norm = EdgeNorm(edges, 2 * (channels // 2))

    def forward(self, kept: ActiveEdges, even: Image, odd: Image, shares: Float[Tensor, " edges"]) -> NewImage:
        halves = [pointwise(x, kept.of(one.weight)) for x, one in ((even, self.even), (odd, self.odd))]
        both = torch.stack([half.unflatten(1, (len(kept.places), -1)) for half in halves], dim=2)
        return self.norm(kept, channels_last(both.flatten(1, 3)), shares)


class MixedEdges(nn.Module):
    """All edges from one state to `edges` nodes. The nodes' images come out side by side.

    Submodules are named after the operations that have weights or statistics. The poolings are norms of the one source.
    """

    def __init__(self, edges: int, channels: int, stride: int) -> None:
        super().__init__()
        self.edges, self.channels, self.stride = edges, channels, stride
        self.max_pool_3x3, self.avg_pool_3x3 = EdgeNorm(1, channels), EdgeNorm(1, channels)
        if stride == 2:
            self.skip_connect = FactorizedReduce(edges, channels)
        for name in OPERATIONS[4:]:
            self.add_module(name, Convolution(name, edges, channels, stride))

    def forward(self, state: Image, shares: Float[Tensor, "edges operations"], live: ActiveOps) -> NewImage:
        parts = [
            part
            for part in (self._weightless(state, shares, live), self._weighted(state, shares, live))
            if part is not None
        ]
        if not parts:
            rows, columns = (-(-side // self.stride) for side in state.shape[2:])
            return state.new_zeros(len(state), self.edges * self.channels, rows, columns)
        return even_gradient(sum(parts[1:], start=parts[0]))

    def _kept(self, name: str, live: ActiveOps) -> ActiveEdges:
        return ActiveEdges(tuple(edge for edge, row in enumerate(live) if row[OPERATIONS.index(name)]), self.edges)

    def _weightless(self, state: Image, shares: Tensor, live: ActiveOps) -> NewImage | None:
        """Once for all edges, which a product of matrices then gives their shares."""
        images, rows = [], []
        for name in ("max_pool_3x3", "avg_pool_3x3", "skip_connect")[: 4 - self.stride]:
            if self._kept(name, live).places:
                images.append(state if name == "skip_connect" else self._pooled(state, name))
                rows.append(shares[:, OPERATIONS.index(name)])
        if not images:
            return None
        eye = torch.eye(self.channels, dtype=shares.dtype, device=shares.device)
        mixing = einsum(torch.stack(rows), eye, "image edge, new old -> edge new image old")
        return pointwise(
            torch.cat(images, dim=1), rearrange(mixing, "edge new image old -> (edge new) (image old) 1 1")
        )

    def _pooled(self, state: Image, name: str) -> NewImage:
        if name.startswith("max"):
            pooled = F.max_pool2d(state, 3, self.stride, padding=1)
        else:  # beyond the image there is nothing: only real pixels count
            pooled = F.avg_pool2d(state, 3, self.stride, padding=1, count_include_pad=False)
        return even_gradient(getattr(self, name)(ActiveEdges((0,), 1), pooled, None))

    def _weighted(self, state: Image, shares: Tensor, live: ActiveOps) -> NewImage | None:
        """What has weights of its own on every edge; the sum of all operations."""
        seen = self._seen(state.relu())
        beside = cache(lambda pixels, copies: torch.cat([seen[pixels]] * copies, dim=1))
        total: Tensor | None = None
        for column, name in enumerate(OPERATIONS):
            one, kept = getattr(self, name, None), self._kept(name, live)
            if not kept.places or not isinstance(one, FactorizedReduce | Convolution):
                continue
            if isinstance(one, FactorizedReduce):
                x = one(kept, seen["even"], seen["odd"], shares[:, column])
            else:
                pixels = "even" if self.stride == 2 and one.dilated else "all"
                x = one(kept, beside(pixels, len(kept.places)), shares[:, column])
            x = kept.spread(x)
            total = x if total is None else total.add_(x)
        return total

    def _seen(self, state: Image) -> dict[str, Image]:
        """By which pixels an operation sees."""
        if self.stride == 1:
            return {"all": state}
        check_even(state)
        even, odd = (channels_last(state[:, :, start::2, start::2]) for start in (0, 1))
        return {"all": state, "even": even, "odd": odd}
