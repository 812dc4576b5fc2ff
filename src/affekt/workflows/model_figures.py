"""The figures that need the trained models of runs: embeddings, attention, and the fractions of scales."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.cost.count import count_operations
from affekt.errors import AffektError
from affekt.reports.figures.base import Figure
from affekt.reports.figures.cost import Point, draw_cost
from affekt.reports.figures.from_runs import ScoredGroup, cost_point
from affekt.reports.figures.projection import METHODS, Embedding, draw_projection
from affekt.reports.sections import PageOptions
from affekt.utterance import Utterance
from affekt.workflows.examples import Example, attention_figures, example_of_run, scales_figure
from affekt.workflows.trained_run import TrainedRun, batches_of, open_run

logger = logging.getLogger(__name__)

MAX_POINTS = 800
"""Largest number of utterances that are projected; if there are more, every n-th is taken."""
FUSED = "fused"


@dataclass(frozen=True)
class RunEmbeddings:
    """The embeddings of a run's utterances."""

    embeddings: Mapping[str, NDArray[np.float32]]
    """Name, such as "speech" -> (utterances, width)."""
    keys: tuple[str, ...]
    emotions: tuple[str, ...]
    """The true emotion of each utterance."""
    speakers: tuple[str, ...]
    """The speaker of each utterance; "" for an unknown one."""

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Title of a coloring -> the group of each utterance; without speakers if none is known."""
        return {"emotion": self.emotions, **({"speaker": self.speakers} if any(self.speakers) else {})}


@torch.inference_mode()
def embed(trained: TrainedRun, subset: str = "test") -> RunEmbeddings:
    """Return the embeddings of a subset that the run's model explains, of at most `MAX_POINTS` utterances."""
    dataset, utterances = trained.dataset(subset), trained.utterances(subset)
    chosen = list(range(0, len(dataset), -(-len(dataset) // MAX_POINTS)))
    model, parts = trained.model(), dict[str, list[NDArray[np.float32]]]()
    for batch in batches_of(dataset.select(chosen)):
        explanation = model.explain(batch)
        for name, key in model.explained_embeddings.items():
            if key in explanation:
                parts.setdefault(name, []).append(explanation[key].float().numpy())
    labels = [trained.data.label_index(dataset.ids[index]) for index in chosen]
    return RunEmbeddings(
        {name: np.concatenate(arrays) for name, arrays in parts.items()},
        tuple(dataset.ids[index] for index in chosen),
        tuple(trained.emotions[label] for label in labels),
        tuple(utterances[index].speaker for index in chosen),
    )


def embedding_figure(embedded: RunEmbeddings, name: str, method: str, subset: str = "test") -> Figure:
    """Draw all embeddings of one model, colored by emotion and by speaker."""
    caption = f"{len(embedded.keys)} utterances of the {subset} subset."
    embeddings = [Embedding(kind, vectors) for kind, vectors in embedded.embeddings.items()]
    return draw_projection(
        embeddings, embedded.groups, method=method, title=f"{METHODS[method]}, {name}", caption=caption
    )


def comparison_figure(by_name: Mapping[str, RunEmbeddings], method: str) -> Figure:
    """Draw the fused embeddings of several models of the same utterances side by side, such as those of ablations."""
    first = next(iter(by_name.values()))
    embeddings = [Embedding(name, embedded.embeddings[FUSED]) for name, embedded in by_name.items()]
    return draw_projection(
        embeddings,
        first.groups,
        method=method,
        title=f"{METHODS[method]}, fused embeddings, {', '.join(by_name)}",
        caption="What each classifier sees of the same utterances of the test subset.",
    )


def figures_of_models(
    same_split: Sequence[ScoredGroup], options: PageOptions
) -> tuple[dict[str, list[Figure]], list[str]]:
    """Return the figures of the models on one split by their heading, and why some could not be made.

    A figure shows the first fold of the first seed of a group of runs. All models have the same utterance as an example, a
    typical one of the first model.
    """
    figures: dict[str, list[Figure]] = {"Operations": [], "Embeddings": [], "Attention": [], "Scales": []}
    by_name: dict[str, RunEmbeddings] = {}
    problems, points, typical = list[str](), list[Point](), None
    for scored in same_split:
        run = scored.test.group.folds[0].run
        logger.info("figures of %s", run.folder)
        try:
            trained = open_run(run.folder)
            by_name[scored.name] = embed(trained)
            figures["Embeddings"] += [embedding_figure(by_name[scored.name], scored.name, m) for m in _methods()]
            typical = typical or _typical_utterance(trained)
            example = example_of_run(trained, trained.model(), typical, words=options.embed_text)
            title = f"{scored.name}, {example.name}"
            figures["Attention"] += attention_figures(example, title)
            figures["Scales"] += filter(None, [scales_figure(example, title)])
            if trained.plan.recipe.training.tune == "head":
                points.append(cost_point(scored, _count_operations(example)))
        except AffektError as error:
            problems.append(f"{scored.name}: {error}")
    if len(points) > 1 and typical is not None:
        title = f"Operations and accuracy, {same_split[0].split}"
        figures["Operations"] = [
            draw_cost(points, title=title, cost=f"FLOPs of the model for {typical.id}, without the encoder")
        ]
    if len(by_name) > 1:
        figures["Embeddings"].insert(0, comparison_figure(by_name, "tsne"))
    return figures, problems


def _count_operations(example: Example) -> int:
    """Return the floating-point operations of the model for an example; the model loses its weights."""
    model = example.model.to("meta")
    return count_operations(lambda: model(example.batch.to("meta")))


def _methods() -> list[str]:
    """Return the projections that can be computed here: UMAP only if its package is installed."""
    return [method for method in METHODS if method != "umap" or importlib.util.find_spec("umap")]


def _typical_utterance(trained: TrainedRun) -> Utterance:
    """Return a test utterance whose emotion is recognized, of about median length."""
    dataset = trained.dataset("test")
    right = trained.predictions("test").argmax(axis=1) == dataset.labels
    lengths = dataset.lengths()
    candidates = np.flatnonzero(right) if right.any() else np.arange(len(dataset))
    distance = np.abs(lengths[candidates] - np.median(lengths))
    return trained.data.utterances[dataset.ids[int(candidates[distance.argmin()])]]
