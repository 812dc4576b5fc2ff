"""The plot of `affekt.reports.lengths`: seconds of compute against seconds of speech, as SVG for a light or a dark page."""

from __future__ import annotations

from io import StringIO
from typing import Any

from affekt.extras import need
from affekt.reports.lengths import OTHER, OURS, STEPS, Lengths

PURPOSE = "drawing times by length"
# Ground, ink and quiet lines are GitHub's own, so that the plot is part of the page.
LIGHT = {
    "ground": "#ffffff",
    "ink": "#1f2328",
    "quiet": "#59636e",
    "grid": "#e6e9ed",
    OURS: "#0969da",
    OTHER: "#bc4c00",
}
DARK = {"ground": "#0d1117", "ink": "#e6edf3", "quiet": "#8b949e", "grid": "#21262d", OURS: "#58a6ff", OTHER: "#f0883e"}
SPEECH = {1: "1 s", 5: "5 s", 30: "30 s", 120: "2 min", 1200: "20 min"}
TIMES = {0.001: "1 ms", 0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}
SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],  # the first is matplotlib's own: the same everywhere
    "font.size": 10,
    "svg.fonttype": "none",  # words, which can be found and read aloud
    "svg.hashsalt": "affekt",  # the same measurements give the same file
}


def drawn(lengths: Lengths, *, dark: bool = False) -> str:
    """The SVG: one panel each for a forward pass and a training step."""
    matplotlib = need("matplotlib", extra="train", purpose=PURPOSE)
    figures = need("matplotlib.figure", extra="train", purpose=PURPOSE)
    colours = DARK if dark else LIGHT
    with matplotlib.rc_context(SETTINGS):
        figure = figures.Figure(figsize=(9.2, 4.2), layout="constrained", facecolor=colours["ground"])
        panels = figure.subplots(1, len(STEPS), sharex=True, sharey=True)
        for step, panel in zip(STEPS, panels, strict=True):
            _draw(panel, lengths, step, colours)
        panels[0].set_ylabel("compute", color=colours["ink"])
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _draw(panel: Any, lengths: Lengths, step: str, colours: dict[str, str]) -> None:
    panel.set(xscale="log", yscale="log", facecolor=colours["ground"])
    _frame(panel, step, colours)
    if step == "forward":
        _floors(panel, lengths, colours)
    for model in (OTHER, OURS):
        found = list(lengths.of(model, step).values())
        speech, took = [one.speech for one in found], [one.took for one in found]
        panel.plot(speech, took, color=colours[model], marker="o", markersize=3.5, linewidth=2)
        _label(panel, model, speech[-1], took[-1], colours[model], 4)
    longest = max(one.speech for one in lengths.times)
    shortest = min(one.speech for one in lengths.times)
    panel.set_xlim(shortest / 1.3, longest * (longest / shortest) ** 0.3)  # room for the names at the lines' ends


def _floors(panel: Any, lengths: Lengths, colours: dict[str, str]) -> None:
    """The least time in grey: memory's, and arithmetic's of our model."""
    found = sorted((one for one in lengths.floors if one.model == OURS), key=lambda one: one.speech)
    lines = {
        "memory": (":", [one.bytes / lengths.bandwidth for one in found]),
        "arithmetic": ("--", [one.flops / lengths.products for one in found]),
    }
    for name, (style, took) in lines.items():
        panel.plot([one.speech for one in found], took, color=colours["quiet"], linestyle=style, linewidth=1.4)
        _label(panel, name, found[-1].speech, took[-1], colours["quiet"], -6)


def _label(panel: Any, text: str, speech: float, took: float, colour: str, higher: int) -> None:
    """Right of a line's end, and some points higher or lower: our model comes close to the arithmetic alone."""
    place = {"xytext": (5, higher), "textcoords": "offset points", "va": "center"}
    panel.annotate(text, (speech, took), color=colour, fontweight="bold", **place)


def _frame(panel: Any, step: str, colours: dict[str, str]) -> None:
    panel.set_title(step, color=colours["ink"], loc="left")
    panel.set_xlabel("speech", color=colours["ink"])
    panel.set_xticks(list(SPEECH), SPEECH.values())
    panel.set_yticks(list(TIMES), TIMES.values())
    panel.minorticks_off()
    panel.tick_params(colors=colours["ink"], length=0)
    panel.grid(color=colours["grid"], linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[:].set_visible(False)
