"""The weights of a model's time scales in each frame, with the waveform above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.reports.figures.base import GROUND, QUIET, Figure, category, new_drawing, slug, styled


@dataclass(frozen=True)
class ScaleFractions:
    """The fractions of each block's scales in one utterance."""

    fractions: NDArray[np.floating]
    """(blocks, scales, frames), sums to one over the scales."""
    duration: float
    """Seconds that the frames cover."""


@styled
def draw_scales(
    scales: ScaleFractions, *, title: str, waveform: NDArray[np.floating] | None = None, caption: str = ""
) -> Figure:
    """Draw the fractions of each block's scales as stacked areas, one panel per block.

    Args:
        scales: The fractions.
        title: The title of the figure.
        waveform: The utterance's samples, (samples,), which cover the same time; None to omit it.
        caption: Text appended to the explanation.
    """
    blocks, num_scales, frames = scales.fractions.shape
    panels_above = int(waveform is not None)
    drawing = new_drawing(6.4, 0.9 * panels_above + 1.5 * blocks + 0.6)
    heights = [0.6] * panels_above + [1.0] * blocks
    panels = drawing.subplots(len(heights), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights})[:, 0]
    if waveform is not None:
        draw_waveform(panels[0], waveform, scales.duration)
    edges = np.linspace(0, scales.duration, frames + 1)
    centers = (edges[:-1] + edges[1:]) / 2
    names = [f"scale {index}" + (" (finest)" if index == 0 else "") for index in range(num_scales)]
    colors = [category(index) for index in range(num_scales)]
    for index, panel in enumerate(panels[panels_above:]):
        layers = panel.stackplot(centers, 100 * scales.fractions[index], labels=names, colors=colors, alpha=0.9)
        for layer in layers:
            layer.set_edgecolor(GROUND)
        panel.set(ylim=(0, 100), ylabel=f"block {index + 1}, %", xlim=(0, scales.duration))
    panels[-1].set_xlabel("seconds")
    drawing.legend(handles=layers, loc="outside right upper")
    explanation = "The fraction that each scale has in a block's output, frame by frame; padding is left out."
    return Figure(slug("scales", title), title, f"{explanation} {caption}".strip(), drawing)


def draw_waveform(panel: Any, waveform: NDArray[np.floating], duration: float, columns: int = 600) -> None:
    """Draw a waveform as the range of its samples in each column."""
    parts: Sequence[NDArray[np.floating]] = np.array_split(waveform, min(columns, len(waveform)))
    times = np.linspace(0, duration, len(parts))
    low, high = [float(part.min()) for part in parts], [float(part.max()) for part in parts]
    panel.fill_between(times, low, high, color=QUIET, linewidth=0.4)
    panel.set(yticks=[], xlim=(0, duration))
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.tick_params(bottom=False, labelbottom=False)
