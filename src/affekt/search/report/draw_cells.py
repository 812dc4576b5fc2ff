"""Searched cells as pictures: genotypes as in EmotionNAS's Figure 3, recurrent cells as in its Figure 4 (Sun et al., arXiv
2203.13617 v1). They take plain mappings, as in JSON files and run folders, and need no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from affekt.search.report.graph_layout import Box, Picture, draw, stacked

# Candidate operations in the order of the architecture weights, colored by family; dark text is readable on them.
OPERATIONS = {
    "none": "#d5d8dc",
    "max_pool_3x3": "#f9c784",
    "avg_pool_3x3": "#fbe3b6",
    "skip_connect": "#f4a6a6",
    "sep_conv_3x3": "#a9cdf5",
    "sep_conv_5x5": "#d2e5fb",
    "dil_conv_3x3": "#9fdcc0",
    "dil_conv_5x5": "#d0efe0",
}
STATE, PLAIN = "#dcd6f7", "#ffffff"
AFTER = "h_new_"  # prefix of the states after a frame in a cell graph

RECURRENT = {
    "linear": ("linear", "#a9cdf5"),
    "blend": ("z\u00b7a + (1\u2212z)\u00b7b", "#d0efe0"),
    "elementwise_prod": ("\u00d7", "#ffffff"),
    "elementwise_sum": ("+", "#ffffff"),
    "activation_tanh": ("tanh", "#fbe3b6"),
    "activation_sigm": ("sigmoid", "#f9c784"),
    "activation_leaky_relu": ("leaky ReLU", "#f4a6a6"),
}
KINDS = {"normal": "normal cell", "reduce": "reduction cell"}


Graph = tuple[
    dict[str, Box], list[tuple[str, str]], list[str], list[str]
]  # boxes, edges, the first and the last of them


def draw_genotype(genotype: Mapping[str, Sequence[Sequence[Any]]]) -> str:
    """Return SVG of both kinds of cells, one below the other, from c_{k-2} and c_{k-1} over the nodes to c_k.

    Args:
        genotype: By kind, "normal" and "reduce", two (operation, source) pairs for each node in turn.
    """
    pictures = [picture(cell_graph(genotype[kind]), title) for kind, title in KINDS.items()]
    return stacked(pictures, "searched cells").svg


def draw_recurrent_cell(recipe: Mapping[str, Mapping[str, Any]]) -> str:
    """Return SVG of a recurrent cell, from the frame x and the states before it to the states after it.

    Args:
        recipe: The cell graph, node -> {"op": operation, "input": names}, as in `affekt.models.emotionnas.cell_graphs`.
    """
    return picture(recurrent_graph(recipe), "recurrent cell").svg


def picture(graph: Graph, title: str) -> Picture:
    """Draw a graph from `cell_graph` or `recurrent_graph`."""
    boxes, edges, first, last = graph
    return draw(boxes, edges, title, first, last)


def cell_graph(genes: Sequence[Sequence[Any]]) -> Graph:
    """Return the graph of a genotype's cell. Operations label edges; the layout treats the labels as nodes to place them."""
    inputs, nodes = ["c_{k-2}", "c_{k-1}"], [str(node) for node in range(len(genes) // 2)]
    boxes = {f"c_{{{k}}}": Box("c", k, fill=STATE, round=True) for k in ("k-2", "k-1", "k")}
    boxes |= {name: Box(name, fill=PLAIN, round=True) for name in nodes}
    edges: list[tuple[str, str]] = [(name, "c_{k}") for name in nodes]
    for place, (operation, source) in enumerate(genes):
        word = f"operation {place}"
        boxes[word] = Box(str(operation), fill=OPERATIONS.get(str(operation), PLAIN), tag=True)
        edges += [([*inputs, *nodes][source], word), (word, nodes[place // 2])]
    return boxes, edges, inputs, ["c_{k}"]


def recurrent_graph(recipe: Mapping[str, Mapping[str, Any]]) -> Graph:
    inputs = {name for entry in recipe.values() for name in entry["input"]} - set(recipe)
    first = sorted(inputs, key=lambda name: (name != "x", name))
    last = sorted(name for name in recipe if name.startswith(AFTER) and name.removeprefix(AFTER).isdigit())
    boxes = {name: Box(name, fill=STATE, round=True) for name in first}
    boxes |= {f"new {name}": Box(name, fill=STATE, round=True) for name in last}
    edges = [(name, f"new {name}") for name in last]
    for name, entry in recipe.items():
        text, fill = RECURRENT.get(entry["op"], (str(entry["op"]), PLAIN))
        boxes[name] = Box(text, fill=fill)
        for place, source in enumerate(entry["input"]):
            if entry["op"] != "blend":
                edges.append((source, name))
                continue
            letter = f"{place} of {name}"  # its inputs have different roles: z chooses between a and b
            boxes[letter] = Box("zab"[place], fill=fill, tag=True, round=True)
            edges += [(source, letter), (letter, name)]
    return boxes, edges, first, [f"new {name}" for name in last]
