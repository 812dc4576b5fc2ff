"""Directed graphs drawn in layers from left to right (after Sugiyama et al., IEEE Transactions on Systems, Man, and
Cybernetics 1981): layers by the longest path, fewer crossings by medians, straight lines by least squares.

An edge that crosses a layer takes a position of its own in it, so that no edge runs through a box or a label. The picture is
SVG text without scripts, styles or identifiers: it works inside a page or alone, on a light or a dark background.

networkx's layers with `multipartite_layout` were tried instead. They neither reduce crossings nor route edges around nodes:
of a found cell's edges to the output, four ran through the labels of other nodes. So the layout stays here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

HEIGHT, MARGIN = 30.0, 12.0  # of a box, in pixels; around the picture
APART, BESIDE = 16.0, 7.0  # between two boxes of a layer; between an edge that passes and anything
GAP = 40.0  # between two layers, where edges turn
LETTER = 7.6  # how wide a letter of 13 pixels is at most, on average
LINE = "#7f8792"  # of edges: as visible on white as on black
SWEEPS = 24


@dataclass(frozen=True)
class Box:
    """A node as drawn; `sub` is a subscript after its text. A tag is the label of an edge: lower, without a frame."""

    text: str
    sub: str = ""
    fill: str = "#e8eaed"
    ink: str = "#1b1f24"
    tag: bool = False
    round: bool = False

    @property
    def width(self) -> float:
        return max(
            LETTER * len(self.text) + 6.0 * len(self.sub) + (14.0 if self.tag else 20.0), 22.0 if self.tag else 38.0
        )

    @property
    def height(self) -> float:
        return HEIGHT - 8.0 if self.tag else HEIGHT


@dataclass
class Layout:
    """The positions of all boxes by name, and each edge as the names that it passes."""

    layers: list[list[str]]
    boxes: dict[str, Box | None]  # None: an edge that crosses the layer
    links: list[tuple[str, str]]  # between neighboring layers
    chains: list[list[str]]  # each edge, from box to box
    x: dict[str, float] = field(default_factory=dict)  # the left side
    y: dict[str, float] = field(default_factory=dict)  # the middle
    widths: list[float] = field(default_factory=list)  # of the layers

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


def stacked(pictures: Sequence[Picture], title: str) -> Picture:
    """Put the pictures below one another, each under its title."""
    parts, top = [], 0.0
    for picture in pictures:
        parts.append(
            f'<text x="{MARGIN}" y="{top + 20:.0f}" fill="{LINE}" font-weight="bold">{escape(picture.title)}</text>'
        )
        parts.append(f'<g transform="translate(0 {top + 24:.0f})">\n{picture.body}\n</g>')
        top += picture.height + 32.0
    return Picture(max(picture.width for picture in pictures), top, title, "\n".join(parts))


def draw(
    boxes: Mapping[str, Box],
    edges: Sequence[tuple[str, str]],
    title: str,
    first: Sequence[str] = (),
    last: Sequence[str] = (),
) -> Picture:
    """Draw an acyclic graph, with `first` in the first layer and `last` in the last, in this order from the top."""
    layout = lay_out(boxes, edges, first, last)
    width = max(layout.x[name] + layout.width_of(name) for name in layout.boxes) + MARGIN
    height = max(layout.y[name] + layout.height_of(name) / 2 for name in layout.boxes) + MARGIN
    drawn = [_box(box, layout.x[name], layout.y[name]) for name, box in layout.boxes.items() if box is not None]
    return Picture(width, height, title, "\n".join([*(_edge(layout, chain) for chain in layout.chains), *drawn]))


def lay_out(
    boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]], first: Sequence[str], last: Sequence[str]
) -> Layout:
    layer_of = _layers(boxes, edges, first, last)
    layout = _with_passing_edges(boxes, edges, layer_of)
    _order(layout, [*first, *last])
    _place(layout)
    return layout


def _layers(
    boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]], first: Sequence[str], last: Sequence[str]
) -> dict[str, int]:
    """Put each box into the layer of its longest path, then move it as close as possible to its successors."""
    layer = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for source, target in edges:
            layer[target] = max(layer[target], layer[source] + 1)
    end = max(layer.values(), default=0)
    end += any(layer[name] == end for name in boxes if name not in last) and bool(last)
    layer.update(dict.fromkeys(last, end))
    for _ in boxes:
        for name in boxes:
            following = [layer[target] for source, target in edges if source == name]
            if following and name not in first:
                layer[name] = min(following) - 1
    return layer


def _with_passing_edges(
    boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]], layer_of: Mapping[str, int]
) -> Layout:
    layers: list[list[str]] = [[] for _ in range(max(layer_of.values()) + 1)]
    for name in boxes:
        layers[layer_of[name]].append(name)
    layout = Layout(layers, dict(boxes), [], [])
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


def _order(layout: Layout, fixed: Sequence[str]) -> None:
    """Order each layer by the mean position of its neighbors, in sweeps; keep the order with the fewest crossings."""
    before, after = _neighbors(layout.links)
    best, fewest = [list(layer) for layer in layout.layers], _crossings(layout.layers, layout.links)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for layer in layout.layers if forward else reversed(layout.layers):
            place = {name: n for one in layout.layers for n, name in enumerate(one)}
            near = before if forward else after
            middle = {name: _mean([place[one] for one in near.get(name, [])], place[name]) for name in layer}
            layer.sort(key=lambda name: middle[name])
            _keep_order(layer, fixed)
        _swap(layout, fixed)
        if (crossings := _crossings(layout.layers, layout.links)) < fewest:
            best, fewest = [list(layer) for layer in layout.layers], crossings
    layout.layers[:] = best


def _neighbors(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for source, target in links:
        after.setdefault(source, []).append(target)
        before.setdefault(target, []).append(source)
    return before, after


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _keep_order(layer: list[str], fixed: Sequence[str]) -> None:
    """Restore the given order of the fixed names, within the positions that they have."""
    places = [n for n, name in enumerate(layer) if name in fixed]
    for place, name in zip(places, [name for name in fixed if name in layer], strict=True):
        layer[place] = name


def _swap(layout: Layout, fixed: Sequence[str]) -> None:
    """Swap neighbors if that reduces the crossings."""
    for layer in layout.layers:
        for n in range(len(layer) - 1):
            if layer[n] in fixed and layer[n + 1] in fixed:
                continue
            crossings = _crossings(layout.layers, layout.links)
            layer[n], layer[n + 1] = layer[n + 1], layer[n]
            if _crossings(layout.layers, layout.links) >= crossings:
                layer[n], layer[n + 1] = layer[n + 1], layer[n]


def _crossings(layers: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    place = {name: (number, n) for number, layer in enumerate(layers) for n, name in enumerate(layer)}
    between: dict[int, list[tuple[int, int]]] = {}
    for source, target in links:
        between.setdefault(place[source][0], []).append((place[source][1], place[target][1]))
    return sum((a - c) * (b - d) < 0 for ends in between.values() for n, (a, b) in enumerate(ends) for c, d in ends[:n])


def _place(layout: Layout) -> None:
    """Put layers side by side, and within a layer each box as close as possible to the mean of its neighbors."""
    left = MARGIN
    for layer in layout.layers:
        width = max(map(layout.width_of, layer))
        layout.widths.append(width)
        layout.x.update({name: left + (width - layout.width_of(name)) / 2 for name in layer})
        left += width + GAP
    before, after = _neighbors(layout.links)
    for layer in layout.layers:
        layout.y.update(zip(layer, _apart(layout, layer, [0.0] * len(layer)), strict=True))
    for sweep in range(SWEEPS):
        for layer in layout.layers if sweep % 2 == 0 else reversed(layout.layers):
            wanted = [
                _mean([layout.y[one] for one in before.get(name, []) + after.get(name, [])], layout.y[name])
                for name in layer
            ]
            layout.y.update(zip(layer, _apart(layout, layer, wanted), strict=True))
    top = min(layout.y[name] - layout.height_of(name) / 2 for name in layout.boxes)
    layout.y = {name: y - top + MARGIN for name, y in layout.y.items()}


def _apart(layout: Layout, layer: Sequence[str], wanted: Sequence[float]) -> list[float]:
    """Return the heights closest to the wanted ones, in least squares, that keep the order and the distances."""
    offsets = [0.0]
    for name, following in itertools.pairwise(layer):
        both = layout.boxes[name] is not None and layout.boxes[following] is not None
        space = APART if both else BESIDE + 3.0
        offsets.append(offsets[-1] + (layout.height_of(name) + layout.height_of(following)) / 2 + space)
    rising = monotone([y - offset for y, offset in zip(wanted, offsets, strict=True)])
    return [y + offset for y, offset in zip(rising, offsets, strict=True)]


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


def _edge(layout: Layout, chain: Sequence[str]) -> str:
    """Draw a line that is level within layers and turns between them, with an arrow at a box."""
    layer_of = {name: n for n, layer in enumerate(layout.layers) for name in layer}
    sides = [MARGIN + sum(layout.widths[:n]) + n * GAP for n in range(len(layout.layers))]
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
    line = f'<path d="{"".join(path)}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'
    head = f'<path d="M{tip:.1f} {y:.1f}l-8 -4v8z" fill="{LINE}"/>' if arrow else ""
    return line + head


def _box(box: Box, x: float, y: float) -> str:
    frame = "" if box.tag else f' stroke="{LINE}" stroke-width="1"'
    corner = box.height / 2 if box.round else 4.0
    lower = f'<tspan dy="4" font-size="10">{escape(box.sub)}</tspan>' if box.sub else ""
    return (
        f'<rect x="{x:.1f}" y="{y - box.height / 2:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" '
        f'rx="{corner:.0f}" fill="{box.fill}"{frame}/>'
        f'<text x="{x + box.width / 2:.1f}" y="{y + 4.5:.1f}" text-anchor="middle" fill="{box.ink}">{escape(box.text)}'
        f"{lower}</text>"
    )
