"""Recipes drawn at random, as the benchmark drew its own (Klyuchnikov et al., "NAS-Bench-NLP", arXiv 2006.07116, section 3,
and the program published with it), and a name for each that two spellings of one cell share.

Facts are the benchmark's; where its paper is silent they are those of its program, and said so below.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from affekt.errors import BadConfig
from affekt.models.emotionnas.cell_graphs import AFTER, BEFORE, FRAME, INPUTS, CellGraph, Node, compiled, states

TRIES = 10_000  # by the published settings about one draft in six is a cell


@dataclass(frozen=True)
class DrawConfig:
    """The published settings. Weights are relative: an operation's share is its own by their sum."""

    states: int = 2
    nodes: int = 7  # besides as many as there are states
    operations: Mapping[str, float] = field(
        default_factory=lambda: {"linear": 3.0, "blend": 1.0, "elementwise_prod": 1.0, "elementwise_sum": 1.0}
    )
    activations: Mapping[str, float] = field(
        default_factory=lambda: {"activation_tanh": 1.0, "activation_sigm": 1.0, "activation_leaky_relu": 1.0}
    )
    linear_inputs: Mapping[int, float] = field(default_factory=lambda: {2: 4.0, 3: 1.0})

    def __post_init__(self) -> None:
        if self.states < 1 or self.nodes < 0:
            raise BadConfig(f"states = {self.states}, nodes = {self.nodes}: expected 1 or more states, 0 or more nodes")
        if not self.linear_inputs or min(self.linear_inputs) < 1:
            raise BadConfig(f"linear_inputs of {list(self.linear_inputs)}: expected numbers of inputs, 1 or more")
        activations = [name for name in INPUTS if name.startswith("activation_")]
        _check(self.activations, activations, "activations")
        _check(self.operations, [name for name in INPUTS if name not in activations], "operations")
        _check(self.linear_inputs, list(self.linear_inputs), "linear_inputs")


def _check(weights: Mapping[Any, float], known: Sequence[Any], name: str) -> None:
    for one, weight in weights.items():
        if one not in known:
            raise BadConfig(f"{name}: {one!r} is none of {', '.join(map(str, known))}")
        if not 0 <= weight < float("inf"):
            raise BadConfig(f"{name}: {one} weighs {weight}; expected 0 or more")
    if not sum(weights.values()) > 0:
        raise BadConfig(f"{name}: nothing weighs more than 0, so that nothing can be drawn")


def draw_cell_graph(generator: np.random.Generator, config: DrawConfig | None = None) -> CellGraph:
    """A recipe that `compiled` takes. The same generator gives the same recipe.

    Drafts are drawn until one uses the frame and every state before it, and has no new state that takes one of those
    directly. Raises `BadConfig` for settings by which none of very many drafts is a cell.
    """
    config = config or DrawConfig()
    for _ in range(TRIES):
        draft = _pruned(_with_states(_draft(generator, config), generator, config.states), config.states)
        if _in_order(draft, config.states):
            compiled(draft)
            return draft
    raise BadConfig(f"no cell among {TRIES} drafts by {config}; allow more nodes, or let more of them be linear")


def _draft(generator: np.random.Generator, config: DrawConfig) -> dict[str, dict[str, Any]]:
    """Nodes one by one until there are enough; what they take is drawn without repetition from what there is by then."""
    before = [f"{BEFORE}{state}" for state in range(config.states)]
    draft: dict[str, dict[str, Any]] = {}
    active: list[str] = []
    while len(draft) < config.states + config.nodes:
        operation = _drawn(generator, config.operations)
        if operation == "linear":
            # The program's: a linear node takes the frame, states and activations, not the raw values of other nodes.
            choice = [FRAME, *before, *active]
            count = min(int(_drawn(generator, config.linear_inputs)), len(choice))
            linear = _added(draft, operation, generator.choice(choice, count, replace=False).tolist())
            # Its activation comes at once, and may so be one node more than there should be, as in the program.
            active.append(_added(draft, _drawn(generator, config.activations), [linear]))
        else:
            choice, (count, _) = [*before, *draft], INPUTS[operation]
            if count <= len(choice):  # else another operation is drawn, as in the program
                _added(draft, operation, generator.choice(choice, count, replace=False).tolist())
    return draft


def _drawn(generator: np.random.Generator, weights: Mapping[Any, float]) -> Any:
    share = np.array(list(weights.values())) / sum(weights.values())
    return list(weights)[generator.choice(len(share), p=share)]


def _added(draft: dict[str, dict[str, Any]], operation: str, inputs: list[str]) -> str:
    name = f"node_{len(draft)}"
    draft[name] = {"op": operation, "input": inputs}
    return name


def _with_states(
    draft: dict[str, dict[str, Any]], generator: np.random.Generator, states: int
) -> dict[str, dict[str, Any]]:
    """Nodes drawn from all of them, raw linear ones too, are the new states (the program's)."""
    chosen = generator.choice(list(draft), states, replace=False).tolist()
    names = {name: f"{AFTER}{state}" for state, name in enumerate(chosen)}
    return {
        names.get(name, name): {"op": node["op"], "input": [names.get(one, one) for one in node["input"]]}
        for name, node in draft.items()
    }


def _pruned(draft: dict[str, dict[str, Any]], states: int) -> dict[str, dict[str, Any]]:
    """Without the nodes that no new state comes of."""
    left, used = [f"{AFTER}{state}" for state in range(states)], set()
    while left:
        name = left.pop()
        if name not in used:
            used.add(name)
            left += draft[name]["input"] if name in draft else []
    return {name: node for name, node in draft.items() if name in used}


def _in_order(draft: dict[str, dict[str, Any]], states: int) -> bool:
    before = {f"{BEFORE}{state}" for state in range(states)}
    taken = {name for node in draft.values() for name in node["input"]}
    direct = {name for state in range(states) for name in draft[f"{AFTER}{state}"]["input"]} & before
    return {FRAME, *before} <= taken and not direct


def fingerprint(recipe: str | CellGraph) -> str:
    """Eight hexadecimal digits, of SHA-256: the same for recipes that differ in the names of their inner nodes, in the
    order of entries, or in that of inputs where it makes no difference. States keep their numbers. Raises `BadConfig`."""
    nodes = compiled(recipe)
    count = states(nodes)
    given = {FRAME, *(f"{kind}{state}" for kind in (BEFORE, AFTER) for state in range(count))}
    uses: dict[str, list[str]] = {name: [node.name for node in nodes if name in node.inputs] for name in _names(nodes)}
    # A node is told apart by what it takes and by what takes it; from round to round this reaches one node further.
    known = {name: name if name in given else "" for name in {*given, *_names(nodes)}}
    for _ in nodes:
        described = {node.name: [known[node.name], node.operation, _taken(node, known)] for node in nodes}
        taking = {name: sorted(known[use] for use in uses[name]) for name in uses}
        known = {**known, **{name: _hash([*described[name], taking[name]]) for name in described}}
    return _hash(sorted(known[node.name] for node in nodes))[:8]


def _names(nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes]


def _taken(node: Node, known: Mapping[str, str]) -> list[str]:
    taken = [known[name] for name in node.inputs]
    return taken if node.operation == "blend" else sorted(taken)


def _hash(description: Any) -> str:
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()
