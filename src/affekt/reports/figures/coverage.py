"""Coverage against accuracy: which fraction of utterances is answered at a threshold, and how many of these correctly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from affekt.evaluation.coverage import THRESHOLDS, coverage_curve
from affekt.evaluation.metrics import Labels, Probabilities
from affekt.reports.figures.base import Figure, category, marker, new_drawing, plain, shorten, slug, styled

STEPS = 101
"""Number of thresholds from 0 to 1 between which the lines are drawn."""


@styled
def draw_coverage(
    predictions: Mapping[str, tuple[Labels, Sequence[Probabilities]]], *, title: str, caption: str = ""
) -> Figure:
    """Draw accuracy over coverage, a line for each model with marks at the thresholds of tables.

    Args:
        predictions: Model -> labels, (utterances,), and the probabilities of each seed, (utterances, emotions).
        title: The title of the figure.
        caption: Text appended to the explanation.
    """
    drawing = new_drawing(5.2, 3.6)
    panel = drawing.subplots()
    for index, (name, (labels, probabilities)) in enumerate(predictions.items()):
        line = [
            point
            for point in coverage_curve(labels, probabilities, np.linspace(0, 1, STEPS).tolist())
            if point.answered
        ]
        marks = [point for point in coverage_curve(labels, probabilities) if point.answered]
        color = category(index)
        panel.plot(
            [100 * p.coverage for p in line], [100 * (p.WA or 0) for p in line], color=color, label=plain(shorten(name))
        )
        panel.plot([100 * p.coverage for p in marks], [100 * (p.WA or 0) for p in marks], marker(index), color=color)
        if len(predictions) == 1:
            for point in marks:
                position = (100 * point.coverage, 100 * (point.WA or 0))
                panel.annotate(
                    f"{point.threshold}", position, xytext=(4, 4), textcoords="offset points", fontsize="small"
                )
    panel.set(xlabel="coverage, % of utterances answered", ylabel="accuracy of the answers (WA), %")
    panel.legend()
    explanation = (
        "An utterance is answered if its largest probability is at least a threshold. Marks, from right to left: the "
        f"thresholds {', '.join(map(str, THRESHOLDS))}."
    )
    return Figure(slug(title), title, f"{explanation} {caption}".strip(), drawing)
