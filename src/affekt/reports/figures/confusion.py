"""Confusion matrices, as in TDFNet's Figure 5 and the KS-Transformer's Figure 6: a cell has the percentage of its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.evaluation.metrics import ua, wa
from affekt.reports.figures.base import (
    SEQUENTIAL,
    Figure,
    grid_shape,
    new_drawing,
    panels_of,
    plain,
    shorten,
    slug,
    styled,
)

COLUMNS = 3
REFUSED = "refused"


@styled
def draw_confusion(
    matrices: Mapping[str, NDArray[np.int64]], emotions: Sequence[str], *, title: str, caption: str = ""
) -> Figure:
    """Draw confusion matrices side by side.

    Args:
        matrices: Title -> counts, (emotions, emotions): rows are true labels, columns predictions. A further column has the
            utterances that were refused.
        emotions: The emotions' names, in the order of the rows.
        title: The title of the figure.
        caption: Text appended to the explanation.
    """
    size = 1.5 + 0.42 * len(emotions)
    num_rows, num_columns = grid_shape(len(matrices), COLUMNS)
    drawing = new_drawing(num_columns * size, num_rows * (size + 0.25))
    for panel, (name, counts) in zip(panels_of(drawing, len(matrices), COLUMNS), matrices.items(), strict=True):
        _draw_matrix(panel, counts, emotions)
        panel.set_title(f"{plain(shorten(name))}\nUA {ua(counts):.1%}, WA {wa(counts):.1%}".replace("%", " %"))
    explanation = (
        "Rows are true emotions, columns predictions; a cell is the percentage of its row, with all seeds together."
    )
    return Figure(slug(title), title, f"{explanation} {caption}".strip(), drawing)


def _draw_matrix(panel: Any, counts: NDArray[np.int64], emotions: Sequence[str]) -> None:
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    columns = [*emotions, REFUSED][: counts.shape[1]]
    panel.imshow(fractions, cmap=SEQUENTIAL, vmin=0, vmax=1, aspect="equal")
    for (row, column), fraction in np.ndenumerate(fractions):
        color = "black" if fraction > 0.5 else "white"
        text = f"{100 * fraction:.0f}" if counts[row].sum() else "-"
        weight = "bold" if row == column else "normal"
        panel.text(column, row, text, ha="center", va="center", color=color, fontsize=8, fontweight=weight)
    names = [plain(shorten(name, 12)) for name in columns]
    panel.set_xticks(range(len(columns)), names, rotation=45, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(emotions)), [plain(shorten(name, 12)) for name in emotions])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    panel.set(xlabel="predicted", ylabel="true")
