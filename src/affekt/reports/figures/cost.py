"""Cost against accuracy: each model's UA over its number of weights or of operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affekt.reports.figures.base import Figure, category, marker, new_drawing, plain, shorten, slug, styled


@dataclass(frozen=True)
class Point:
    """A model's cost and score."""

    name: str
    cost: float
    ua: float
    """The mean over seeds, a fraction."""
    low: float | None
    high: float | None
    """The ends of the interval, fractions; None without an interval."""


@styled
def draw_cost(
    points: Sequence[Point],
    *,
    title: str,
    cost: str = "number of weights of the trained network, without a frozen encoder",
    caption: str = "",
) -> Figure:
    """Draw UA with its interval over a cost, on a logarithmic axis.

    Args:
        points: The models, at least one.
        title: The title of the figure.
        cost: The label of the axis of costs.
        caption: Text appended to the explanation.
    """
    drawing = new_drawing(5.6, 3.4)
    panel = drawing.subplots()
    for index, point in enumerate(points):
        ends = [point.ua if end is None else end for end in (point.low, point.high)]
        panel.errorbar(
            [point.cost],
            [100 * point.ua],
            yerr=[[100 * max(0.0, point.ua - ends[0])], [100 * max(0.0, ends[1] - point.ua)]],
            fmt=marker(index),
            color=category(index),
            capsize=3,
            label=plain(shorten(point.name, 34)),
        )
    panel.set(xscale="log", xlabel=cost.partition(",")[0], ylabel="UA, %")
    panel.grid(axis="y")
    panel.margins(x=0.25, y=0.15)
    drawing.legend(loc="outside right upper")
    explanation = f"UA and its 95 % interval over the {cost}. Upper left is better."
    return Figure(slug(title), title, f"{explanation} {caption}".strip(), drawing)
