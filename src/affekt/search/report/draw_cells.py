"""Searched cells as drawings: genotypes as in EmotionNAS's Figure 3, recurrent cells as in its Figure 4 (Sun et al., arXiv
2203.13617 v1). The cells are given as plain mappings, as in JSON files and run folders; torch is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from affekt.search.report.graph_layout import Box, Picture, draw_layered, stack_pictures

# Box colors of the candidate operations, in the order of the architecture weights. Dark text is readable on all of them.
OPERATION_COLORS = {
    "none": "#d5d8dc",
    "max_pool_3x3": "#f9c784",
    "avg_pool_3x3": "#fbe3b6",
    "skip_connect": "#f4a6a6",
    "sep_conv_3x3": "#a9cdf5",
    "sep_conv_5x5": "#d2e5fb",
    "dil_conv_3x3": "#9fdcc0",
    "dil_conv_5x5": "#d0efe0",
}
STATE_COLOR, PLAIN_COLOR = "#dcd6f7", "#ffffff"
AFTER = "h_new_"  # prefix of the states after a frame in a cell graph

# Label and color of each operation of a recurrent cell.
RECURRENT_OPERATIONS = {
    "linear": ("linear", "#a9cdf5"),
    "blend": ("z\u00b7a + (1\u2212z)\u00b7b", "#d0efe0"),
    "elementwise_prod": ("\u00d7", "#ffffff"),
    "elementwise_sum": ("+", "#ffffff"),
    "activation_tanh": ("tanh", "#fbe3b6"),
    "activation_sigm": ("sigmoid", "#f9c784"),
    "activation_leaky_relu": ("leaky ReLU", "#f4a6a6"),
}
CELL_KINDS = {"normal": "normal cell", "reduce": "reduction cell"}


class LayeredGraph(NamedTuple):
    boxes: dict[str, Box]
    edges: list[tuple[str, str]]
    first: list[str]
    """Names of the boxes in the first layer, from the top."""
    last: list[str]
    """Names of the boxes in the last layer, from the top."""


def draw_genotype(genotype: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    """Return SVG of both kinds of cells, one below the other, from c_{k-2} and c_{k-1} through the nodes to c_k.

    Args:
        genotype: By kind, "normal" and "reduce", two (operation, source) pairs for each node in turn.
    """
    pictures = [draw_graph(genotype_graph(genotype[kind]), title) for kind, title in CELL_KINDS.items()]
    return stack_pictures(pictures, "searched cells").svg


def draw_recurrent_cell(cell_graph: Mapping[str, Mapping[str, Any]]) -> str:
    """Return SVG of a recurrent cell, from the frame x and the states before it to the states after it.

    Args:
        cell_graph: Node -> {"op": operation, "input": names}, as in `affekt.models.emotionnas.cell_graphs`.
    """
    return draw_graph(recurrent_graph(cell_graph), "recurrent cell").svg


def draw_graph(graph: LayeredGraph, title: str) -> Picture:
    """Draw a graph from `genotype_graph` or `recurrent_graph`."""
    boxes, edges, first, last = graph
    return draw_layered(boxes, edges, title, first, last)


def genotype_graph(genes: Sequence[Sequence[Any]]) -> LayeredGraph:
    """Return the graph of a genotype's cell. Operations label edges; the layout treats the labels as nodes to place them."""
    inputs, nodes = ["c_{k-2}", "c_{k-1}"], [str(node) for node in range(len(genes) // 2)]
    boxes = {f"c_{{{k}}}": Box("c", k, fill=STATE_COLOR, round=True) for k in ("k-2", "k-1", "k")}
    boxes |= {name: Box(name, fill=PLAIN_COLOR, round=True) for name in nodes}
    edges: list[tuple[str, str]] = [(name, "c_{k}") for name in nodes]
    for index, (operation, source) in enumerate(genes):
        label = f"operation {index}"
        boxes[label] = Box(str(operation), fill=OPERATION_COLORS.get(str(operation), PLAIN_COLOR), tag=True)
        edges += [([*inputs, *nodes][source], label), (label, nodes[index // 2])]
    return LayeredGraph(boxes, edges, inputs, ["c_{k}"])


def recurrent_graph(cell_graph: Mapping[str, Mapping[str, Any]]) -> LayeredGraph:
    """Return the graph of a recurrent cell. Each input of a blend gets a label, because the inputs have different roles: z
    chooses between a and b."""
    inputs = {name for entry in cell_graph.values() for name in entry["input"]} - set(cell_graph)
    first = sorted(inputs, key=lambda name: (name != "x", name))
    last = sorted(name for name in cell_graph if name.startswith(AFTER) and name.removeprefix(AFTER).isdigit())
    boxes = {name: Box(name, fill=STATE_COLOR, round=True) for name in first}
    boxes |= {f"new {name}": Box(name, fill=STATE_COLOR, round=True) for name in last}
    edges = [(name, f"new {name}") for name in last]
    for name, entry in cell_graph.items():
        text, fill = RECURRENT_OPERATIONS.get(entry["op"], (str(entry["op"]), PLAIN_COLOR))
        boxes[name] = Box(text, fill=fill)
        for index, source in enumerate(entry["input"]):
            if entry["op"] != "blend":
                edges.append((source, name))
                continue
            letter = f"{index} of {name}"
            boxes[letter] = Box("zab"[index], fill=fill, tag=True, round=True)
            edges += [(source, letter), (letter, name)]
    return LayeredGraph(boxes, edges, first, [f"new {name}" for name in last])
