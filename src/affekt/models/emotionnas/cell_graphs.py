"""Graphs of recurrent cells (EmotionNAS, section 2.2), in the format of the benchmark that they come from (Klyuchnikov et
al., "NAS-Bench-NLP: Neural Architecture Search Benchmark for Natural Language Processing", arXiv 2006.07116).

A cell graph maps each node to an operation and its inputs: `x`, the frame; `h_prev_0`, `h_prev_1`, ..., the states before
the frame; or other nodes. The nodes `h_new_0`, `h_new_1`, ... are the states after it, and `h_new_0` is the cell's output.
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

# Least and largest number of inputs of each operation; None for no limit.
INPUTS: dict[str, tuple[int, int | None]] = {
    "linear": (1, None),  # the sum of a matrix product for each input and one bias
    "blend": (3, 3),  # z, a, b: z * a + (1 - z) * b
    "elementwise_prod": (2, None),
    "elementwise_sum": (2, None),
    "activation_tanh": (1, 1),
    "activation_sigm": (1, 1),
    "activation_leaky_relu": (1, 1),  # slope 0.01
}


def _node(operation: str, *inputs: str) -> dict[str, Any]:
    return {"op": operation, "input": list(inputs)}


CELL_GRAPHS: dict[str, CellGraph] = {
    # The usual LSTM, as in torch. The nodes have the benchmark's names: j, f and i are torch's i, f and g.
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
    # torch's GRU: the reset gate is applied after the recurrent product and its bias, tanh(W x + b + r * (U h + c)).
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
    # The benchmark's own LSTM: its output gate is a tanh, not the usual sigmoid.
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
    # The benchmark's own GRU: it has one state, and the reset gate is applied before the product, tanh(W x + U (r * h) + b).
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
    # The benchmark's public cells with two states that give the parameter counts of Table 4: three linear nodes that together
    # have one input from the frame and six from states and nodes, like the paper's own cell (Figure 4). They have the
    # benchmark's numbers and are sorted by their validation loss there, lowest first.
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
    """A node of a cell graph."""

    name: str
    operation: str
    inputs: tuple[str, ...]


def cell_graph_to_json(graph: str | CellGraph) -> str:
    """Return a cell graph, given itself or its name, as JSON. Raises `BadConfig` for an invalid graph."""
    compile_cell_graph(graph)
    entries = CELL_GRAPHS[graph] if isinstance(graph, str) else graph
    content = {name: {"op": entry["op"], "input": list(entry["input"])} for name, entry in entries.items()}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def cell_graph_from_json(text: str) -> CellGraph:
    """Read a cell graph from JSON. Raises `BadConfig` if the text is not JSON or not a valid graph."""
    try:
        graph = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadConfig(f"the cell graph is not JSON: {error}") from error
    if not isinstance(graph, dict):
        raise BadConfig(
            f"the cell graph is a {type(graph).__name__}: expected an object of nodes, each with op and input"
        )
    for name, entry in graph.items():
        _check_node(name, entry)
    compile_cell_graph(graph)
    return graph


def compile_cell_graph(graph: str | CellGraph) -> tuple[Node, ...]:
    """Return the nodes of a cell graph, given itself or its name, each after its inputs.

    Raises:
        BadConfig: The graph has an unknown operation or input, a wrong number of inputs, a cycle, or an unused node.
    """
    if isinstance(graph, str):
        if graph not in CELL_GRAPHS:
            raise BadConfig(
                f"unknown cell graph {graph!r}{did_you_mean(graph, CELL_GRAPHS)} (known: {', '.join(CELL_GRAPHS)})"
            )
        graph = CELL_GRAPHS[graph]
    nodes = {name: _check_node(name, entry) for name, entry in graph.items()}
    count = count_states(tuple(nodes.values()))
    cell_inputs = {FRAME, *(f"{BEFORE}{state}" for state in range(count))}
    _check_inputs(nodes, cell_inputs)
    sorted_nodes = _sort_nodes(nodes)
    _check_use(nodes, cell_inputs)
    return sorted_nodes


def count_states(nodes: Sequence[Node]) -> int:
    """Return the number of states that a cell carries from frame to frame. Raises `BadConfig` if one is missing."""
    names = {node.name for node in nodes}
    count = sum(name.removeprefix(AFTER).isdigit() for name in names if name.startswith(AFTER))
    missing = [f"{AFTER}{state}" for state in range(max(count, 1)) if f"{AFTER}{state}" not in names]
    if missing:
        raise BadConfig(f"cell graph: no node {missing[0]}; new states are numbered from 0, and h_new_0 is the output")
    return count


def _check_node(name: Any, entry: Any) -> Node:
    """Return an entry as a node. Its inputs are checked for number and form, not for whether they exist."""
    if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
        raise BadConfig(f"cell graph: a node named {name!r}; expected a Python name that no torch module uses")
    if name == FRAME or name.startswith(BEFORE):
        raise BadConfig(f"cell graph: {name} is an input of the cell and cannot be a node")
    if not _is_entry(entry):
        raise BadConfig(f"cell graph, {name}: expected op, an operation, and input, a list of names")
    operation, inputs = entry["op"], tuple(entry["input"])
    if operation not in INPUTS:
        raise BadConfig(
            f"cell graph, {name}: operation {operation!r}{did_you_mean(str(operation), INPUTS)} (known: {', '.join(INPUTS)})"
        )
    fewest, most = INPUTS[operation]
    if len(inputs) < fewest or (most is not None and len(inputs) > most):
        expected = f"{fewest} or more" if most is None else str(fewest)
        raise BadConfig(
            f"cell graph, {name}: the number of inputs of {operation} is {len(inputs)}; expected {expected}"
        )
    if operation == "linear" and len(set(inputs)) < len(inputs):
        raise BadConfig(
            f"cell graph, {name}: linear has the inputs {', '.join(map(str, inputs))}; expected each input once"
        )
    return Node(name, operation, inputs)


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or set(entry) != {"op", "input"} or not isinstance(entry["op"], str):
        return False
    return isinstance(entry["input"], list | tuple) and all(isinstance(name, str) for name in entry["input"])


def _check_inputs(nodes: Mapping[str, Node], cell_inputs: set[str]) -> None:
    for node in nodes.values():
        for name in node.inputs:
            if name not in nodes and name not in cell_inputs:
                known = sorted(cell_inputs | set(nodes))
                raise BadConfig(
                    f"cell graph, {node.name}: input {name!r}{did_you_mean(str(name), known)} (known: {', '.join(known)})"
                )
        if FRAME in node.inputs and node.operation != "linear":
            raise BadConfig(
                f"cell graph, {node.name}: {node.operation} has the input x; a frame has another width than the states, "
                "so it can only be an input of linear nodes"
            )


def _sort_nodes(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    try:
        names = graphlib.TopologicalSorter({name: node.inputs for name, node in nodes.items()}).static_order()
        return tuple(nodes[name] for name in names if name in nodes)
    except graphlib.CycleError as error:
        raise BadConfig(f"cell graph: a cycle, {' -> '.join(error.args[1])}; a node cannot depend on itself") from error


def _check_use(nodes: Mapping[str, Node], cell_inputs: set[str]) -> None:
    reached = _dependencies(nodes, [f"{AFTER}{state}" for state in range(count_states(tuple(nodes.values())))])
    unused = [name for name in [*sorted(cell_inputs), *nodes] if name not in reached]
    if unused:
        raise BadConfig(
            f"cell graph: {', '.join(unused)} unused: no new state depends on {'it' if len(unused) == 1 else 'them'}"
        )


def idle_nodes(nodes: Sequence[Node]) -> frozenset[str]:
    """Return the nodes that never affect the output, neither in a frame nor through the states.

    There are such nodes if a state affects only its own next value.
    """
    known = {node.name: node for node in nodes}
    previous = {f"{BEFORE}{number}": f"{AFTER}{number}" for number in range(count_states(nodes))}
    return frozenset(known) - _dependencies(known, [f"{AFTER}0"], previous)


def _dependencies(nodes: Mapping[str, Node], targets: list[str], previous: Mapping[str, str] | None = None) -> set[str]:
    """Return all nodes that the targets depend on; `previous` maps a state before the frame to its node in
    the previous frame."""
    reached: set[str] = set()
    remaining = list(targets)
    while remaining:
        name = remaining.pop()
        if name not in reached:
            reached.add(name)
            remaining += (
                nodes[name].inputs if name in nodes else [previous[name]] if previous and name in previous else []
            )
    return reached
