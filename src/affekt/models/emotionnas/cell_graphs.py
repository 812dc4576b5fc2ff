"""Recipes of recurrent cells (EmotionNAS, section 2.2), in the form of the benchmark that they come from (Klyuchnikov et
al., "NAS-Bench-NLP: Neural Architecture Search Benchmark for Natural Language Processing", arXiv 2006.07116).

A recipe maps nodes to an operation and its inputs: `x`, the frame; `h_prev_0`, `h_prev_1`, ... the states before it; or
other nodes. The nodes `h_new_0`, `h_new_1`, ... are the states after it, and `h_new_0` is the cell's output.
"""

from __future__ import annotations

import graphlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from affekt.errors import BadConfig
from affekt.registry import did_you_mean

CellGraph = Mapping[str, Mapping[str, Any]]
FRAME, BEFORE, AFTER = "x", "h_prev_", "h_new_"

# Operation -> fewest and most inputs.
INPUTS: dict[str, tuple[int, int | None]] = {
    "linear": (1, None),  # a matrix for each input, one bias, summed
    "blend": (3, 3),  # z, a, b: z * a + (1 - z) * b
    "elementwise_prod": (2, None),
    "elementwise_sum": (2, None),
    "activation_tanh": (1, 1),
    "activation_sigm": (1, 1),
    "activation_leaky_relu": (1, 1),  # slope 0.01
}


def _node(operation: str, *inputs: str) -> dict[str, Any]:
    return {"op": operation, "input": list(inputs)}


RECIPES: dict[str, CellGraph] = {
    # As everybody else writes it, torch too; its names are the benchmark's: j and f are torch's i and f, i its g.
    "lstm": {
        "i": _node("linear", "x", "h_prev_0"),
        "i_act": _node("activation_tanh", "i"),
        "j": _node("linear", "x", "h_prev_0"),
        "j_act": _node("activation_sigm", "j"),
        "f": _node("linear", "x", "h_prev_0"),
        "f_act": _node("activation_sigm", "f"),
        "o": _node("linear", "x", "h_prev_0"),
        "o_act": _node("activation_sigm", "o"),
        "kept": _node("elementwise_prod", "f_act", "h_prev_1"),
        "added": _node("elementwise_prod", "i_act", "j_act"),
        "h_new_1": _node("elementwise_sum", "kept", "added"),
        "h_new_1_act": _node("activation_tanh", "h_new_1"),
        "h_new_0": _node("elementwise_prod", "h_new_1_act", "o_act"),
    },
    # torch's GRU: the reset gate stands behind the recurrent product and its bias, tanh(W x + b + r * (U h + c)).
    "gru_reset_after": {
        "r": _node("linear", "x", "h_prev_0"),
        "r_act": _node("activation_sigm", "r"),
        "z": _node("linear", "x", "h_prev_0"),
        "z_act": _node("activation_sigm", "z"),
        "n_x": _node("linear", "x"),
        "n_h": _node("linear", "h_prev_0"),
        "n_reset": _node("elementwise_prod", "r_act", "n_h"),
        "n": _node("elementwise_sum", "n_x", "n_reset"),
        "n_act": _node("activation_tanh", "n"),
        "h_new_0": _node("blend", "z_act", "h_prev_0", "n_act"),
    },
    # The benchmark's own LSTM: its output gate is a tanh, where everybody else's is a sigmoid.
    "lstm_tanh_output_gate": {
        "i": _node("linear", "x", "h_prev_0"),
        "i_act": _node("activation_tanh", "i"),
        "j": _node("linear", "x", "h_prev_0"),
        "j_act": _node("activation_sigm", "j"),
        "f": _node("linear", "x", "h_prev_0"),
        "f_act": _node("activation_sigm", "f"),
        "o": _node("linear", "x", "h_prev_0"),
        "o_act": _node("activation_tanh", "o"),
        "h_new_1_part1": _node("elementwise_prod", "f_act", "h_prev_1"),
        "h_new_1_part2": _node("elementwise_prod", "i_act", "j_act"),
        "h_new_1": _node("elementwise_sum", "h_new_1_part1", "h_new_1_part2"),
        "h_new_1_act": _node("activation_tanh", "h_new_1"),
        "h_new_0": _node("elementwise_prod", "h_new_1_act", "o_act"),
    },
    # Its GRU has one state, and resets it before the product: tanh(W x + U (r * h) + b).
    "gru": {
        "r": _node("linear", "x", "h_prev_0"),
        "r_act": _node("activation_sigm", "r"),
        "z": _node("linear", "x", "h_prev_0"),
        "z_act": _node("activation_sigm", "z"),
        "rh": _node("elementwise_prod", "r_act", "h_prev_0"),
        "h_tilde": _node("linear", "x", "rh"),
        "h_tilde_act": _node("activation_tanh", "h_tilde"),
        "h_new_0": _node("blend", "z_act", "h_prev_0", "h_tilde_act"),
    },
    # The public cells of two states whose linear nodes count as Table 4 does: one input from the frame, six from states
    # and nodes, three nodes. The paper's own (Figure 4) is one like these. By the benchmark's number; the lower its
    # validation loss there, the earlier here.
    "id1010120": {
        "node_2": _node("linear", "h_prev_0", "h_prev_1", "x"),
        "node_3": _node("activation_tanh", "node_2"),
        "node_11": _node("linear", "node_3", "h_prev_1"),
        "node_13": _node("linear", "h_prev_0", "node_3"),
        "h_new_0": _node("activation_leaky_relu", "node_13"),
        "h_new_1": _node("activation_tanh", "node_11"),
    },
    "id1008530": {
        "node_0": _node("linear", "h_prev_0", "x"),
        "node_1": _node("activation_tanh", "node_0"),
        "node_3": _node("linear", "h_prev_1", "h_prev_0", "node_1"),
        "node_6": _node("linear", "h_prev_0", "node_1"),
        "h_new_0": _node("activation_leaky_relu", "node_6"),
        "h_new_1": _node("elementwise_sum", "h_new_0", "node_3"),
    },
    "id1006491": {
        "node_0": _node("linear", "h_prev_0", "h_prev_1"),
        "node_1": _node("activation_sigm", "node_0"),
        "node_3": _node("linear", "x", "h_prev_0"),
        "node_8": _node("linear", "h_prev_1", "h_new_1", "node_1"),
        "h_new_0": _node("activation_sigm", "node_8"),
        "h_new_1": _node("activation_tanh", "node_3"),
    },
    "id1010355": {
        "node_0": _node("linear", "h_prev_1", "h_prev_0"),
        "node_1": _node("activation_leaky_relu", "node_0"),
        "node_3": _node("linear", "node_1", "x"),
        "node_4": _node("activation_sigm", "node_3"),
        "node_7": _node("linear", "h_prev_0", "node_1", "node_4"),
        "h_new_0": _node("activation_sigm", "node_7"),
        "h_new_1": _node("elementwise_sum", "h_new_0", "node_3"),
    },
}


@dataclass(frozen=True)
class Node:
    """A node of a recipe that was found to be in order."""

    name: str
    operation: str
    inputs: tuple[str, ...]


def recipe_json(recipe: str | CellGraph) -> str:
    """A recipe, or the one of a name, as JSON. Raises `BadConfig` for what is no recurrent cell."""
    compiled(recipe)
    entries = RECIPES[recipe] if isinstance(recipe, str) else recipe
    written = {name: {"op": entry["op"], "input": list(entry["input"])} for name, entry in entries.items()}
    return json.dumps(written, indent=1) + "\n"


def recipe_from_json(text: str) -> CellGraph:
    """Raises `BadConfig` for what is not JSON, or no recurrent cell."""
    try:
        recipe = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadConfig(f"a recipe that is not JSON: {error}") from error
    if not isinstance(recipe, dict):
        raise BadConfig(f"a recipe of {type(recipe).__name__}: expected an object of nodes, each with op and input")
    for name, entry in recipe.items():
        _checked(name, entry)
    compiled(recipe)
    return recipe


def compiled(recipe: str | CellGraph) -> tuple[Node, ...]:
    """The nodes of a recipe, or of the one of a name, each after all that it takes. Raises `BadConfig` for what is no
    recurrent cell: an unknown operation or input, a wrong number of inputs, a circle, or something that is of no use."""
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise BadConfig(
                f"there is no recipe {recipe!r}{did_you_mean(recipe, RECIPES)} (known: {', '.join(RECIPES)})"
            )
        recipe = RECIPES[recipe]
    nodes = {name: _checked(name, entry) for name, entry in recipe.items()}
    count = states(tuple(nodes.values()))
    given = {FRAME, *(f"{BEFORE}{state}" for state in range(count))}
    _check_inputs(nodes, given)
    ordered = _ordered(nodes)
    _check_use(nodes, given)
    return ordered


def states(nodes: Sequence[Node]) -> int:
    """How many states a cell carries from frame to frame. Raises `BadConfig` where one is missing."""
    names = {node.name for node in nodes}
    count = sum(name.removeprefix(AFTER).isdigit() for name in names if name.startswith(AFTER))
    missing = [f"{AFTER}{state}" for state in range(max(count, 1)) if f"{AFTER}{state}" not in names]
    if missing:
        raise BadConfig(f"recipe: no node {missing[0]}; new states are numbered from 0, and h_new_0 is the output")
    return count


def _checked(name: Any, entry: Any) -> Node:
    """One entry of a recipe, by itself."""
    if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
        raise BadConfig(f"recipe: a node named {name!r}; expected letters, digits and _, and no name of a module's own")
    if name == FRAME or name.startswith(BEFORE):
        raise BadConfig(f"recipe: {name} is given to the cell, and cannot be a node of it")
    if not _is_entry(entry):
        raise BadConfig(f"recipe, {name}: expected op, an operation, and input, a list of names")
    operation, inputs = entry["op"], tuple(entry["input"])
    if operation not in INPUTS:
        raise BadConfig(
            f"recipe, {name}: operation {operation!r}{did_you_mean(str(operation), INPUTS)} (known: {', '.join(INPUTS)})"
        )
    fewest, most = INPUTS[operation]
    if len(inputs) < fewest or (most is not None and len(inputs) > most):
        expected = f"{fewest} or more" if most is None else str(fewest)
        raise BadConfig(f"recipe, {name}: {operation} of {len(inputs)} inputs; expected {expected}")
    if operation == "linear" and len(set(inputs)) < len(inputs):
        raise BadConfig(f"recipe, {name}: linear of {', '.join(map(str, inputs))}; expected each input once")
    return Node(name, operation, inputs)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or set(entry) != {"op", "input"} or not isinstance(entry["op"], str):
        return False
    return isinstance(entry["input"], list | tuple) and all(isinstance(name, str) for name in entry["input"])


def _check_inputs(nodes: Mapping[str, Node], given: set[str]) -> None:
    for node in nodes.values():
        for name in node.inputs:
            if name not in nodes and name not in given:
                known = sorted(given | set(nodes))
                raise BadConfig(
                    f"recipe, {node.name}: input {name!r}{did_you_mean(str(name), known)} (known: {', '.join(known)})"
                )
        if FRAME in node.inputs and node.operation != "linear":
            raise BadConfig(
                f"recipe, {node.name}: {node.operation} of x; a frame is of another width than the states, "
                "so only a linear node takes it"
            )


def _ordered(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    try:
        names = graphlib.TopologicalSorter({name: node.inputs for name, node in nodes.items()}).static_order()
        return tuple(nodes[name] for name in names if name in nodes)
    except graphlib.CycleError as error:
        raise BadConfig(
            f"recipe: a circle, {' -> '.join(error.args[1])}; a node may not take what comes of it"
        ) from error


def _check_use(nodes: Mapping[str, Node], given: set[str]) -> None:
    reached = _reached(nodes, [f"{AFTER}{state}" for state in range(states(tuple(nodes.values())))])
    unused = [name for name in [*sorted(given), *nodes] if name not in reached]
    if unused:
        raise BadConfig(f"recipe: {', '.join(unused)} unused: no new state comes of it")


def idle(nodes: Sequence[Node]) -> frozenset[str]:
    """Nodes that never reach the output, neither within a frame nor through the states: a state may feed itself alone."""
    known = {node.name: node for node in nodes}
    across = {f"{BEFORE}{number}": f"{AFTER}{number}" for number in range(states(nodes))}
    return frozenset(known) - _reached(known, [f"{AFTER}0"], across)


def _reached(nodes: Mapping[str, Node], targets: list[str], across: Mapping[str, str] | None = None) -> set[str]:
    """All that the targets are made of; `across` says what a name was in the frame before."""
    reached: set[str] = set()
    left = list(targets)
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += nodes[name].inputs if name in nodes else [across[name]] if across and name in across else []
    return reached
