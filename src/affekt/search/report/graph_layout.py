"""Drawings of directed graphs in layers from left to right (after Sugiyama et al., IEEE Transactions on Systems, Man, and
Cybernetics 1981).

Layers follow from the longest path. Sweeps that order each layer by the mean position of its neighbors reduce crossings. The
heights minimize the squared distance to the neighbors. An edge that crosses a layer has its own position in it, so that no
edge runs through a box or a label. A drawing is SVG text without scripts, styles or identifiers: it works inside a page or
alone, on a light or a dark background.

networkx's `multipartite_layout` is no replacement: it neither reduces crossings nor routes edges around nodes. In its drawing
of a found cell, four edges to the output ran through labels of other nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

# Lengths are in pixels.
BOX_HEIGHT = 30.0
MARGIN = 12.0  # around the drawing
BOX_DISTANCE = 16.0  # between two boxes of a layer
LINE_DISTANCE = 10.0  # between an edge that crosses a layer and its neighbors there
LAYER_GAP = 40.0  # between two layers, where edges turn
LETTER_WIDTH = 7.6  # upper limit of the average width of a letter, at a font size of 13
LINE_COLOR = "#7f8792"  # of edges and frames; equally visible on white and on black
NUM_SWEEPS = 24


@dataclass(frozen=True)
class Box:
    """The box of a node, or the label of an edge."""

    text: str
    sub: str = ""
    """A subscript after the text."""
    fill: str = "#e8eaed"
    text_color: str = "#1b1f24"
    tag: bool = False
    """True for the label of an edge, which is lower and has no frame."""
    round: bool = False

    @property
    def width(self) -> float:
        return max(
            LETTER_WIDTH * len(self.text) + 6.0 * len(self.sub) + (14.0 if self.tag else 20.0),
            22.0 if self.tag else 38.0,
        )

    @property
    def height(self) -> float:
        return BOX_HEIGHT - 8.0 if self.tag else BOX_HEIGHT


@dataclass
class GraphLayout:
    """The positions of all boxes, and of the edges in the layers that they cross, by name."""

    layers: list[list[str]]
    """The names in each layer, from the top."""
    boxes: dict[str, Box | None]
    """None for an edge that crosses the layer."""
    links: list[tuple[str, str]]
    """The parts of the edges between neighboring layers."""
    chains: list[list[str]]
    """For each edge its source, its names in the layers that it crosses, and its target."""
    x: dict[str, float] = field(default_factory=dict)
    """The left side."""
    y: dict[str, float] = field(default_factory=dict)
    """The vertical center."""
    widths: list[float] = field(default_factory=list)
    """The width of each layer."""

    def width_of(self, name: str) -> float:
        box = self.boxes[name]
        return 0.0 if box is None else box.width

    def height_of(self, name: str) -> float:
        box = self.boxes[name]
        return 0.0 if box is None else box.height


@dataclass(frozen=True)
class Picture:
    width: float
    height: float
    title: str
    body: str

    @property
    def svg(self) -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:.0f} {self.height:.0f}" '
            f'width="{self.width:.0f}" height="{self.height:.0f}" role="img" font-family="system-ui, sans-serif" '
            f'font-size="13">\n<title>{escape(self.title)}</title>\n{self.body}\n</svg>\n'
        )


def stack_pictures(pictures: Sequence[Picture], title: str) -> Picture:
    """Put the pictures below one another, each under its title."""
    parts, top = [], 0.0
    for picture in pictures:
        parts.append(
            f'<text x="{MARGIN}" y="{top + 20:.0f}" fill="{LINE_COLOR}" font-weight="bold">{escape(picture.title)}</text>'
        )
        parts.append(f'<g transform="translate(0 {top + 24:.0f})">\n{picture.body}\n</g>')
        top += picture.height + 32.0
    return Picture(max(picture.width for picture in pictures), top, title, "\n".join(parts))


def draw_layered(
    boxes: Mapping[str, Box],
    edges: Sequence[tuple[str, str]],
    title: str,
    first: Sequence[str] = (),
    last: Sequence[str] = (),
) -> Picture:
    """Draw an acyclic graph.

    Args:
        boxes: Nodes by name.
        edges: Pairs of names, source and target.
        title: The title of the drawing, for screen readers.
        first: Names of the nodes in the first layer, from the top.
        last: Names of the nodes in the last layer, from the top.
    """
    layout = lay_out(boxes, edges, first, last)
    width = max(layout.x[name] + layout.width_of(name) for name in layout.boxes) + MARGIN
    height = max(layout.y[name] + layout.height_of(name) / 2 for name in layout.boxes) + MARGIN
    box_svgs = [_box_svg(box, layout.x[name], layout.y[name]) for name, box in layout.boxes.items() if box is not None]
    return Picture(width, height, title, "\n".join([*(_edge_svg(layout, chain) for chain in layout.chains), *box_svgs]))


def lay_out(
    boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]], first: Sequence[str], last: Sequence[str]
) -> GraphLayout:
    """Return the positions for a drawing; the arguments are those of `draw_layered`."""
    layer_of = _assign_layers(boxes, edges, first, last)
    layout = _route_edges(boxes, edges, layer_of)
    _order_layers(layout, [*first, *last])
    _set_positions(layout)
    return layout


def _assign_layers(
    boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]], first: Sequence[str], last: Sequence[str]
) -> dict[str, int]:
    """Return the layer of each box: first by the longest path to it, then moved as close as possible to its successors."""
    layer = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for source, target in edges:
            layer[target] = max(layer[target], layer[source] + 1)
    end = max(layer.values(), default=0)
    # The last layer contains no other boxes than `last`.
    end += any(layer[name] == end for name in boxes if name not in last) and bool(last)
    layer.update(dict.fromkeys(last, end))
    for _ in boxes:
        for name in boxes:
            following = [layer[target] for source, target in edges if source == name]
            if following and name not in first:
                layer[name] = min(following) - 1
    return layer


def _route_edges(
    boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]], layer_of: Mapping[str, int]
) -> GraphLayout:
    """Return a layout in which each edge has a name and a position in the layers that it crosses."""
    layers: list[list[str]] = [[] for _ in range(max(layer_of.values()) + 1)]
    for name in boxes:
        layers[layer_of[name]].append(name)
    layout = GraphLayout(layers, dict(boxes), [], [])
    for number, (source, target) in enumerate(edges):
        chain = [source]
        for layer in range(layer_of[source] + 1, layer_of[target]):
            name = f"{number} passes {layer}"
            layout.boxes[name] = None
            layers[layer].append(name)
            chain.append(name)
        chain.append(target)
        layout.chains.append(chain)
        layout.links += list(itertools.pairwise(chain))
    return layout


def _order_layers(layout: GraphLayout, fixed: Sequence[str]) -> None:
    """Order each layer by the mean position of its neighbors, in sweeps; keep the order with the fewest crossings."""
    before, after = _neighbors(layout.links)
    best, fewest = [list(layer) for layer in layout.layers], _count_crossings(layout.layers, layout.links)
    for sweep in range(NUM_SWEEPS):
        forward = sweep % 2 == 0
        for layer in layout.layers if forward else reversed(layout.layers):
            rank = {name: index for names in layout.layers for index, name in enumerate(names)}
            neighbors = before if forward else after
            mean_rank = {name: _mean([rank[other] for other in neighbors.get(name, [])], rank[name]) for name in layer}
            layer.sort(key=lambda name: mean_rank[name])
            _keep_order(layer, fixed)
        _swap_neighbors(layout, fixed)
        if (crossings := _count_crossings(layout.layers, layout.links)) < fewest:
            best, fewest = [list(layer) for layer in layout.layers], crossings
    layout.layers[:] = best


def _neighbors(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the names before and after each name."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for source, target in links:
        after.setdefault(source, []).append(target)
        before.setdefault(target, []).append(source)
    return before, after


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _keep_order(layer: list[str], fixed: Sequence[str]) -> None:
    """Put the fixed names of a layer into their given order, in the positions that they occupy; other names do not move."""
    indices = [index for index, name in enumerate(layer) if name in fixed]
    for index, name in zip(indices, [name for name in fixed if name in layer], strict=True):
        layer[index] = name


def _swap_neighbors(layout: GraphLayout, fixed: Sequence[str]) -> None:
    """Swap two neighbors in a layer wherever that reduces the number of crossings."""
    for layer in layout.layers:
        for n in range(len(layer) - 1):
            if layer[n] in fixed and layer[n + 1] in fixed:
                continue
            crossings = _count_crossings(layout.layers, layout.links)
            layer[n], layer[n + 1] = layer[n + 1], layer[n]
            if _count_crossings(layout.layers, layout.links) >= crossings:
                layer[n], layer[n + 1] = layer[n + 1], layer[n]


def _count_crossings(layers: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    position = {name: (layer, index) for layer, names in enumerate(layers) for index, name in enumerate(names)}
    # By layer, the indices at which its links to the next layer begin and end.
    ends_by_layer: dict[int, list[tuple[int, int]]] = {}
    for source, target in links:
        layer, start = position[source]
        ends_by_layer.setdefault(layer, []).append((start, position[target][1]))
    return sum(
        (start - other_start) * (end - other_end) < 0
        for ends in ends_by_layer.values()
        for index, (start, end) in enumerate(ends)
        for other_start, other_end in ends[:index]
    )


def _set_positions(layout: GraphLayout) -> None:
    """Put layers side by side, and within a layer each box as close as possible to the mean of its neighbors."""
    left = MARGIN
    for layer in layout.layers:
        width = max(map(layout.width_of, layer))
        layout.widths.append(width)
        layout.x.update({name: left + (width - layout.width_of(name)) / 2 for name in layer})
        left += width + LAYER_GAP
    before, after = _neighbors(layout.links)
    for layer in layout.layers:
        layout.y.update(zip(layer, _spread_heights(layout, layer, [0.0] * len(layer)), strict=True))
    for sweep in range(NUM_SWEEPS):
        for layer in layout.layers if sweep % 2 == 0 else reversed(layout.layers):
            wanted = [
                _mean([layout.y[other] for other in before.get(name, []) + after.get(name, [])], layout.y[name])
                for name in layer
            ]
            layout.y.update(zip(layer, _spread_heights(layout, layer, wanted), strict=True))
    top = min(layout.y[name] - layout.height_of(name) / 2 for name in layout.boxes)
    layout.y = {name: y - top + MARGIN for name, y in layout.y.items()}


def _spread_heights(layout: GraphLayout, layer: Sequence[str], wanted: Sequence[float]) -> list[float]:
    """Return the heights closest to the wanted ones, in least squares, that keep the order and the least distances."""
    offsets = [0.0]
    for name, following in itertools.pairwise(layer):
        both_boxes = layout.boxes[name] is not None and layout.boxes[following] is not None
        space = BOX_DISTANCE if both_boxes else LINE_DISTANCE
        offsets.append(offsets[-1] + (layout.height_of(name) + layout.height_of(following)) / 2 + space)
    shifted = monotone([y - offset for y, offset in zip(wanted, offsets, strict=True)])
    return [y + offset for y, offset in zip(shifted, offsets, strict=True)]


def monotone(values: Sequence[float]) -> list[float]:
    """Return the closest non-decreasing sequence in least squares (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pool = (value, 1)
        while pools and pools[-1][0] / pools[-1][1] > pool[0] / pool[1]:
            total, count = pools.pop()
            pool = (pool[0] + total, pool[1] + count)
        pools.append(pool)
    return [total / count for total, count in pools for _ in range(count)]


def _edge_svg(layout: GraphLayout, chain: Sequence[str]) -> str:
    """Return a line that is horizontal within layers and turns between them, with an arrow head if it ends at a box."""
    layer_of = {name: n for n, layer in enumerate(layout.layers) for name in layer}
    sides = [MARGIN + sum(layout.widths[:n]) + n * LAYER_GAP for n in range(len(layout.layers))]
    source, target = chain[0], chain[-1]
    x, y = layout.x[source] + layout.width_of(source), layout.y[source]
    path = [f"M{x:.1f} {y:.1f}"]
    for name in chain[1:]:
        column = layer_of[name]
        previous = sides[column - 1] + layout.widths[column - 1]
        start, end, goal = max(x, previous), sides[column], layout.y[name]
        turn = (start + end) / 2
        path.append(f"H{start:.1f}C{turn:.1f} {y:.1f} {turn:.1f} {goal:.1f} {end:.1f} {goal:.1f}")
        x, y = end, goal
    box = layout.boxes[target]
    tip = layout.x[target]
    arrow = box is not None and not box.tag
    path.append(f"H{tip - (5.0 if arrow else 0.0):.1f}")
    line = f'<path d="{"".join(path)}" fill="none" stroke="{LINE_COLOR}" stroke-width="1.5"/>'
    head = f'<path d="M{tip:.1f} {y:.1f}l-8 -4v8z" fill="{LINE_COLOR}"/>' if arrow else ""
    return line + head


def _box_svg(box: Box, x: float, y: float) -> str:
    frame = "" if box.tag else f' stroke="{LINE_COLOR}" stroke-width="1"'
    corner = box.height / 2 if box.round else 4.0
    lower = f'<tspan dy="4" font-size="10">{escape(box.sub)}</tspan>' if box.sub else ""
    return (
        f'<rect x="{x:.1f}" y="{y - box.height / 2:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{corner:.0f}" fill="{box.fill}"{frame}/>'
        f'<text x="{x + box.width / 2:.1f}" y="{y + 4.5:.1f}" text-anchor="middle" fill="{box.text_color}">{escape(box.text)}'
        f"{lower}</text>"
    )
