"""UA over a setting of the model, with the baseline's line, as in MSTR's Figure 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from affekt.reports.figures.base import LINES, Figure, category, new_drawing, plain, shorten, slug, styled


@dataclass(frozen=True)
class SweepPoint:
    """The scores for one value of a setting."""

    value: float
    uas: tuple[float, ...]
    """UA of each seed, as fractions."""


@styled
def draw_sweep(
    points: Sequence[SweepPoint], setting: str, baselines: Mapping[str, float], *, title: str, caption: str = ""
) -> Figure:
    """Draw UA over the values of a setting, and a horizontal line for each baseline.

    Args:
        points: The values of the setting, at least two.
        setting: The name of the setting.
        baselines: Name -> UA, a fraction.
        title: The title of the figure.
        caption: Text appended to the explanation.
    """
    drawing = new_drawing(4.6, 3.2)
    panel = drawing.subplots()
    ordered = sorted(points, key=lambda point: point.value)
    means = [100 * sum(point.uas) / len(point.uas) for point in ordered]
    panel.plot([point.value for point in ordered], means, "o-", color=category(0), label="mean over seeds")
    for point in ordered:
        if len(point.uas) > 1:
            panel.plot(
                [point.value] * len(point.uas), [100 * ua for ua in point.uas], ".", color=category(0), alpha=0.6
            )
    for index, (name, score) in enumerate(baselines.items()):
        panel.axhline(
            100 * score, linestyle=LINES[1 + index % 3], color=category(1 + index), label=plain(shorten(name))
        )
    panel.set(xlabel=plain(setting), ylabel="UA, %", xticks=[point.value for point in ordered])
    panel.grid(axis="y")
    panel.legend()
    explanation = (
        "UA over the values of one setting, all other settings of the model equal; small dots are single seeds."
    )
    return Figure(slug("sweep", title), title, f"{explanation} {caption}".strip(), drawing)
