"""Line plots of the architecture weights by epoch, as SVG: the softmax weight of each operation on an edge."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.extras import need
from affekt.search.report.draw_cells import OPERATION_COLORS
from affekt.search.report.graph_layout import monotone

# Color and dash pattern of each operation, visible on white and on black. Of two related operations the second is dashed.
LINES: dict[str, tuple[str, tuple[int, ...]]] = {
    "none": ("#8b949e", (1, 3)),
    "max_pool_3x3": ("#d97706", ()),
    "avg_pool_3x3": ("#d97706", (5, 3)),
    "skip_connect": ("#e5484d", ()),
    "sep_conv_3x3": ("#2f7fe0", ()),
    "sep_conv_5x5": ("#2f7fe0", (5, 3)),
    "dil_conv_3x3": ("#1fa37a", ()),
    "dil_conv_5x5": ("#1fa37a", (5, 3)),
}
# In pixels: size and margins of the plot of mean weights, then the panels of single edges.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 412.0, 220.0, 50.0, 108.0, 10.0, 26.0
PANEL_WIDTH, PANEL_HEIGHT, PANEL_GAP, ROW_LABEL_WIDTH = 118.0, 58.0, 10.0, 46.0
TEXT_COLOR = "#010203"
"""A placeholder that `_svg` replaces by `currentColor`, which matplotlib does not support: with it, text and axes follow the
page's light or dark mode."""
SETTINGS: Any = {
    "svg.fonttype": "none",  # text is not converted to paths
    "svg.hashsalt": "affekt",  # the same weights always give the same SVG
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": TEXT_COLOR,
    "xtick.color": TEXT_COLOR,
    "ytick.color": TEXT_COLOR,
    "axes.edgecolor": TEXT_COLOR,
    "axes.facecolor": "none",
}
Weights = NDArray[np.float64]  # (epochs, edges, operations)


def softmax_weights(log: Sequence[Mapping[str, Any]], kind: str) -> Weights:
    """Return the softmax weights of the operations after each epoch in a search's log, for one kind of cell."""
    alphas = np.array([line["alphas"][kind] for line in log], np.float64)
    exponentials = np.exp(alphas - alphas.max(axis=2, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=2, keepdims=True))


def draw_mean_weights(weights: Weights, title: str) -> str:
    """Return SVG of each operation's weight by epoch, as the mean over the edges. Each line has its label at the end."""
    mean = weights.mean(axis=1)
    highest, epochs = _axis_end(float(mean.max())), len(mean)
    with _figure(WIDTH, HEIGHT) as figure:
        axes = _axes(figure, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, epochs, highest)
        ticks = [0.0, highest / 2, highest]
        axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
        axes.set_xticks([1, epochs] if epochs > 1 else [1], ["epoch 1", str(epochs)][: min(epochs, 2)])
        axes.tick_params(left=False, bottom=False)
        axes.grid(axis="y", color=TEXT_COLOR, alpha=0.15)
        axes.spines[:].set_visible(False)
        height = HEIGHT - TOP - BOTTOM
        labels = _spread_labels(TOP + height * (1 - mean[-1] / highest))
        for name, line, y in zip(OPERATION_COLORS, mean.T, labels, strict=True):
            _plot(axes, line, name, 2.0)
            # A thin line leads from the end of the curve to its label.
            end = (TOP + height - y) / height * highest
            color, right = LINES[name][0], WIDTH - LEFT - RIGHT
            to_label = {"color": color, "linewidth": 1.2, "clip_on": False, "transform": axes.transData}
            unit = (max(epochs, 2) - 1) / right  # of the x axis, for one pixel
            last = max(epochs, 1)
            axes.plot([last + 2 * unit, last + 8 * unit, last + 18 * unit], [line[-1], end, end], **to_label)
            axes.text(last + 22 * unit, end, name, va="center_baseline")
        return _svg(figure, title)


def draw_edges(weights: Weights, genes: Sequence[Sequence[Any]], title: str) -> str:
    """Return SVG with a panel for each edge, rows by target and columns by source.

    The edges of the genotype have a frame and the name of their operation.
    """
    num_nodes = len(genes) // 2
    highest = _axis_end(float(weights.max()))
    width, height = (
        ROW_LABEL_WIDTH + (num_nodes + 1) * (PANEL_WIDTH + PANEL_GAP),
        22.0 + num_nodes * (PANEL_HEIGHT + PANEL_GAP),
    )
    with _figure(width, height) as figure:
        for column, name in enumerate(["from c(k-2)", "c(k-1)", *(f"node {node}" for node in range(num_nodes - 1))]):
            figure.text((ROW_LABEL_WIDTH + column * (PANEL_WIDTH + PANEL_GAP)) / width, 1 - 12 / height, name)
        edge = 0
        for node in range(num_nodes):
            top = 20.0 + node * (PANEL_HEIGHT + PANEL_GAP)
            figure.text(0, 1 - (top + PANEL_HEIGHT / 2 + 4) / height, f"to {node}")
            chosen = {source: name for name, source in genes[2 * node : 2 * node + 2]}
            for source in range(2 + node):
                left = ROW_LABEL_WIDTH + source * (PANEL_WIDTH + PANEL_GAP)
                panel = _axes(figure, left, top, PANEL_WIDTH, PANEL_HEIGHT, len(weights), highest)
                _draw_panel(panel, weights[:, edge], chosen.get(source, ""))
                edge += 1
        return _svg(figure, title)


def legend() -> str:
    """Return a legend as HTML, with a sample of each operation's line."""
    return "".join(
        f'<span class="key"><svg width="26" height="8" aria-hidden="true"><path d="M0 4H26" fill="none" stroke="{color}" '
        f'stroke-width="2.5" stroke-dasharray="{" ".join(map(str, dashes)) or "none"}"/></svg>{name}</span>'
        for name, (color, dashes) in LINES.items()
    )


def _draw_panel(panel: Any, weights: NDArray[np.float64], chosen: str) -> None:
    """Draw the weights of an edge. `chosen` is its operation in the genotype, or "" if the edge is not in it."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.spines[:].set(linewidth=1.5 if chosen else 1.0, alpha=1.0 if chosen else 0.2)
    for name, line in zip(OPERATION_COLORS, weights.T, strict=True):
        _plot(panel, line, name, 2.2 if name == chosen else 1.2)
    if chosen:
        panel.text(0.04, 0.76, chosen, transform=panel.transAxes, fontweight="bold")


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """Provide an empty figure of this size in pixels, with the settings above."""
    matplotlib = need("matplotlib", extra="train", purpose="drawing architecture weights")
    figures = need("matplotlib.figure", extra="train", purpose="drawing architecture weights")
    with matplotlib.rc_context(SETTINGS):
        yield figures.Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def _axes(figure: Any, left: float, top: float, width: float, height: float, epochs: int, highest: float) -> Any:
    figure_width, figure_height = 72 * figure.get_size_inches()
    axes = figure.add_axes(
        (left / figure_width, 1 - (top + height) / figure_height, width / figure_width, height / figure_height)
    )
    axes.set(xlim=(1, max(epochs, 2)), ylim=(0, highest))
    return axes


def _plot(axes: Any, line: NDArray[np.float64], name: str, width: float) -> None:
    color, dashes = LINES[name]
    # A single epoch is drawn as a short dash.
    xs, ys = (np.arange(1, len(line) + 1), line) if len(line) > 1 else ([1, 1.03], [line[0], line[0]])
    style: Any = (0, tuple(dash / width for dash in dashes)) if dashes else "-"
    axes.plot(xs, ys, color=color, linewidth=width, linestyle=style, clip_on=False)


def _svg(figure: Any, title: str) -> str:
    """Return the figure as SVG for use inside a page: without header, identifiers and style sheet."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"]))
    svg = text.getvalue()
    svg = re.sub(
        r"<metadata>.*?</metadata>|<style.*?</style>|<clipPath.*?</clipPath>|<!--.*?-->", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r' clip-path="[^"]*"|(?<=[ "])font-family: [^;]*; ', "", svg)
    svg = (
        re.sub(r' (id|xmlns:xlink)="[^"]*"', "", svg)
        .replace("<defs>", "")
        .replace("</defs>", "")
        .replace("<defs/>", "")
    )
    svg = svg[svg.index("<svg") :].replace(TEXT_COLOR, "currentColor")
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg, count=2)
    return svg.replace(">", f' role="img" font-family="system-ui, sans-serif"><title>{escape(title)}</title>', 1)


def _axis_end(weight: float) -> float:
    """Return the upper end of the axis.

    It is at least twice 1 / 8, the weight of equal operations, so that small differences look small.
    """
    return next(end for end in (0.25, 0.4, 0.6, 0.8, 1.0) if weight <= end or end == 1.0)


def _spread_labels(wanted: NDArray[np.float64], distance: float = 13.0) -> list[float]:
    """Return heights for the labels that are as close as possible to the ends of their lines, without overlap."""
    order = np.argsort(wanted, kind="stable")
    shifted = [float(wanted[index]) - distance * rank for rank, index in enumerate(order)]
    ceiling, floor = TOP, HEIGHT - BOTTOM + 10 - distance * (len(order) - 1)
    heights = [0.0] * len(order)
    for rank, (index, y) in enumerate(zip(order, monotone(shifted), strict=True)):
        heights[index] = min(max(y, ceiling), max(floor, ceiling)) + distance * rank
    return heights
