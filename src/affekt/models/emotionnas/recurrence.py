"""Fast execution of a recurrent cell graph over whole sequences, in one direction or both: `Order` and `recur`.

Both directions run in one loop over frames, as the two halves of batched matrix products. Linear nodes with the same inputs
are one product. Utterances are sorted by length, and those that have ended are dropped from the loop, so that padding is not
computed. The backward pass is written by hand: it computes the weight gradients as products over many frames at once, where
autograd would add them up frame by frame.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from affekt.errors import BadConfig
from affekt.models.emotionnas.cell_graphs import AFTER, BEFORE, FRAME, Node, count_states
from affekt.models.layers import FrameMask

SLOPE = 0.01  # of the leaky ReLU
BLOCK = 1024  # rows for one product of the weight gradients: many, but small enough for the CPU's cache


MINUS_ONE = torch.tensor(-1.0, device="cpu")


def _tanh(x: Tensor) -> Tensor:
    """Compute tanh on a CPU as 2 sigmoid(2x) - 1, two to three times as fast as torch's tanh."""
    if x.device.type != "cpu" or torch.compiler.is_exporting():
        return torch.tanh(x)
    return torch.add(MINUS_ONE, torch.sigmoid(x + x), alpha=2)


def _blend_backward(gradient: Tensor, inputs: Sequence[Tensor], _: object) -> list[Tensor]:
    z, a, b = inputs
    to_a = gradient * z
    return [gradient * (a - b), to_a, gradient - to_a]


def _prod_backward(gradient: Tensor, inputs: Sequence[Tensor], _: object) -> list[Tensor]:
    others = ([*inputs[:place], *inputs[place + 1 :]] for place in range(len(inputs)))
    return [functools.reduce(operator.mul, factors, gradient) for factors in others]


# The forward functions of all operations except linear.
FORWARD: dict[str, Callable[..., Tensor]] = {
    "blend": lambda z, a, b: torch.lerp(b, a, z),  # b + z (a - b)
    "elementwise_prod": lambda *inputs: functools.reduce(operator.mul, inputs),
    "elementwise_sum": lambda *inputs: functools.reduce(operator.add, inputs),
    "activation_tanh": _tanh,
    "activation_sigm": torch.sigmoid,
    "activation_leaky_relu": lambda x: F.leaky_relu(x, SLOPE),
}
# The gradients of a node's inputs, from that of its value, and the stored inputs or value.
aten = torch.ops.aten
BACKWARD: dict[str, Callable[[Tensor, Sequence[Any], Any], list[Tensor]]] = {
    "blend": _blend_backward,
    "elementwise_prod": _prod_backward,
    "elementwise_sum": lambda gradient, inputs, _: [gradient] * len(inputs),
    "activation_tanh": lambda gradient, _, value: [aten.tanh_backward(gradient, value)],
    "activation_sigm": lambda gradient, _, value: [aten.sigmoid_backward(gradient, value)],
    "activation_leaky_relu": lambda gradient, _, value: [aten.leaky_relu_backward(gradient, value, SLOPE, True)],
}
BY_INPUTS, BY_NOTHING = (
    ("blend", "elementwise_prod"),
    ("elementwise_sum",),
)  # the gradients of all others need their value


@dataclass(frozen=True)
class Step:
    """One step of a program: a node, or the linear nodes with the same inputs, computed as one product."""

    operation: str
    nodes: tuple[str, ...]
    sources: tuple[str, ...]  # states and other nodes
    frame: bool = False  # whether the frame is an input, too


@dataclass(frozen=True)
class Program:
    """A cell graph compiled to the steps of one frame."""

    steps: tuple[Step, ...]
    states: int

    @classmethod
    def of(cls, recipe: Sequence[Node]) -> Program:
        alike: dict[frozenset[str], list[str]] = {}
        for node in recipe:
            if node.operation == "linear":
                alike.setdefault(frozenset(node.inputs), []).append(node.name)
        steps = []
        for node in recipe:
            # Nodes with the same inputs can be computed together, as soon as the first of them can.
            group = alike[frozenset(node.inputs)] if node.operation == "linear" else [node.name]
            if group[0] == node.name:
                sources = tuple(name for name in node.inputs if name != FRAME)
                steps.append(Step(node.operation, tuple(group), sources, FRAME in node.inputs))
        return cls(tuple(steps), count_states(recipe))

    @functools.cached_property
    def products(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.operation == "linear")

    @functools.cached_property
    def multiplied(self) -> frozenset[str]:
        """The names of all inputs of products."""
        return frozenset(name for step in self.products for name in step.sources)

    @functools.cached_property
    def kept(self) -> tuple[str, ...]:
        """The names of the values that the backward pass needs."""
        names = set(self.multiplied)
        for step in self.steps:
            if step.operation in BY_INPUTS:
                names.update(step.sources)
            elif step.operation not in (*BY_NOTHING, "linear"):
                names.update(step.nodes)
        return tuple(sorted(names))


@dataclass(frozen=True)
class Order:
    """The order of frames in the loop: by direction, then by moment, then the longest utterance first.

    Attributes:
        counts: Number of utterances that have a frame at each moment.
        real: (rows,), the indices of all frames except padding in the flattened (batch frames); None if padding is computed.
        followed: (rows * directions,), for each position in the loop the index into the flattened (rows directions).
        given: The inverse of `followed`.
    """

    counts: list[int]
    real: Int[Tensor, " rows"] | None
    followed: Int[Tensor, " all"]
    given: Int[Tensor, " all"]

    @classmethod
    def of(cls, x: Float[Tensor, "batch frames dim"], mask: FrameMask | None, directions: int) -> Order:
        """Return the order for utterances whose padding, if any, comes after their frames."""
        batch, frames = x.shape[:2]
        utterances, moments = torch.arange(batch, device=x.device), torch.arange(frames, device=x.device)
        lengths = torch.full_like(utterances, frames) if mask is None else mask.sum(dim=1)
        if mask is None or x.is_meta or torch.compiler.is_exporting():
            # An exported graph cannot depend on its data: it computes padding, too, last in both directions.
            counts, real, row = [batch] * frames, None, utterances.unsqueeze(1) * frames + moments
            grid = torch.zeros_like(row).t()
            moment, utterance = (moments.unsqueeze(1) + grid).flatten(), (utterances + grid).flatten()
        else:
            if not torch.equal(mask, moments < lengths.unsqueeze(1)):
                raise BadConfig("the mask has padding before or between frames: expected padding only after the frames")
            longest = lengths.argsort(descending=True, stable=True)
            moment, rank = (moments.unsqueeze(1) < lengths[longest]).nonzero(as_tuple=True)
            counts, utterance = moment.bincount().tolist(), longest[rank]
            real = mask.flatten().nonzero().squeeze(1)
            row = mask.flatten().cumsum(0).sub(1).view(batch, frames)
        from_end = lengths[utterance] - 1 - moment
        ways = (moment, torch.where(from_end < 0, moment, from_end))[:directions]
        followed = torch.cat([row[utterance, way] * directions + number for number, way in enumerate(ways)])
        places = torch.arange(followed.shape[0], device=x.device)
        return cls(counts, real, followed, torch.empty_like(followed).scatter(0, followed, places))


Values = Float[Tensor, "directions rows width"]


def recur(program: Program, counts: list[int], terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Values:
    """Return the first state after each frame; states begin at zero. Rows are in the order of `Order`.

    The loop keeps the precision of its inputs under autocast, which would cast them again at every frame.

    Args:
        program: The cell.
        counts: Number of utterances at each moment.
        terms: What is added to each product: (directions, rows, width) if it takes the frame, otherwise its biases
            (directions, 1, width).
        weights: For each product of sources, (directions, width of the sources, width).
    """
    if torch.compiler.is_exporting() or terms[0].is_meta:
        return _follow(program, counts, terms, weights)
    with torch.autocast(terms[0].device.type, enabled=False):
        if torch.is_grad_enabled():
            return _Recurrence.apply(program, counts, *terms, *weights)  # type: ignore[no-untyped-call]
        return _follow(program, counts, terms, weights)


def _follow(
    program: Program,
    counts: list[int],
    terms: Sequence[Tensor],
    weights: Sequence[Tensor],
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Run the loop; append the values of `program.kept` to `kept` at each moment."""
    hidden = terms[0].shape[2] // len(program.products[0].nodes)
    if not counts:
        return terms[0].new_zeros(terms[0].shape[0], 0, hidden)
    state = [terms[0].new_zeros(terms[0].shape[0], counts[0], hidden)] * program.states
    before, after = ([f"{kind}{number}" for number in range(program.states)] for kind in (BEFORE, AFTER))
    steps, outputs = _with_tensors(program, counts, terms, weights), []
    for moment, count in enumerate(counts):
        if count < state[0].shape[1]:
            state = [value[:, :count] for value in state]
        values = dict(zip(before, state, strict=True))
        for step, seen, weight in steps:
            inputs = [values[name] for name in step.sources]
            if step.operation != "linear":
                values[step.nodes[0]] = FORWARD[step.operation](*inputs)
                continue
            made = seen[moment]
            if weight is not None:
                made = torch.baddbmm(made, inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=2), weight)
            if len(step.nodes) == 1:
                values[step.nodes[0]] = made
            else:
                values.update(zip(step.nodes, made.split(hidden, dim=2), strict=True))
        if kept is not None:
            kept += [values[name] for name in program.kept]
        state = [values[name] for name in after]
        outputs.append(state[0])
    return torch.cat(outputs, dim=1)


def _with_tensors(
    program: Program, counts: list[int], terms: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[tuple[Step, Sequence[Tensor], Tensor | None]]:
    """Return the steps with the terms that products add at each moment, and their weights."""
    own_terms, own_weights = iter(terms), iter(weights)
    steps: list[tuple[Step, Sequence[Tensor], Tensor | None]] = []
    for step in program.steps:
        seen: Sequence[Tensor] = ()
        if step.operation == "linear":
            term = next(own_terms)
            # Biases are expanded once, not at every moment.
            seen = term.split(counts, dim=1) if step.frame else _first(term.expand(-1, counts[0], -1), counts)
        steps.append((step, seen, next(own_weights) if step.operation == "linear" and step.sources else None))
    return steps


def _first(rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Return the first `count` rows for each moment."""
    rows, parts = rows.contiguous(), []
    for count in counts:
        rows = rows[:, :count] if count < rows.shape[1] else rows
        parts.append(rows)
    return parts


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, program: Program, counts: list[int], *tensors: Tensor) -> Tensor:
        terms, weights = tensors[: len(program.products)], tensors[len(program.products) :]
        kept: list[Tensor] = []
        outputs = _follow(program, counts, terms, weights, kept)
        ctx.program, ctx.counts, ctx.weights = program, counts, len(weights)
        ctx.save_for_backward(*weights, *kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # With create_graph a constant gradient would silently make this non-differentiable pass a constant, too.
        return _Recurrence._backward_once(
            ctx, gradient.detach().requires_grad_() if torch.is_grad_enabled() else gradient
        )

    @staticmethod
    @once_differentiable
    def _backward_once(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, kept = ctx.saved_tensors[: ctx.weights], ctx.saved_tensors[ctx.weights :]
        loop = _BackwardLoop(ctx.program, weights, gradient)
        loop.run(ctx.counts, kept, gradient)
        return (None, None, *loop.of_terms, *loop.of_weights)


class _BackwardLoop:
    """The backward pass from the last moment to the first; it fills `of_terms` and `of_weights`, the gradients."""

    def __init__(self, program: Program, weights: Sequence[Tensor], gradient: Tensor) -> None:
        directions, self.end, self.hidden = gradient.shape
        self.program = program
        self.of_terms = [
            gradient.new_zeros(directions, self.end if step.frame else 1, len(step.nodes) * self.hidden)
            for step in program.products
        ]
        self.of_weights = [torch.zeros_like(weight) for weight in weights]
        transposed = iter([weight.transpose(1, 2) for weight in weights])
        steps = [
            (step, next(transposed) if step in program.products and step.sources else None) for step in program.steps
        ]
        self.steps = steps[::-1]
        self.values: list[dict[str, Tensor]] = []  # of the moments since the last block
        self.gradients: list[list[Tensor]] = []  # of the products' values, the last product's first, likewise

    def run(self, counts: list[int], kept: Sequence[Tensor], gradient: Tensor) -> None:
        states, names = range(self.program.states), self.program.kept
        above, rows = gradient.split(counts, dim=1), 0
        carried = [gradient.new_zeros(gradient.shape[0], 0, self.hidden) for _ in states]
        for moment in reversed(range(len(counts))):
            values = dict(zip(names, kept[moment * len(names) : (moment + 1) * len(names)], strict=True))
            if more := counts[moment] - carried[0].shape[1]:  # utterances that ended here
                carried = [F.pad(gradient, (0, 0, 0, more)) for gradient in carried]
            gradients = {f"{AFTER}{number}": carried[number] for number in states}
            gradients[f"{AFTER}0"] = carried[0] + above[moment]
            self._moment(gradients, values)
            carried = [gradients[f"{BEFORE}{number}"] for number in states]
            rows += counts[moment]
            if rows >= BLOCK or moment == 0:
                self._block(rows)
                rows = 0

    def _moment(self, gradients: dict[str, Tensor], values: dict[str, Tensor]) -> None:
        """Add the gradients of all other nodes to `gradients`, which holds those of the new states."""
        products: list[Tensor] = []
        for step, weight in self.steps:
            parts: Sequence[Tensor] = ()
            if step.operation != "linear":
                inputs = [values.get(name) for name in step.sources]
                parts = BACKWARD[step.operation](gradients[step.nodes[0]], inputs, values.get(step.nodes[0]))
            else:
                own = [gradients[name] for name in step.nodes]
                products.append(own[0] if len(own) == 1 else torch.cat(own, dim=2))
                if weight is not None:
                    joined = torch.bmm(products[-1], weight)
                    parts = [joined] if len(step.sources) == 1 else joined.split(self.hidden, dim=2)
            for name, part in zip(step.sources, parts, strict=False):  # none where there is the frame alone
                gradients[name] = gradients[name] + part if name in gradients else part
        self.values.append(values)
        self.gradients.append(products)

    def _block(self, rows: int) -> None:
        """Add the contribution of the last moments, `rows` rows in all, to the gradients of terms and weights."""
        values = {
            name: torch.cat([moment[name] for moment in self.values[::-1]], dim=1) for name in self.program.multiplied
        }
        of_weights = iter(self.of_weights)
        for number, (step, of_term) in enumerate(zip(self.program.products, self.of_terms, strict=True), start=1):
            gradient = torch.cat([moment[-number] for moment in self.gradients[::-1]], dim=1)
            if step.frame:
                of_term[:, self.end - rows : self.end] = gradient
            else:
                of_term += gradient.sum(dim=1, keepdim=True)
            of_weight = next(of_weights).split(self.hidden, dim=1) if step.sources else ()
            for name, part in zip(step.sources, of_weight, strict=True):
                part.baddbmm_(values[name].transpose(1, 2), gradient)
        self.end -= rows
        self.values, self.gradients = [], []
