"""The cells of EmotionNAS's spectrogram branch (section 2.1), as DARTS builds them (Liu et al., ICLR 2019): one that holds
every candidate operation on every edge, for the search, and one made from a genotype."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from affekt.models.emotionnas.convolutions import channels_last, even_gradient
from affekt.models.emotionnas.genotypes import KINDS, Genes
from affekt.models.emotionnas.mixed_ops import ActiveOps, MixedEdges
from affekt.models.emotionnas.operations import OPERATIONS, ConvNorm, FactorizedReduce, Image, NewImage, operation

Earlier = Float[Tensor, "batch earlier_channels earlier_height earlier_width"]  # what the cell before the last gave


def edges_of(nodes: int) -> int:
    """Edges of a cell: node i has one from each of the 2 + i before it."""
    return sum(2 + node for node in range(nodes))


def edges_from(source: int, nodes: int) -> list[int]:
    """Which of a cell's edges, by target node and then by source, leave one state; by target."""
    return [edges_of(node) + source for node in range(max(source - 1, 0), nodes)]


class Architecture(nn.Module):
    """The architecture's weights before their softmax, alpha: `normal` and `reduce`, (edges, operations) each.

    They are buffers that take a gradient, not parameters: `parameters()` holds the network's weights, which another
    optimiser trains on other data, and which the paper's counts are of. As buffers they are saved, loaded and moved with
    the network, and remain the same tensors, so that an optimiser that was given them goes on.
    """

    normal: Tensor
    reduce: Tensor

    def __init__(self, nodes: int) -> None:
        super().__init__()
        for kind in KINDS:  # near zero: every operation begins with the same share
            self.register_buffer(kind, (1e-3 * torch.randn(edges_of(nodes), len(OPERATIONS))).requires_grad_())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Architecture:
        """As a module moves its parameters: in place, and leaves of the graph afterwards."""
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
    """What both kinds have: their inputs, from the cell before the last (`preprocess0`) and from the last (`preprocess1`),
    are brought to the cell's channels. Where the last one halved the image, the one before it is halved here.

    before: channels of the two inputs.
    """

    def __init__(self, before: tuple[int, int], channels: int, *, halved: bool, affine: bool) -> None:
        super().__init__()
        first = FactorizedReduce if halved else ConvNorm
        self.preprocess0 = first(before[0], channels, affine=affine)
        self.preprocess1 = ConvNorm(before[1], channels, affine=affine)


class SearchCell(Cell):
    """Every node is the sum of all operations on its edges by their shares, eq. 2; the output is the nodes side by side.

    `fans.S` are the edges from state S: the two inputs are 0 and 1, the first node is 2. In a reduction cell those from the
    two inputs have stride 2.
    """

    def __init__(self, before: tuple[int, int], channels: int, nodes: int, *, reduction: bool, halved: bool) -> None:
        super().__init__(before, channels, halved=halved, affine=False)
        self.edges = [edges_from(source, nodes) for source in range(1 + nodes)]
        self.fans = nn.ModuleList(
            MixedEdges(len(edges), channels, 2 if reduction and source < 2 else 1)
            for source, edges in enumerate(self.edges)
        )

    def forward(
        self, first: Earlier, second: Image, shares: Float[Tensor, "edges operations"], live: ActiveOps
    ) -> NewImage:
        """From the outputs of the cell before the last and of the last."""
        given = [
            fan(preprocess(x), shares[edges], [live[edge] for edge in edges])
            for fan, edges, preprocess, x in zip(
                self.fans, self.edges, (self.preprocess0, self.preprocess1), (first, second), strict=False
            )
        ]
        nodes, coming = [], given[0] + given[1]  # what all nodes to come have been given so far, side by side
        for fan, edges in zip(self.fans[2:], self.edges[2:], strict=True):
            node, coming = coming.tensor_split([fan.channels], dim=1)
            nodes.append(channels_last(node))
            coming = coming + fan(nodes[-1], shares[edges], [live[edge] for edge in edges])
        return torch.cat([*nodes, coming], dim=1)


class DerivedCell(Cell):
    """A cell made from a genotype: every node is the sum of two operations; the output is the nodes side by side.

    `edges.E` is the E-th operation of the genotype. In training each operation but the identity is left out for a whole
    utterance with probability `drop_path`, and scaled up where it stays.
    """

    def __init__(
        self,
        before: tuple[int, int],
        channels: int,
        genes: Genes,
        *,
        reduction: bool,
        halved: bool,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(before, channels, halved=halved, affine=True)
        self.sources, self.drop_path = [source for _, source in genes], drop_path
        self.edges = nn.ModuleList(
            operation(name, channels, 2 if reduction and source < 2 else 1) for name, source in genes
        )

    def forward(self, first: Earlier, second: Image) -> NewImage:
        """From the outputs of the cell before the last and of the last."""
        states = [self.preprocess0(first), self.preprocess1(second)]
        for edge in range(0, len(self.edges), 2):
            states.append(even_gradient(self._along(edge, states) + self._along(edge + 1, states)))
        return torch.cat(states[2:], dim=1)

    def _along(self, edge: int, states: list[Tensor]) -> Tensor:
        one = self.edges[edge]
        x = one(states[self.sources[edge]])
        if not self.training or not self.drop_path or isinstance(one, nn.Identity):
            return x
        kept = torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - self.drop_path)
        return x * kept / (1 - self.drop_path)
