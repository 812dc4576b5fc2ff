"""The cells of EmotionNAS's spectrogram branch (section 2.1), as in DARTS (Liu et al., ICLR 2019): the cell of
the supernet, with all candidate operations on every edge, and the cell derived from a genotype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.emotionnas.convolutions import channels_last, contiguous_gradient
from affekt.models.emotionnas.genotypes import KINDS, Genes
from affekt.models.emotionnas.mixed_ops import ActiveOps, MixedEdges
from affekt.models.emotionnas.operations import OPERATIONS, ConvNorm, FactorizedReduce, Image, NewImage, make_operation

# The output of the cell before the previous one.
Earlier = Float[Tensor, "batch earlier_channels earlier_height earlier_width"]


def count_edges(nodes: int) -> int:
    """Return the number of edges of a cell: node i has one from each of the 2 + i states before it."""
    return sum(2 + node for node in range(nodes))


def edges_from(source: int, nodes: int) -> list[int]:
    """Return the indices of the edges that leave a state. Edges are numbered by target node, then by source."""
    return [count_edges(node) + source for node in range(max(source - 1, 0), nodes)]


class ArchitectureWeights(nn.Module):
    """The architecture weights alpha, before their softmax: `normal` and `reduce`, (edges, operations) each.

    They are buffers with a gradient, not parameters: `parameters()` returns only the network weights, which another optimizer
    trains on other data and which the paper counts. As buffers they are saved, loaded and moved with the network. They stay
    the same tensors when moved, so that an optimizer that holds them remains valid.
    """

    normal: Tensor
    reduce: Tensor

    def __init__(self, nodes: int) -> None:
        super().__init__()
        for kind in KINDS:  # near zero: all operations begin with almost the same weight
            self.register_buffer(kind, (1e-3 * torch.randn(count_edges(nodes), len(OPERATIONS))).requires_grad_())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ArchitectureWeights:
        """Convert the buffers like parameters: in place, and as leaf tensors."""
        before = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for kind, alpha in before.items():
            moved = getattr(self, kind).detach().requires_grad_(alpha.requires_grad)
            if alpha.is_meta == moved.is_meta:
                alpha.grad, gradient = None, alpha.grad
                alpha.data = moved.data
                alpha.grad = None if gradient is None else fn(gradient)
                moved = alpha
            setattr(self, kind, moved)
        return self


class Cell(nn.Module):
    """The base class of supernet cells and derived cells.

    `preprocess0` and `preprocess1` convert the outputs of the two previous cells, the earlier one first, to the cell's
    number of channels. If the previous cell halved the image, `preprocess0` halves its input, too.

    Args:
        in_channels: Channels of the two inputs.
        channels: Channels of the cell's nodes.
        halved: Whether the previous cell halved the image.
        affine: Whether the norms have parameters.
    """

    def __init__(self, in_channels: tuple[int, int], channels: int, *, halved: bool, affine: bool) -> None:
        super().__init__()
        first = FactorizedReduce if halved else ConvNorm
        self.preprocess0 = first(in_channels[0], channels, affine=affine)
        self.preprocess1 = ConvNorm(in_channels[1], channels, affine=affine)


class SearchCell(Cell):
    """A cell of the supernet: every node is the weighted sum of all operations on its edges (eq. 2), and the output is the
    concatenation of the nodes.

    `fans.S` (for fan-out) has all edges that leave state S: the two inputs are states 0 and 1, the first node is state 2.
    In a reduction cell the edges from the two inputs have stride 2.
    """

    def __init__(
        self, in_channels: tuple[int, int], channels: int, nodes: int, *, reduction: bool, halved: bool
    ) -> None:
        super().__init__(in_channels, channels, halved=halved, affine=False)
        self.edges = [edges_from(source, nodes) for source in range(1 + nodes)]
        self.fans = nn.ModuleList(
            MixedEdges(len(edges), channels, 2 if reduction and source < 2 else 1)
            for source, edges in enumerate(self.edges)
        )

    def forward(
        self, first: Earlier, second: Image, weights: Float[Tensor, "edges operations"], active: ActiveOps
    ) -> NewImage:
        """Return the output for the outputs of the two previous cells, the earlier one first."""
        from_inputs = [
            mixed(preprocess(x), weights[edges], [active[edge] for edge in edges])
            for mixed, edges, preprocess, x in zip(
                self.fans, self.edges, (self.preprocess0, self.preprocess1), (first, second), strict=False
            )
        ]
        # `sums` has the sums of the remaining nodes so far, concatenated as channels.
        nodes, sums = [], from_inputs[0] + from_inputs[1]
        for mixed, edges in zip(self.fans[2:], self.edges[2:], strict=True):
            node, sums = sums.tensor_split([mixed.channels], dim=1)
            nodes.append(channels_last(node))
            sums = sums + mixed(nodes[-1], weights[edges], [active[edge] for edge in edges])
        return torch.cat([*nodes, sums], dim=1)


class DerivedCell(Cell):
    """A cell derived from a genotype: every node is the sum of two operations, and the output is the concatenation of the
    nodes.

    `edges.E` is the E-th operation of the genotype. In training every operation except the identity is dropped for a whole
    utterance with probability `drop_path`; otherwise its output is divided by 1 - `drop_path`.
    """

    def __init__(
        self,
        in_channels: tuple[int, int],
        channels: int,
        genes: Genes,
        *,
        reduction: bool,
        halved: bool,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(in_channels, channels, halved=halved, affine=True)
        self.sources, self.drop_path = [source for _, source in genes], drop_path
        self.edges = nn.ModuleList(
            make_operation(name, channels, 2 if reduction and source < 2 else 1) for name, source in genes
        )

    def forward(self, first: Earlier, second: Image) -> NewImage:
        """Return the output for the outputs of the two previous cells, the earlier one first."""
        states = [self.preprocess0(first), self.preprocess1(second)]
        for edge in range(0, len(self.edges), 2):
            states.append(contiguous_gradient(self._apply_edge(edge, states) + self._apply_edge(edge + 1, states)))
        return torch.cat(states[2:], dim=1)

    def _apply_edge(self, edge: int, states: list[Tensor]) -> Tensor:
        operation = self.edges[edge]
        x = operation(states[self.sources[edge]])
        if not self.training or not self.drop_path or isinstance(operation, nn.Identity):
            return x
        mask = torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - self.drop_path)
        return x * mask / (1 - self.drop_path)
