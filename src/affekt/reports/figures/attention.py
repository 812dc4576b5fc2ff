"""Attention over one utterance, as in Figures 1 and 7 of the KS-Transformer paper (Chen et al., arXiv 2106.11532): the
weights with words and waveform at the axes, and, where a model keeps only some keys, vanilla beside key-sparse attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.extras import need
from affekt.reports.figures.base import (
    QUIET,
    RULE,
    SEQUENTIAL,
    Figure,
    category,
    new_drawing,
    plain,
    shorten,
    slug,
    styled,
)
from affekt.reports.figures.scales import draw_waveform

INCHES_PER_WORD = 0.26
AUDIO_INCHES = 3.4
KEPT = category(1)
"""For the bars over the keys that are kept."""


@dataclass(frozen=True)
class Axis:
    """One axis of an attention plot."""

    stream: str
    """The name of the stream, such as "speech"."""
    frames: int
    """The number of frames without padding."""
    words: Sequence[str] | None = None
    """A label for each frame, (frames,); None for frames of audio."""
    duration: float | None = None
    """Seconds that the frames cover, for an axis in seconds; None for an axis in frames."""
    waveform: NDArray[np.floating] | None = None
    """The samples that the frames cover, (samples,), to be drawn along the axis; None to omit the drawing."""

    @property
    def label(self) -> str:
        """The stream with the unit of the axis."""
        if self.words is not None:
            return self.stream
        return f"{self.stream}, {'frames' if self.duration is None else 'seconds'}"

    @property
    def extent(self) -> float:
        """The end of the axis in its unit."""
        return float(self.frames) if self.duration is None or self.words is not None else self.duration

    @property
    def inches(self) -> float:
        return AUDIO_INCHES if self.words is None else max(1.8, INCHES_PER_WORD * self.frames)


def token_words(text: str, words: Sequence[int]) -> list[str]:
    """Return a label for each token: its word, "·" where a word continues, "-" where there is no word.

    Args:
        text: The text.
        words: The index of each token's word in `text.split()`, (tokens,); -1 for none.
    """
    vocabulary, labels, previous = text.split(), [], -1
    for word in words:
        labels.append("-" if word < 0 else "·" if word == previous else vocabulary[word])
        previous = word
    return labels


@styled
def draw_attention(
    weights: NDArray[np.floating],
    *,
    queries: Axis,
    keys: Axis,
    title: str,
    sparse: NDArray[np.floating] | None = None,
    kept: NDArray[np.bool_] | None = None,
    layer: int = -1,
    head: int | None = None,
    caption: str = "",
) -> Figure:
    """Draw the attention weights of one layer. Padding after the frames of the axes is cut off.

    Args:
        weights: The weights of one utterance, (layers, heads, queries, keys).
        queries: The rows.
        keys: The columns.
        title: The title.
        sparse: The weights over the kept keys only, of the same shape; they are drawn on the right.
        kept: Which keys are kept, (layers, heads, keys).
        layer: The index of the layer.
        head: The index of the head; None for the mean over heads, where a bar shows the fraction of heads that keep a key.
        caption: Text appended to the explanation.

    Raises:
        BadConfig: An axis, a layer or a head does not fit the weights.
    """
    shown = {"vanilla" if kept is not None else "": _select(weights, layer, head)}
    if sparse is not None and kept is not None:
        shown["key-sparse"] = _select(sparse, layer, head)
    _check(queries, weights.shape[2], "queries")
    _check(keys, weights.shape[3], "keys")
    shown = {name: cells[: queries.frames, : keys.frames] for name, cells in shown.items()}
    marks = None if kept is None else _select(kept.astype(np.float64), layer, head)[: keys.frames]
    drawing = new_drawing(len(shown) * keys.inches + max(1.6, 0.9 * (queries.words is not None)), queries.inches + 1.5)
    _draw_panels(drawing, shown, marks, queries, keys)
    which = "the mean over the heads" if head is None else f"head {head}"
    explanation = f"Each row shows how a query of {queries.stream} attends to the keys of {keys.stream}; {which}."
    if marks is not None:
        explanation += (
            " Bars show the fraction of heads that keep a key; keys that no head keeps are left out on the right."
        )
    return Figure(slug("attention", title), title, f"{explanation} {caption}".strip(), drawing)


def _select(values: NDArray[Any], layer: int, head: int | None) -> NDArray[np.float64]:
    for kind, index, count in zip(("layer", "head"), (layer, head or 0), values.shape, strict=False):
        if not -count <= index < count:
            raise BadConfig(f"{kind} {index} does not exist: expected 0 to {count - 1}")
    heads = values[layer].astype(np.float64)
    return np.asarray(heads.mean(axis=0) if head is None else heads[head])


def _check(axis: Axis, available: int, kind: str) -> None:
    if not 1 <= axis.frames <= available:
        raise BadConfig(f"{axis.stream} has {axis.frames} frames, but the attention has {available} {kind}")
    if axis.words is not None and len(axis.words) != axis.frames:
        raise BadConfig(
            f"{len(axis.words)} words for {axis.frames} frames of {axis.stream}: expected one for each (token_words)"
        )


def _draw_panels(
    drawing: Any, shown: dict[str, NDArray[np.float64]], marks: NDArray[np.float64] | None, queries: Axis, keys: Axis
) -> None:
    above = {"waveform": 0.5} if keys.waveform is not None and keys.words is None else {}
    above |= {"kept": 0.35} if marks is not None else {}
    heights = [*above.values(), queries.inches]
    panels = drawing.subplots(
        len(heights), len(shown), squeeze=False, sharex="col", gridspec_kw={"height_ratios": heights}
    )
    highest = max(float(next(iter(shown.values())).max()), 1e-12)
    for column, (name, cells) in enumerate(shown.items()):
        bars = marks if marks is None or name == "key-sparse" else np.ones_like(marks)
        _draw_above(dict(zip(above, panels[:, column], strict=False)), keys, bars)
        panels[0, column].set_title(name)
        values = cells if name != "key-sparse" or marks is None else np.where(marks > 0, cells, np.nan)
        image = _draw_cells(panels[-1, column], values, queries, keys, highest, labels=column == 0)
    drawing.colorbar(image, ax=panels[-1, :].tolist(), shrink=0.9, pad=0.015, label="weight").outline.set_visible(False)


def _draw_above(panels: dict[str, Any], keys: Axis, bars: NDArray[np.float64] | None) -> None:
    """Draw the waveform of the keys, and a bar over every key, as high as the fraction of heads that keep it."""
    step = keys.extent / keys.frames
    if "waveform" in panels and keys.waveform is not None:
        draw_waveform(panels["waveform"], keys.waveform, keys.extent)
        for index in [] if bars is None or bars.all() else np.flatnonzero(bars > 0):
            panels["waveform"].axvspan(index * step, (index + 1) * step, color=KEPT, alpha=0.25, linewidth=0)
    if "kept" in panels and bars is not None:
        panel = panels["kept"]
        panel.bar((np.arange(keys.frames) + 0.5) * step, bars, width=step * (0.8 if keys.words else 1.0), color=KEPT)
        panel.set(ylim=(0, 1), xlim=(0, keys.extent), yticks=[])
        panel.set_ylabel("kept", rotation=0, ha="right", va="center", fontsize=8)
        panel.tick_params(bottom=False, labelbottom=False)
        panel.spines["left"].set_visible(False)


def _draw_cells(
    panel: Any, weights: NDArray[np.float64], queries: Axis, keys: Axis, highest: float, *, labels: bool
) -> Any:
    colormaps = need("matplotlib", extra="train", purpose="drawing attention").colormaps
    panel.set_facecolor(RULE)
    image = panel.imshow(
        weights,
        cmap=colormaps[SEQUENTIAL].with_extremes(bad=(0, 0, 0, 0)),
        vmin=0,
        vmax=highest,
        aspect="auto",
        interpolation="nearest",
        extent=(0, keys.extent, queries.extent, 0),
    )
    panel.set_xlabel(f"keys: {keys.label}")
    if keys.words is not None:
        names = [plain(shorten(word, 14)) for word in keys.words]
        panel.set_xticks(np.arange(keys.frames) + 0.5, names, rotation=60, ha="right", rotation_mode="anchor")
    if queries.words is not None:
        panel.set_yticks(np.arange(queries.frames) + 0.5, [plain(shorten(word, 14)) for word in queries.words])
    if labels:
        panel.set_ylabel(f"queries: {queries.label}")
    panel.tick_params(length=2, color=QUIET, labelleft=labels)
    panel.spines[:].set_visible(False)
    return image
