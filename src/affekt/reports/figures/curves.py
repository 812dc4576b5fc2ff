"""Learning curves with bands over the runs, as in TDFNet's Figures 7 and 8: scores and loss by epoch and subset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.reports.figures.base import LINES, Figure, category, new_drawing, panels_of, slug, styled

COLUMNS = 4
SUBSETS = ("train", "validation", "test")


@dataclass(frozen=True)
class Curve:
    """A metric by epoch in several runs, which may end at different epochs."""

    runs: tuple[NDArray[np.float64], ...]
    """One value per epoch for each run, (epochs,); NaN where it was not recorded."""

    def band(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return epochs, mean and standard deviation over the runs that reach an epoch, (epochs,) each."""
        length = max(map(len, self.runs))
        values = np.full((len(self.runs), length), np.nan)
        for row, run in zip(values, self.runs, strict=True):
            row[: len(run)] = run
        present = np.isfinite(values).sum(axis=0)
        epochs = np.flatnonzero(present)
        values, present = values[:, epochs], present[epochs]
        mean = np.nansum(values, axis=0) / present
        std = np.sqrt(np.nansum((values - mean) ** 2, axis=0) / np.maximum(present - 1, 1))
        return epochs + 1, mean, std


@styled
def draw_curves(curves: Mapping[str, Mapping[str, Curve]], *, title: str, caption: str = "") -> Figure:
    """Draw a panel for each metric, with a line for each subset.

    Args:
        curves: Metric -> subset -> curve. Metrics whose name begins with "loss" are drawn unscaled, others in percent.
        title: The title of the figure.
        caption: Text appended to the explanation.
    """
    drawing = new_drawing(2.9 * min(len(curves), COLUMNS), 2.5 * -(-len(curves) // COLUMNS))
    for panel, (metric, by_subset) in zip(panels_of(drawing, len(curves), COLUMNS), curves.items(), strict=True):
        factor = 1.0 if metric.startswith("loss") else 100.0
        for subset, curve in by_subset.items():
            index = SUBSETS.index(subset) if subset in SUBSETS else len(SUBSETS)
            epochs, mean, std = curve.band()
            color, low, high = category(index), factor * (mean - std), factor * (mean + std)
            mark = "o" if len(epochs) == 1 else None
            panel.plot(epochs, factor * mean, LINES[index], color=color, label=subset, marker=mark, markersize=4)
            panel.fill_between(epochs, low, high, color=color, alpha=0.2, linewidth=0)
        panel.set(xlabel="epoch", title=metric if factor == 1 else f"{metric}, %")
        panel.xaxis.get_major_locator().set_params(integer=True)
        if max(len(run) for curve in by_subset.values() for run in curve.runs) == 1:
            panel.set_xticks([1])
        panel.grid(axis="y")
        panel.legend()
    explanation = "Mean over the runs by epoch; the band is one standard deviation over seeds and folds."
    return Figure(slug(title), title, f"{explanation} {caption}".strip(), drawing)
