"""Reliability diagrams: how often predictions with a given confidence are right (Guo et al., ICML 2017, Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from affekt.evaluation.calibration import Reliability, calibration, reliability
from affekt.evaluation.metrics import Labels, Probabilities
from affekt.reports.figures.base import QUIET, Figure, category, new_drawing, panels_of, plain, shorten, slug, styled

BINS = 10
COLUMNS = 3


@styled
def draw_reliability(
    predictions: Mapping[str, tuple[Labels, Sequence[Probabilities]]], *, title: str, caption: str = ""
) -> Figure:
    """Draw a reliability diagram for each model.

    Args:
        predictions: Model -> labels, (utterances,), and the probabilities of each seed, (utterances, emotions).
        title: The title of the figure.
        caption: Text appended to the explanation.
    """
    num_columns = min(len(predictions), COLUMNS)
    drawing = new_drawing(3.1 * num_columns, 3.2 * -(-len(predictions) // COLUMNS))
    panels = panels_of(drawing, len(predictions), COLUMNS)
    for panel, (name, (labels, probabilities)) in zip(panels, predictions.items(), strict=True):
        _draw_diagram(panel, reliability(labels, probabilities, bins=BINS))
        panel.set_title(f"{plain(shorten(name))}\nECE {100 * calibration(labels, probabilities).ece:.1f} %")
    explanation = (
        "A bar is the accuracy of the predictions in a bin of confidence, a dot their mean confidence; on the dashed line "
        "both are equal. The gray steps show how many predictions each bin has. Bars below the line are overconfident."
    )
    return Figure(slug(title), title, f"{explanation} {caption}".strip(), drawing)


def _draw_diagram(panel: Any, bins: Reliability) -> None:
    edges, counts = 100 * np.array(bins.edges), np.array(bins.utterances)
    accuracy, confidence = (100 * np.array(values, np.float64) for values in (bins.accuracy, bins.confidence))
    panel.bar(edges[:-1], accuracy, width=np.diff(edges), align="edge", color=category(0), alpha=0.75)
    panel.stairs(30 * counts / counts.max(), edges, color=QUIET, fill=True, alpha=0.35)
    panel.plot([0, 100], [0, 100], "--", color=QUIET, linewidth=1)
    panel.plot(confidence, accuracy, "o", color=category(1), markersize=4)
    panel.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence, %", ylabel="accuracy, %", aspect="equal")
