"""The architecture's weights over a search's epochs, as SVG: what share the softmax gives each operation of an edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.search.report.draw_cells import OPERATIONS
from affekt.search.report.graph_layout import monotone

# Lines that stand out on white and on black; of a family's two, the second is dashed.
LINES = {
    "none": ("#8b949e", "1 3"),
    "max_pool_3x3": ("#d97706", ""),
    "avg_pool_3x3": ("#d97706", "5 3"),
    "skip_connect": ("#e5484d", ""),
    "sep_conv_3x3": ("#2f7fe0", ""),
    "sep_conv_5x5": ("#2f7fe0", "5 3"),
    "dil_conv_3x3": ("#1fa37a", ""),
    "dil_conv_5x5": ("#1fa37a", "5 3"),
}
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 406.0, 220.0, 44.0, 108.0, 10.0, 26.0
PANEL, ROW, SPACE, HEAD = 118.0, 58.0, 10.0, 46.0  # of the panels of single edges
Shares = NDArray[np.float64]  # (epochs, edges, operations)


def shares_of(log: Sequence[Mapping[str, Any]], kind: str) -> Shares:
    """From a search's log: softmax over operations of the architecture's weights of one kind of cells."""
    alphas = np.array([line["alphas"][kind] for line in log], np.float64)
    raised = np.exp(alphas - alphas.max(axis=2, keepdims=True))
    return np.asarray(raised / raised.sum(axis=2, keepdims=True))


def draw_mean_shares(shares: Shares, title: str) -> str:
    """SVG: each operation's share, the mean over the edges, from epoch to epoch, with its name at the end of its line."""
    mean = shares.mean(axis=1)
    highest = _ceiling(float(mean.max()))
    inner = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [_open(WIDTH, HEIGHT, title), _axes(highest, len(mean))]
    names = _spread_labels(TOP + inner[1] * (1 - mean[-1] / highest))
    for number, name in enumerate(OPERATIONS):
        y = TOP + inner[1] * (1 - mean[:, number] / highest)
        end = LEFT + inner[0]
        parts.append(_line(_xs(len(mean), LEFT, inner[0]), y, name, 2.0))
        parts.append(
            f'<path d="M{end + 2:.0f} {y[-1]:.1f}L{end + 8:.0f} {names[number]:.1f}H{end + 18:.0f}" {_stroke(name, 1.5)}/>'
            f'<text x="{end + 22:.0f}" y="{names[number] + 3.5:.1f}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def draw_edges(shares: Shares, genes: Sequence[Sequence[Any]], title: str) -> str:
    """SVG: a panel for each edge, rows by target and columns by source. What the genotype keeps is framed and named."""
    nodes = len(genes) // 2
    highest = _ceiling(float(shares.max()))
    width, height = HEAD + (nodes + 1) * (PANEL + SPACE), 22.0 + nodes * (ROW + SPACE)
    parts = [_open(width, height, title)]
    sources = ["from c(k-2)", "c(k-1)", *(f"node {node}" for node in range(nodes - 1))]
    parts += [f'<text x="{HEAD + n * (PANEL + SPACE):.0f}" y="12">{name}</text>' for n, name in enumerate(sources)]
    edge = 0
    for node in range(nodes):
        top = 20.0 + node * (ROW + SPACE)
        parts.append(f'<text x="0" y="{top + ROW / 2 + 4:.0f}">to {node}</text>')
        kept = {source: name for name, source in genes[2 * node : 2 * node + 2]}
        for source in range(2 + node):
            left = HEAD + source * (PANEL + SPACE)
            parts.append(_panel(shares[:, edge], left, top, highest, kept.get(source, "")))
            edge += 1
    return "\n".join([*parts, "</svg>\n"])


def legend() -> str:
    """HTML: a sample of each operation's line."""
    return "".join(
        f'<span class="key"><svg width="26" height="8" aria-hidden="true"><path d="M0 4H26" {_stroke(name, 2.5)}/></svg>'
        f"{name}</span>"
        for name in OPERATIONS
    )


def _panel(shares: NDArray[np.float64], left: float, top: float, highest: float, kept: str) -> str:
    frame = 'stroke="currentColor" stroke-width="1.5"' if kept else 'stroke="currentColor" stroke-opacity="0.2"'
    parts = [f'<rect x="{left:.1f}" y="{top:.1f}" width="{PANEL:.0f}" height="{ROW:.0f}" rx="3" fill="none" {frame}/>']
    for number, name in enumerate(OPERATIONS):
        y = top + (ROW - 4) * (1 - shares[:, number] / highest) + 2
        parts.append(_line(_xs(len(shares), left + 3, PANEL - 6), y, name, 2.2 if name == kept else 1.2))
    if kept:
        parts.append(f'<text x="{left + 5:.0f}" y="{top + 13:.0f}" font-weight="600">{kept}</text>')
    return "".join(parts)


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
        f"<title>{escape(title)}</title>"
    )


def _axes(highest: float, epochs: int) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for share in (0.0, highest / 2, highest):
        y = TOP + (bottom - TOP) * (1 - share / highest)
        parts.append(f'<path d="M{LEFT:.0f} {y:.1f}H{right:.0f}" stroke="currentColor" stroke-opacity="0.15"/>')
        parts.append(f'<text x="{LEFT - 5:.0f}" y="{y + 3.5:.1f}" text-anchor="end">{100 * share:g} %</text>')
    parts.append(f'<text x="{LEFT:.0f}" y="{HEIGHT - 8:.0f}">epoch 1</text>')
    if epochs > 1:
        parts.append(f'<text x="{right:.0f}" y="{HEIGHT - 8:.0f}" text-anchor="end">{epochs}</text>')
    return "".join(parts)


def _ceiling(share: float) -> float:
    """The end of an axis: not less than twice an even share, so that a search at its beginning looks like one."""
    return next(end for end in (0.25, 0.4, 0.6, 0.8, 1.0) if share <= end or end == 1.0)


def _xs(count: int, left: float, width: float) -> list[float]:
    return [left + (width * n / (count - 1) if count > 1 else width / 2) for n in range(count)]


def _line(xs: Sequence[float], ys: NDArray[np.float64], name: str, width: float) -> str:
    points = [f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True)]
    path = f"M{points[0]}h3" if len(points) == 1 else f"M{'L'.join(points)}"
    return f'<path d="{path}" {_stroke(name, width)}/>'


def _stroke(name: str, width: float) -> str:
    colour, dashes = LINES[name]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"{dashed}'


def _spread_labels(wanted: NDArray[np.float64], apart: float = 13.0) -> list[float]:
    """Heights of the labels, each as near as possible to its line's end, none on another, all within the picture."""
    order = np.argsort(wanted, kind="stable")
    shifted = [float(wanted[index]) - apart * n for n, index in enumerate(order)]
    ceiling, floor = TOP, HEIGHT - BOTTOM + 10 - apart * (len(order) - 1)
    heights = [0.0] * len(order)
    for n, (index, y) in enumerate(zip(order, monotone(shifted), strict=True)):
        heights[index] = min(max(y, ceiling), max(floor, ceiling)) + apart * n
    return heights
