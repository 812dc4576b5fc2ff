"""Fast execution of a recurrent cell graph over whole sequences, in one direction or both: `Order` and `recur`.

Both directions run in one loop over frames, as the two halves of batched matrix products. Linear nodes with the same
inputs are computed as one product. Utterances are sorted by length and leave the loop at their end, so that padding is
not computed. The backward pass is written by hand: it computes the weight gradients as products over many frames at once,
where autograd would add them up frame by frame.
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

SLOPE = 0.01  # of the leaky ReLU for negative inputs
BLOCK = 1024
"""Least number of rows in one product of the weight gradients: large for speed, but small enough for the CPU's cache."""


MINUS_ONE = torch.tensor(-1.0, device="cpu")
"""The constant -1 as a tensor."""


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
    others = ([*inputs[:index], *inputs[index + 1 :]] for index in range(len(inputs)))
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
# The gradients of a node's inputs, given the gradient of its value, its inputs, and its value.
aten = torch.ops.aten
BACKWARD: dict[str, Callable[[Tensor, Sequence[Any], Any], list[Tensor]]] = {
    "blend": _blend_backward,
    "elementwise_prod": _prod_backward,
    "elementwise_sum": lambda gradient, inputs, _: [gradient] * len(inputs),
    "activation_tanh": lambda gradient, _, value: [aten.tanh_backward(gradient, value)],
    "activation_sigm": lambda gradient, _, value: [aten.sigmoid_backward(gradient, value)],
    "activation_leaky_relu": lambda gradient, _, value: [aten.leaky_relu_backward(gradient, value, SLOPE, True)],
}
# The operations whose gradients need their inputs, and those whose gradients need nothing. All others need their value.
NEED_INPUTS, NEED_NOTHING = ("blend", "elementwise_prod"), ("elementwise_sum",)


@dataclass(frozen=True)
class Step:
    """One step of a program: a node, or several linear nodes with the same inputs, computed as one product."""

    operation: str
    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    """The inputs except the frame: states and other nodes."""
    frame: bool = False
    """True if the frame is an input, too."""


@dataclass(frozen=True)
class Program:
    """A cell graph compiled to the steps for one frame."""

    steps: tuple[Step, ...]
    num_states: int

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> Program:
        linear_nodes: dict[frozenset[str], list[str]] = {}  # by their inputs
        for node in nodes:
            if node.operation == "linear":
                linear_nodes.setdefault(frozenset(node.inputs), []).append(node.name)
        steps = []
        for node in nodes:
            # Nodes with the same inputs can be computed together, as soon as the first of them can.
            group = linear_nodes[frozenset(node.inputs)] if node.operation == "linear" else [node.name]
            if group[0] == node.name:
                sources = tuple(name for name in node.inputs if name != FRAME)
                steps.append(Step(node.operation, tuple(group), sources, FRAME in node.inputs))
        return cls(tuple(steps), count_states(nodes))

    @functools.cached_property
    def products(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.operation == "linear")

    @functools.cached_property
    def product_inputs(self) -> frozenset[str]:
        """The names of all inputs of products, except the frame."""
        return frozenset(name for step in self.products for name in step.sources)

    @functools.cached_property
    def saved(self) -> tuple[str, ...]:
        """The names of the values that are saved for the backward pass."""
        names = set(self.product_inputs)
        for step in self.steps:
            if step.operation in NEED_INPUTS:
                names.update(step.sources)
            elif step.operation not in (*NEED_NOTHING, "linear"):
                names.update(step.nodes)
        return tuple(sorted(names))


@dataclass(frozen=True)
class Order:
    """The order of frames in the loop: by direction, then by time step, then the longest utterance first.

    Attributes:
        counts: Number of utterances that have a frame at each time step.
        frame_rows: Indices of all frames except padding after the axes (batch, frames) are flattened; None if padding is
            computed, too. The shape is (rows,).
        loop_rows: For each position in the loop, the index of its row and direction after the axes (rows, directions) are
            flattened. The shape is (rows * directions,).
        inverse: The inverse permutation of `loop_rows`.
    """

    counts: list[int]
    frame_rows: Int[Tensor, " rows"] | None
    loop_rows: Int[Tensor, " all"]
    inverse: Int[Tensor, " all"]

    @classmethod
    def of(cls, x: Float[Tensor, "batch frames dim"], mask: FrameMask | None, directions: int) -> Order:
        """Return the order for a batch. Raises `BadConfig` if an utterance has padding before or between its frames."""
        batch, frames = x.shape[:2]
        utterances, time_steps = torch.arange(batch, device=x.device), torch.arange(frames, device=x.device)
        lengths = torch.full_like(utterances, frames) if mask is None else mask.sum(dim=1)
        if mask is None or x.is_meta or torch.compiler.is_exporting():
            # An exported graph cannot depend on its data. It also computes padding, which comes last in both directions.
            counts, frame_rows, row = [batch] * frames, None, utterances.unsqueeze(1) * frames + time_steps
            grid = torch.zeros_like(row).t()
            time_step, utterance = (time_steps.unsqueeze(1) + grid).flatten(), (utterances + grid).flatten()
        else:
            if not torch.equal(mask, time_steps < lengths.unsqueeze(1)):
                raise BadConfig("the mask has padding before or between frames: expected padding only after the frames")
            longest = lengths.argsort(descending=True, stable=True)
            time_step, rank = (time_steps.unsqueeze(1) < lengths[longest]).nonzero(as_tuple=True)
            counts, utterance = time_step.bincount().tolist(), longest[rank]
            frame_rows = mask.flatten().nonzero().squeeze(1)
            row = mask.flatten().cumsum(0).sub(1).view(batch, frames)
        from_end = lengths[utterance] - 1 - time_step
        frame_by_direction = (time_step, torch.where(from_end < 0, time_step, from_end))[:directions]
        loop_rows = torch.cat(
            [row[utterance, frame] * directions + direction for direction, frame in enumerate(frame_by_direction)]
        )
        positions = torch.arange(loop_rows.shape[0], device=x.device)
        return cls(counts, frame_rows, loop_rows, torch.empty_like(loop_rows).scatter(0, loop_rows, positions))


Values = Float[Tensor, "directions rows width"]


def recur(program: Program, counts: list[int], terms: Sequence[Tensor], weights: Sequence[Tensor]) -> Values:
    """Return state 0 after each frame. States begin at zero. Rows are in the order of `Order`.

    Autocast is off in the loop, because it would cast the tensors again at every frame.

    Args:
        program: The cell.
        counts: Number of utterances at each time step.
        terms: The term that is added to each product of the program, in order: (directions, rows, width) if the frame is an
            input of the step; otherwise the biases of the product, (directions, 1, width).
        weights: For each product with sources, (directions, width of the sources, width).
    """
    if torch.compiler.is_exporting() or terms[0].is_meta:
        return _run_loop(program, counts, terms, weights)
    with torch.autocast(terms[0].device.type, enabled=False):
        if torch.is_grad_enabled():
            return _Recurrence.apply(program, counts, *terms, *weights)  # type: ignore[no-untyped-call]
        return _run_loop(program, counts, terms, weights)


def _run_loop(
    program: Program,
    counts: list[int],
    terms: Sequence[Tensor],
    weights: Sequence[Tensor],
    saved: list[Tensor] | None = None,
) -> Tensor:
    """Run the loop. At each time step the values of `program.saved` are appended to `saved`, if it is given."""
    hidden = terms[0].shape[2] // len(program.products[0].nodes)
    if not counts:
        return terms[0].new_zeros(terms[0].shape[0], 0, hidden)
    state = [terms[0].new_zeros(terms[0].shape[0], counts[0], hidden)] * program.num_states
    before, after = ([f"{kind}{number}" for number in range(program.num_states)] for kind in (BEFORE, AFTER))
    steps, outputs = _with_tensors(program, counts, terms, weights), []
    for time_step, count in enumerate(counts):
        if count < state[0].shape[1]:
            state = [value[:, :count] for value in state]
        values = dict(zip(before, state, strict=True))
        for step, terms_by_time_step, weight in steps:
            inputs = [values[name] for name in step.sources]
            if step.operation != "linear":
                values[step.nodes[0]] = FORWARD[step.operation](*inputs)
                continue
            product = terms_by_time_step[time_step]
            if weight is not None:
                product = torch.baddbmm(product, inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=2), weight)
            if len(step.nodes) == 1:
                values[step.nodes[0]] = product
            else:
                values.update(zip(step.nodes, product.split(hidden, dim=2), strict=True))
        if saved is not None:
            saved += [values[name] for name in program.saved]
        state = [values[name] for name in after]
        outputs.append(state[0])
    return torch.cat(outputs, dim=1)


def _with_tensors(
    program: Program, counts: list[int], terms: Sequence[Tensor], weights: Sequence[Tensor]
) -> list[tuple[Step, Sequence[Tensor], Tensor | None]]:
    """Return each step with the terms that are added to its product at each time step, and the product's weights."""
    next_terms, next_weights = iter(terms), iter(weights)
    steps: list[tuple[Step, Sequence[Tensor], Tensor | None]] = []
    for step in program.steps:
        by_time_step: Sequence[Tensor] = ()
        if step.operation == "linear":
            term = next(next_terms)
            # Biases are expanded once, not at every time step.
            by_time_step = (
                term.split(counts, dim=1) if step.frame else _first_rows(term.expand(-1, counts[0], -1), counts)
            )
        steps.append((step, by_time_step, next(next_weights) if step.operation == "linear" and step.sources else None))
    return steps


def _first_rows(rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """Return the first `count` rows for each time step."""
    rows, parts = rows.contiguous(), []
    for count in counts:
        rows = rows[:, :count] if count < rows.shape[1] else rows
        parts.append(rows)
    return parts


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, program: Program, counts: list[int], *tensors: Tensor) -> Tensor:
        terms, weights = tensors[: len(program.products)], tensors[len(program.products) :]
        saved: list[Tensor] = []
        outputs = _run_loop(program, counts, terms, weights, saved)
        ctx.program, ctx.counts, ctx.num_weights = program, counts, len(weights)
        ctx.save_for_backward(*weights, *saved)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # This pass cannot be differentiated. With create_graph=True, `once_differentiable` raises an error only if an input
        # requires a gradient; otherwise the result would silently be a constant.
        return _Recurrence._backward_once(
            ctx, gradient.detach().requires_grad_() if torch.is_grad_enabled() else gradient
        )

    @staticmethod
    @once_differentiable
    def _backward_once(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, saved = ctx.saved_tensors[: ctx.num_weights], ctx.saved_tensors[ctx.num_weights :]
        loop = _BackwardLoop(ctx.program, weights, gradient)
        loop.run(ctx.counts, saved, gradient)
        return (None, None, *loop.term_gradients, *loop.weight_gradients)


class _BackwardLoop:
    """The backward pass from the last time step to the first; it fills `term_gradients` and `weight_gradients`."""

    def __init__(self, program: Program, weights: Sequence[Tensor], gradient: Tensor) -> None:
        directions, self.end, self.hidden = gradient.shape
        self.program = program
        self.term_gradients = [
            gradient.new_zeros(directions, self.end if step.frame else 1, len(step.nodes) * self.hidden)
            for step in program.products
        ]
        self.weight_gradients = [torch.zeros_like(weight) for weight in weights]
        transposed = iter([weight.transpose(1, 2) for weight in weights])
        steps = [
            (step, next(transposed) if step in program.products and step.sources else None) for step in program.steps
        ]
        self.steps = steps[::-1]
        # For each time step since the last block:
        self.values: list[dict[str, Tensor]] = []  # the saved values by name
        self.gradients: list[list[Tensor]] = []  # the gradients of the products, from the last product to the first

    def run(self, counts: list[int], saved: Sequence[Tensor], gradient: Tensor) -> None:
        states, names = range(self.program.num_states), self.program.saved
        output_gradients, rows = gradient.split(counts, dim=1), 0
        state_gradients = [gradient.new_zeros(gradient.shape[0], 0, self.hidden) for _ in states]
        for time_step in reversed(range(len(counts))):
            values = dict(zip(names, saved[time_step * len(names) : (time_step + 1) * len(names)], strict=True))
            if num_ended := counts[time_step] - state_gradients[0].shape[1]:  # utterances whose last frame this is
                state_gradients = [F.pad(gradient, (0, 0, 0, num_ended)) for gradient in state_gradients]
            gradients = {f"{AFTER}{number}": state_gradients[number] for number in states}
            gradients[f"{AFTER}0"] = state_gradients[0] + output_gradients[time_step]
            self._run_time_step(gradients, values)
            state_gradients = [gradients[f"{BEFORE}{number}"] for number in states]
            rows += counts[time_step]
            if rows >= BLOCK or time_step == 0:
                self._add_block(rows)
                rows = 0

    def _run_time_step(self, gradients: dict[str, Tensor], values: dict[str, Tensor]) -> None:
        """Add the gradients of all other nodes to `gradients`, which has those of the new states."""
        products: list[Tensor] = []
        for step, weight in self.steps:
            parts: Sequence[Tensor] = ()
            if step.operation != "linear":
                inputs = [values.get(name) for name in step.sources]
                parts = BACKWARD[step.operation](gradients[step.nodes[0]], inputs, values.get(step.nodes[0]))
            else:
                node_gradients = [gradients[name] for name in step.nodes]
                products.append(node_gradients[0] if len(node_gradients) == 1 else torch.cat(node_gradients, dim=2))
                if weight is not None:
                    source_gradients = torch.bmm(products[-1], weight)
                    parts = [source_gradients] if len(step.sources) == 1 else source_gradients.split(self.hidden, dim=2)
            for name, part in zip(step.sources, parts, strict=False):  # no sources if the frame is the only input
                gradients[name] = gradients[name] + part if name in gradients else part
        self.values.append(values)
        self.gradients.append(products)

    def _add_block(self, rows: int) -> None:
        """Add the contribution of the time steps since the last block, `rows` rows, to the gradients of terms and weights."""
        values = {
            name: torch.cat([time_step[name] for time_step in self.values[::-1]], dim=1)
            for name in self.program.product_inputs
        }
        weight_gradients = iter(self.weight_gradients)
        for number, (step, term_gradient) in enumerate(
            zip(self.program.products, self.term_gradients, strict=True), start=1
        ):
            gradient = torch.cat([time_step[-number] for time_step in self.gradients[::-1]], dim=1)
            if step.frame:
                term_gradient[:, self.end - rows : self.end] = gradient
            else:
                term_gradient += gradient.sum(dim=1, keepdim=True)
            weight_parts = next(weight_gradients).split(self.hidden, dim=1) if step.sources else ()
            for name, part in zip(step.sources, weight_parts, strict=True):
                part.baddbmm_(values[name].transpose(1, 2), gradient)
        self.end -= rows
        self.values, self.gradients = [], []
