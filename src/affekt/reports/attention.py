"""Plots of vanilla and key-sparse attention over one utterance, as in Figures 1 and 7 of the KS-Transformer paper
(Chen et al., arXiv 2106.11532), from what `KSTransformer.explain` or a similar method returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig, BadOutput, UnknownName
from affekt.extras import need

INCHES_PER_WORD = 0.26
COLORMAP = "Blues"
"""For the weights; the two colors below do not occur in it."""
KEPT = "#d95f02"
"""For the bars over the keys that are kept."""
DROPPED = "#e4e4e4"
"""For the keys that no head keeps."""


@dataclass(frozen=True)
class Axis:
    """One axis of an attention plot."""

    frames: int
    """The number of frames without padding."""
    words: Sequence[str] | None = None
    """A label for each frame, (frames,); None for frames of audio."""
    frame_rate: float | None = None
    """Frames per second, for an axis in seconds; None for an axis in frames."""

    @property
    def unit(self) -> str:
        """The unit as it is appended to the axis's label."""
        if self.words is not None:
            return ""
        return ", seconds" if self.frame_rate else ", frames"

    def extent(self) -> float:
        """Return the end of the axis in its unit."""
        return self.frames / self.frame_rate if self.frame_rate and self.words is None else float(self.frames)


def token_words(text: str, words: Sequence[int]) -> list[str]:
    """Return a label for each token: its word, "·" where a word continues, "-" where there is no word.

    Args:
        words: The index of each token's word in `text.split()`, (tokens,); -1 for none.
    """
    vocabulary, labels, previous = text.split(), [], -1
    for word in words:
        labels.append("-" if word < 0 else "·" if word == previous else vocabulary[word])
        previous = word
    return labels


def draw_attention(
    explanation: Mapping[str, Any],
    path: str | Path,
    *,
    queries: Axis,
    keys: Axis | None = None,
    stack: str = "fusion_text",
    utterance: int = 0,
    layer: int = -1,
    head: int | None = None,
    title: str = "",
) -> None:
    """Plot one layer: the weights of vanilla attention on the left, those that remain in key-sparse attention on the right.

    Args:
        explanation: The arrays or tensors `{stack}_vanilla` and `{stack}_sparse`, (batch, layers, heads, queries, keys),
            and `{stack}_kept`, (batch, layers, heads, keys).
        path: A .png, .svg or .pdf file.
        queries: The rows.
        keys: The columns; by default the queries.
        stack: The name of the attention stack.
        utterance: The index in the batch.
        layer: The index of the layer.
        head: The index of the head; None for the mean over heads, where a bar shows the fraction of heads that keep a key.
        title: A title; by default the stack, layer and head.

    Raises:
        UnknownName: The explanation has no such stack.
        BadConfig: An axis, a layer or a head does not fit the explanation.
        BadOutput: `path` cannot be written.
    """
    keys = keys or queries
    maps = [_weights(explanation, f"{stack}_{kind}", utterance, layer, head) for kind in ("vanilla", "sparse")]
    kept = _weights(explanation, f"{stack}_kept", utterance, layer, head)[: keys.frames]
    maps = [weights[: queries.frames, : keys.frames] for weights in maps]
    _check(queries, maps[0].shape[0])
    _check(keys, maps[0].shape[1])
    figure = _figure(queries, keys)
    panels = figure.subplots(2, 2, sharex="col", gridspec_kw={"height_ratios": [1, 12], "hspace": 0.04, "wspace": 0.08})
    highest = max(float(maps[0].max()), 1e-12)
    for column, (weights, name) in enumerate(zip(maps, ("vanilla", "key-sparse"), strict=True)):
        marks, cells = panels[0, column], panels[1, column]
        _draw_marks(marks, kept if column else np.ones_like(kept), keys, name)
        shown = weights if not column else np.where(kept > 0, weights, np.nan)
        image = _draw_cells(cells, shown, queries, keys, highest)
        if column:
            cells.tick_params(labelleft=False)
    panels[0, 0].set_ylabel("kept", rotation=0, ha="right", va="center", fontsize=8)
    panels[1, 0].set_ylabel(f"query{queries.unit}", fontsize=9)
    bar = figure.colorbar(image, ax=panels[1, :], shrink=0.8, pad=0.015)
    bar.set_label("attention weight", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title or _caption(stack, layer, head), fontsize=10)
    _save(figure, Path(path))


def _weights(
    explanation: Mapping[str, Any], name: str, utterance: int, layer: int, head: int | None
) -> NDArray[np.float64]:
    if name not in explanation:
        stacks = sorted(key.removesuffix("_kept") for key in explanation if key.endswith("_kept"))
        raise UnknownName(
            f"the explanation has no {name}; choose one of its stacks ({', '.join(stacks) or 'there is none'})"
        )
    values = explanation[name]
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    indices = (utterance, layer, head or 0)
    for kind, index, count in zip(("utterance", "layer", "head"), indices, array.shape, strict=False):
        if not -count <= index < count:
            raise BadConfig(f"{kind} {index} of {name} does not exist: expected 0 to {count - 1}")
    heads = array[utterance, layer].astype(np.float64)
    return np.asarray(heads.mean(axis=0) if head is None else heads[head])


def _check(axis: Axis, frames: int) -> None:
    if axis.frames != frames or axis.frames < 1:
        raise BadConfig(f"the axis has {axis.frames} frames, but the attention has {frames}: expected 1 to {frames}")
    if axis.words is not None and len(axis.words) != axis.frames:
        raise BadConfig(
            f"{len(axis.words)} words for {axis.frames} frames: expected one for each, as token_words returns"
        )


def _figure(queries: Axis, keys: Axis) -> Any:
    """Return a figure without a window and without pyplot's global state."""
    figures = need("matplotlib.figure", extra="train", purpose="drawing attention")
    agg = need("matplotlib.backends.backend_agg", extra="train", purpose="drawing attention")
    width, height = (3.4 if x.words is None else max(2.2, INCHES_PER_WORD * x.frames) for x in (keys, queries))
    figure = figures.Figure(figsize=(2 * width + 2.2, height + 1.6), layout="constrained")
    agg.FigureCanvasAgg(figure)
    return figure


def _draw_marks(panel: Any, kept: NDArray[np.float64], keys: Axis, name: str) -> None:
    """Draw a bar over every key, as high as the fraction of heads that keep it."""
    step = keys.extent() / keys.frames
    panel.bar((np.arange(keys.frames) + 0.5) * step, kept, width=step * (0.8 if keys.words else 1.0), color=KEPT)
    panel.set(ylim=(0, 1), xlim=(0, keys.extent()), yticks=[])
    panel.set_title(name, fontsize=10)
    panel.tick_params(bottom=False, labelbottom=False)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _draw_cells(panel: Any, weights: NDArray[np.float64], queries: Axis, keys: Axis, highest: float) -> Any:
    colormap = (
        need("matplotlib", extra="train", purpose="drawing attention").colormaps[COLORMAP].with_extremes(bad=DROPPED)
    )
    image = panel.imshow(
        weights,
        cmap=colormap,
        vmin=0,
        vmax=highest,
        aspect="auto",
        interpolation="nearest",
        extent=(0, keys.extent(), queries.extent(), 0),
    )
    panel.set_xlabel(f"key{keys.unit}", fontsize=9)
    if keys.words is not None:
        panel.set_xticks(np.arange(keys.frames) + 0.5, keys.words, rotation=60, ha="right", rotation_mode="anchor")
    if queries.words is not None:
        panel.set_yticks(np.arange(queries.frames) + 0.5, queries.words)
    panel.tick_params(labelsize=8, length=2)
    return image


def _caption(stack: str, layer: int, head: int | None) -> str:
    where = "last layer" if layer == -1 else f"layer {layer}"
    return f"{stack.replace('_', ' of ')}: {where}, {'mean over the heads' if head is None else f'head {head}'}"


def _save(figure: Any, path: Path) -> None:
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise BadOutput(f"{path}: expected a name ending in .png, .svg or .pdf")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise BadOutput(f"{path} cannot be written: {error}") from error
