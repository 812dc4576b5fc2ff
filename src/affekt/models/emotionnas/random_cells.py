"""Random recurrent cells, sampled as in the benchmark (Klyuchnikov et al., "NAS-Bench-NLP", arXiv 2006.07116, section 3,
and the program published with it), and a fingerprint that is the same for equivalent cell graphs.

Where the paper does not state a rule, the published program's rule is used; comments mark these rules.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from affekt.errors import BadConfig
from affekt.models.emotionnas.cell_graphs import (
    AFTER,
    BEFORE,
    FRAME,
    INPUTS,
    CellGraph,
    Node,
    compile_cell_graph,
    count_states,
)

TRIES = 10_000  # with the published settings about one draft in six is a valid cell


@dataclass(frozen=True)
class RandomCellConfig:
    """The published settings of the random cells.

    Weights are relative: an operation's probability is its weight divided by their sum.
    """

    states: int = 2
    nodes: int = 7
    """Number of nodes in addition to one for each state."""
    operations: Mapping[str, float] = field(
        default_factory=lambda: {"linear": 3.0, "blend": 1.0, "elementwise_prod": 1.0, "elementwise_sum": 1.0}
    )
    activations: Mapping[str, float] = field(
        default_factory=lambda: {"activation_tanh": 1.0, "activation_sigm": 1.0, "activation_leaky_relu": 1.0}
    )
    linear_inputs: Mapping[int, float] = field(default_factory=lambda: {2: 4.0, 3: 1.0})
    """The weight of each number of inputs of a linear node."""

    def __post_init__(self) -> None:
        if self.states < 1 or self.nodes < 0:
            raise BadConfig(f"states = {self.states}, nodes = {self.nodes}: expected 1 or more states, 0 or more nodes")
        if not self.linear_inputs or min(self.linear_inputs) < 1:
            raise BadConfig(
                f"linear_inputs has the numbers {list(self.linear_inputs)}: expected numbers of inputs, 1 or more"
            )
        activations = [name for name in INPUTS if name.startswith("activation_")]
        _check(self.activations, activations, "activations")
        _check(self.operations, [name for name in INPUTS if name not in activations], "operations")
        _check(self.linear_inputs, list(self.linear_inputs), "linear_inputs")


def _check(weights: Mapping[Any, float], known: Sequence[Any], name: str) -> None:
    for key, weight in weights.items():
        if key not in known:
            raise BadConfig(f"{name}: unknown {key!r} (known: {', '.join(map(str, known))})")
        if not 0 <= weight < float("inf"):
            raise BadConfig(f"{name}: {key} has weight {weight}; expected 0 or more")
    if not sum(weights.values()) > 0:
        raise BadConfig(f"{name}: all weights are 0; expected at least one above 0")


def random_cell_graph(generator: np.random.Generator, config: RandomCellConfig | None = None) -> CellGraph:
    """Return a random cell graph. A generator in the same state gives the same graph.

    Drafts are sampled until one uses the frame and every previous state, and none of its new states takes a previous state
    directly.

    Raises:
        BadConfig: None of `TRIES` drafts with these settings is a valid cell.
    """
    config = config or RandomCellConfig()
    for _ in range(TRIES):
        draft = _prune(_choose_states(_draft(generator, config), generator, config.states), config.states)
        if _is_valid(draft, config.states):
            compile_cell_graph(draft)
            return draft
    raise BadConfig(
        f"none of {TRIES} drafts with {config} is a valid cell: allow more nodes, or give linear nodes more weight"
    )


def _draft(generator: np.random.Generator, config: RandomCellConfig) -> dict[str, dict[str, Any]]:
    """Add nodes until there are enough; inputs are sampled without repetition from the nodes that exist by then."""
    before = [f"{BEFORE}{state}" for state in range(config.states)]
    draft: dict[str, dict[str, Any]] = {}
    activated: list[str] = []
    while len(draft) < config.states + config.nodes:
        operation = _weighted_choice(generator, config.operations)
        if operation == "linear":
            # The program's rule: a linear node takes the frame, states and activations, not the raw values of other nodes.
            candidates = [FRAME, *before, *activated]
            count = min(int(_weighted_choice(generator, config.linear_inputs)), len(candidates))
            linear = _add_node(draft, operation, generator.choice(candidates, count, replace=False).tolist())
            # Its activation follows at once and may be one node too many, as in the program.
            activated.append(_add_node(draft, _weighted_choice(generator, config.activations), [linear]))
        else:
            candidates, (count, _) = [*before, *draft], INPUTS[operation]
            if count <= len(candidates):  # otherwise another operation is drawn, as in the program
                _add_node(draft, operation, generator.choice(candidates, count, replace=False).tolist())
    return draft


def _weighted_choice(generator: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    probabilities = np.array(list(weights.values())) / sum(weights.values())
    return list(weights)[generator.choice(len(probabilities), p=probabilities)]


def _add_node(draft: dict[str, dict[str, Any]], operation: str, inputs: list[str]) -> str:
    name = f"node_{len(draft)}"
    draft[name] = {"op": operation, "input": inputs}
    return name


def _choose_states(
    draft: dict[str, dict[str, Any]], generator: np.random.Generator, states: int
) -> dict[str, dict[str, Any]]:
    """Make random nodes the new states; raw linear nodes are allowed (the program's rule)."""
    chosen = generator.choice(list(draft), states, replace=False).tolist()
    names = {name: f"{AFTER}{state}" for state, name in enumerate(chosen)}
    return {
        names.get(name, name): {"op": node["op"], "input": [names.get(source, source) for source in node["input"]]}
        for name, node in draft.items()
    }


def _prune(draft: dict[str, dict[str, Any]], states: int) -> dict[str, dict[str, Any]]:
    """Remove nodes that no new state depends on."""
    remaining, used = [f"{AFTER}{state}" for state in range(states)], set()
    while remaining:
        name = remaining.pop()
        if name not in used:
            used.add(name)
            remaining += draft[name]["input"] if name in draft else []
    return {name: node for name, node in draft.items() if name in used}


def _is_valid(draft: dict[str, dict[str, Any]], states: int) -> bool:
    before = {f"{BEFORE}{state}" for state in range(states)}
    inputs = {name for node in draft.values() for name in node["input"]}
    direct = {name for state in range(states) for name in draft[f"{AFTER}{state}"]["input"]} & before
    return {FRAME, *before} <= inputs and not direct


def fingerprint(graph: str | CellGraph) -> str:
    """Return eight hexadecimal digits (SHA-256) that identify a cell.

    They are the same for cell graphs that differ only in the names of inner nodes, in the order of entries, or in the order
    of inputs to which the order makes no difference. States keep their numbers. Raises `BadConfig` for an invalid graph.
    """
    nodes = compile_cell_graph(graph)
    count = count_states(nodes)
    fixed = {FRAME, *(f"{kind}{state}" for kind in (BEFORE, AFTER) for state in range(count))}
    uses: dict[str, list[str]] = {name: [node.name for node in nodes if name in node.inputs] for name in _names(nodes)}
    # A node's label is a hash of its inputs and of the nodes that use it; each round includes nodes one edge further away.
    labels = {name: name if name in fixed else "" for name in {*fixed, *_names(nodes)}}
    for _ in nodes:
        described = {node.name: [labels[node.name], node.operation, _input_labels(node, labels)] for node in nodes}
        users = {name: sorted(labels[use] for use in uses[name]) for name in uses}
        labels = {**labels, **{name: _hash([*described[name], users[name]]) for name in described}}
    return _hash(sorted(labels[node.name] for node in nodes))[:8]


def _names(nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes]


def _input_labels(node: Node, labels: Mapping[str, str]) -> list[str]:
    input_labels = [labels[name] for name in node.inputs]
    return input_labels if node.operation == "blend" else sorted(input_labels)


def _hash(description: Any) -> str:
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()
