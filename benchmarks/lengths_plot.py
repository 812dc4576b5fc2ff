"""The plot of `lengths_page.py`: compute time against length of speech, as SVG for a light or a dark page."""

from __future__ import annotations

from io import StringIO
from typing import Any

import matplotlib
from lengths_results import BASELINE, MSTR, STEPS, Lengths
from matplotlib.figure import Figure

# Background, text and grid have GitHub's own colors, so that the plot blends into the page.
LIGHT = {
    "background": "#ffffff",
    "text": "#1f2328",
    "muted": "#59636e",
    "grid": "#e6e9ed",
    MSTR: "#0969da",
    BASELINE: "#bc4c00",
}
DARK = {
    "background": "#0d1117",
    "text": "#e6edf3",
    "muted": "#8b949e",
    "grid": "#21262d",
    MSTR: "#58a6ff",
    BASELINE: "#f0883e",
}
SPEECH_TICKS = {1: "1 s", 5: "5 s", 30: "30 s", 120: "2 min", 1200: "20 min"}
TIME_TICKS = {0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}
SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],  # the first is included in matplotlib
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text: searchable, and read by screen readers
    "svg.hashsalt": "affekt",  # the same measurements give the same file
}


def draw(lengths: Lengths, *, dark: bool = False) -> str:
    """Return the SVG: one panel each for a forward pass and a training step."""
    colors = DARK if dark else LIGHT
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9.2, 4.2), layout="constrained", facecolor=colors["background"])
        panels = figure.subplots(1, len(STEPS), sharex=True, sharey=True)
        for step, panel in zip(STEPS, panels, strict=True):
            _draw_panel(panel, lengths, step, colors)
        panels[0].set_ylabel("compute time", color=colors["text"])
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _draw_panel(panel: Any, lengths: Lengths, step: str, colors: dict[str, str]) -> None:
    panel.set(xscale="log", yscale="log", facecolor=colors["background"])
    _style_axes(panel, step, colors)
    if step == "forward":
        _draw_floors(panel, lengths, colors)
    for model in (BASELINE, MSTR):
        times = list(lengths.times_of(model, step).values())
        speech, seconds = [time.speech for time in times], [time.seconds for time in times]
        panel.plot(speech, seconds, color=colors[model], marker="o", markersize=3.5, linewidth=2)
        _label(panel, model, speech[-1], seconds[-1], colors[model], 4)
    longest = max(time.speech for time in lengths.times)
    shortest = min(time.speech for time in lengths.times)
    panel.set_xlim(shortest / 1.3, longest * (longest / shortest) ** 0.3)  # leaves room for the labels at the right


def _draw_floors(panel: Any, lengths: Lengths, colors: dict[str, str]) -> None:
    """Draw two lower bounds of MSTR's time in gray: one from its memory traffic, one from its arithmetic."""
    floors = sorted((floor for floor in lengths.floors if floor.model == MSTR), key=lambda floor: floor.speech)
    lines = {
        "memory": (":", [floor.bytes / lengths.bandwidth for floor in floors]),
        "arithmetic": ("--", [floor.flops / lengths.products for floor in floors]),  # products: operations per second
    }
    for name, (style, seconds) in lines.items():
        panel.plot([floor.speech for floor in floors], seconds, color=colors["muted"], linestyle=style, linewidth=1.4)
        _label(panel, name, floors[-1].speech, seconds[-1], colors["muted"], -6)


def _label(panel: Any, text: str, speech: float, seconds: float, color: str, points_up: int) -> None:
    """Write a label to the right of a line's end, shifted up or down, because MSTR's line ends close to its arithmetic's."""
    position = {"xytext": (5, points_up), "textcoords": "offset points", "va": "center"}
    panel.annotate(text, (speech, seconds), color=color, fontweight="bold", **position)


def _style_axes(panel: Any, step: str, colors: dict[str, str]) -> None:
    panel.set_title(step, color=colors["text"], loc="left")
    panel.set_xlabel("speech", color=colors["text"])
    panel.set_xticks(list(SPEECH_TICKS), SPEECH_TICKS.values())
    panel.set_yticks(list(TIME_TICKS), TIME_TICKS.values())
    panel.minorticks_off()
    panel.tick_params(colors=colors["text"], length=0)
    panel.grid(color=colors["grid"], linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
