"""Embeddings in the plane, as in TDFNet's Figures 6 and 9 to 11: t-SNE, PCA or UMAP, colored by emotion and by speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.extras import need
from affekt.registry import did_you_mean
from affekt.reports.figures.base import Figure, category, marker, new_drawing, plain, shorten, slug, styled

METHODS = {"tsne": "t-SNE", "pca": "PCA", "umap": "UMAP"}
MAX_GROUPS = 12
"""Largest number of groups that get a color and a marker each; further ones are drawn together as "other"."""
PANEL = 2.7
SEED = 0


@dataclass(frozen=True)
class Embedding:
    """Vectors of utterances, and the groups to color them by."""

    name: str
    """The stream or layer that the vectors are from, such as "speech"."""
    vectors: NDArray[np.floating]
    """(utterances, width)"""


def project(vectors: NDArray[np.floating], method: str) -> NDArray[np.float64]:
    """Return the vectors in the plane, (utterances, 2); the same in every call.

    Args:
        vectors: The vectors, (utterances, width), of at least three utterances.
        method: A name in `METHODS`.

    Raises:
        BadConfig: The method is unknown, or there are fewer than three utterances.
        MissingExtra: UMAP's package is not installed.
    """
    if method not in METHODS:
        raise BadConfig(
            f"there is no projection {method!r}{did_you_mean(method, METHODS)} (known: {', '.join(METHODS)})"
        )
    count = len(vectors)
    if count < 3:
        raise BadConfig(f"{count} utterances are too few to be projected: expected 3 or more")
    scaled = (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), 1e-6)
    return np.asarray(_projector(method, count).fit_transform(scaled.astype(np.float64)), np.float64)


def _projector(method: str, count: int) -> Any:
    if method == "umap":
        return need("umap", extra="umap", purpose="UMAP").UMAP(n_neighbors=min(15, count - 1), random_state=SEED)
    if method == "pca":
        return need("sklearn.decomposition", extra="train", purpose="PCA").PCA(2, random_state=SEED)
    perplexity = min(30.0, (count - 1) / 3)
    manifold = need("sklearn.manifold", extra="train", purpose="t-SNE")
    return manifold.TSNE(2, perplexity=perplexity, init="pca", random_state=SEED)


@styled
def draw_projection(
    embeddings: Sequence[Embedding],
    groups: Mapping[str, Sequence[str]],
    *,
    method: str,
    title: str,
    caption: str = "",
) -> Figure:
    """Draw a column for each embedding, and a row for each way of coloring.

    Args:
        embeddings: The embeddings of the same utterances.
        groups: Title of a coloring ("emotion", "speaker") -> the group of each utterance.
        method: A name in `METHODS`.
        title: The title of the figure.
        caption: Text appended to the explanation.
    """
    drawing = new_drawing(PANEL * len(embeddings) + 1.5, PANEL * len(groups) + 0.4)
    rows = drawing.subfigures(len(groups), 1, squeeze=False)[:, 0]
    points = [project(embedding.vectors, method) for embedding in embeddings]
    for row, (kind, names) in zip(rows, groups.items(), strict=True):
        row.set_facecolor("none")
        panels = row.subplots(1, len(embeddings), squeeze=False)[0]
        for panel, embedding, positions in zip(panels, embeddings, points, strict=True):
            handles = _scatter(panel, positions, names)
            panel.set(xticks=[], yticks=[], title=plain(shorten(embedding.name)))
            panel.spines[:].set_visible(True)
        row.legend(handles=handles, loc="outside right center", title=kind)
    explanation = (
        f"{METHODS[method]} of standardized embeddings, fixed seed {SEED}: a point is an utterance. "
        + ("Distances between clusters, and their sizes, mean nothing. " if method != "pca" else "")
        + "Both rows have the same points." * (len(groups) > 1)
    )
    return Figure(slug(title), title, f"{explanation} {caption}".strip(), drawing)


def _scatter(panel: Any, positions: NDArray[np.float64], names: Sequence[str]) -> list[Any]:
    """Draw the points group by group; return the entries of the legend."""
    labels, counts = np.unique(np.array(names), return_counts=True)
    if len(labels) > MAX_GROUPS:
        shown = set(labels[np.argsort(-counts, kind="stable")][: MAX_GROUPS - 1].tolist())
        names = [name if name in shown else f"{len(labels) - len(shown)} others" for name in names]
    ordered = sorted(set(names), key=lambda name: (name.endswith(" others"), name))
    handles = []
    for index, name in enumerate(ordered):
        selected = np.array([other == name for other in names])
        style = {"color": category(index), "marker": marker(index), "label": plain(shorten(name or "unknown", 18))}
        handles.append(
            panel.scatter(*positions[selected].T, s=13, linewidths=0, alpha=0.8, rasterized=len(names) > 2000, **style)
        )
    return handles
