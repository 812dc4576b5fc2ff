"""The rows of a paper's table that are to be reproduced: their recipes, adapted to this machine and labeled accordingly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from affekt.config import read_toml
from affekt.corpora.source import Source
from affekt.models import models
from affekt.published import Assumption, PublishedResult
from affekt.recipe_files import RECIPES, find_file, read_extended, shipped_files
from affekt.runs.folder import Run
from affekt.runs.groups import is_finished
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe, load_recipe
from affekt.workflows.job import Job
from affekt.workflows.jobs import Launcher
from affekt.workflows.paper_encoders import ChosenEncoder, replace_encoders

QUICK_EPOCHS = 2
QUICK = "quick: small widths, few epochs, one fold"
SMALL = "small"
"""The preset of every model that is meant for two CPU cores."""


@dataclass(frozen=True)
class Request:
    """The options of a reproduction."""

    corpora: Mapping[str, str] = field(default_factory=dict)
    """Corpus -> its folder; others are below AFFEKT_DATA."""
    encoders: Mapping[str, str] = field(default_factory=dict)
    """Folder in the recipe -> a path, or a stand-in; see `replace_encoders`."""
    seeds: tuple[int, ...] = ()
    """The seeds; those of the recipe if empty."""
    folds: tuple[int, ...] = ()
    """The folds, counted from 1; all if empty."""
    quick: bool = False
    """Shrink widths, epochs and folds, to test that everything works."""
    device: str = "cpu"


class RowRecipe(Protocol):
    """A recipe of training or of a search."""

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def repeats(self) -> int: ...
    @property
    def published(self) -> PublishedResult | None: ...
    @property
    def assumptions(self) -> tuple[Assumption, ...]: ...
    @property
    def features(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def corpora(self) -> tuple[str | Source, ...]: ...


AnyRecipe = TypeVar("AnyRecipe", bound=Any)


@dataclass(frozen=True)
class Unit:
    """The training of a row with one fold and one seed."""

    fold: int
    seed: int
    folder: Path


@dataclass(frozen=True)
class Row(ABC):
    """A row of a paper's table, with its recipe adapted to the request."""

    recipe: RowRecipe
    encoders: Mapping[str, ChosenEncoder]
    """Stream -> its encoder."""
    seeds: tuple[int, ...]
    remarks: tuple[str, ...]
    """How the row differs from the paper's: stand-ins, quick. Printed in every line about the row."""

    @property
    @abstractmethod
    def networks(self) -> Sequence[tuple[Plan, int]]:
        """The networks that a unit trains, and how many of each. All have the same corpora and protocol."""

    def jobs(self, units: Sequence[Unit]) -> list[Job]:  # noqa: ARG002
        """Return the jobs of units that do not depend on one another, so that they can run beside those of other rows."""
        return []

    @abstractmethod
    def train(self, units: Sequence[Unit], launcher: Launcher) -> None:
        """Train all units; resume those that were interrupted."""

    @abstractmethod
    def scored_run(self, folder: Path) -> Run:
        """Return the run in a unit's folder whose predictions are the row's result."""

    def is_finished(self, unit: Unit) -> bool:
        """Return True if a unit needs no more training."""
        run = self.scored_run(unit.folder)
        return run.config_path.is_file() and is_finished(run)

    @property
    def published(self) -> PublishedResult:
        assert self.recipe.published
        return self.recipe.published

    @property
    def plan(self) -> Plan:
        """The plan of the first network, for corpora, protocol and features."""
        return self.networks[0][0]


@dataclass(frozen=True)
class TrainingRow(Row):
    """A row whose recipe trains one network."""

    recipe: Recipe

    @cached_property
    def networks(self) -> Sequence[tuple[Plan, int]]:
        return [(resolve(self.recipe), 1)]

    def jobs(self, units: Sequence[Unit]) -> list[Job]:
        return [Job(replace(self.recipe, folds=(unit.fold,), seed=unit.seed, repeats=1), unit.folder) for unit in units]

    def train(self, units: Sequence[Unit], launcher: Launcher) -> None:
        launcher.run(self.jobs(units))

    def scored_run(self, folder: Path) -> Run:
        return Run(folder)


def training_row(name: str, request: Request) -> TrainingRow:
    """Return the row of a training recipe. Raises `BadConfig` if the request does not fit it."""
    recipe = load_recipe(name)
    recipe = replace(recipe, training=replace(recipe.training, device=request.device))
    if request.quick:
        recipe = _shrink(recipe, _changed_model_settings(name))
    recipe, encoders, seeds, remarks = adapt(recipe, request)
    return TrainingRow(recipe, encoders, seeds, remarks)


def adapt(
    recipe: AnyRecipe, request: Request
) -> tuple[AnyRecipe, dict[str, ChosenEncoder], tuple[int, ...], tuple[str, ...]]:
    """Adapt a recipe of training or of a search to a request.

    A recipe with a stand-in or of reduced size gets another name and another note, so that neither its runs nor their reports
    have the name of the paper's row alone.

    Returns:
        The recipe, the encoder of each stream, the seeds, and remarks on how it differs from the paper's.
    """
    features, encoders = replace_encoders(recipe.features, request.encoders)
    seeds = request.seeds or tuple(range(recipe.seed, recipe.seed + recipe.repeats))
    sources = tuple(_locate(Source.of(entry), request.corpora) for entry in recipe.corpora)
    folds = request.folds or ((1,) if request.quick else recipe.folds)
    recipe = replace(recipe, features=features, corpora=sources, folds=folds)
    stand_ins = sorted({encoder.title("") for encoder in encoders.values() if encoder.stand_in})
    remarks = (*((QUICK,) if request.quick else ()), *stand_ins)
    if remarks:
        suffix = "-".join([*(["quick"] if request.quick else []), *(["stand-in"] if stand_ins else [])])
        note = f"NOT comparable: {'; '.join(remarks)}"
        recipe = replace(recipe, name=f"{recipe.name}-{suffix}", published=replace(recipe.published, note=note))
    return recipe, encoders, seeds[:1] if request.quick and not request.seeds else seeds, remarks


def _locate(source: Source, roots: Mapping[str, str]) -> Source:
    return replace(source, root=roots[source.name]) if source.name in roots else source


def _changed_model_settings(name: str) -> frozenset[str]:
    """Return the names of the model settings that a recipe changes in the one that it extends."""
    path = find_file("recipe", RECIPES, name)
    content = read_toml(path)
    if "extends" not in content:
        return frozenset()
    base = read_extended(find_file("recipe", RECIPES, content["extends"], beside=path.parent), "recipe", RECIPES)
    inherited = base.get("model", {})
    return frozenset(key for key, value in content.get("model", {}).items() if value != inherited.get(key))


def _shrink(recipe: Recipe, kept: frozenset[str]) -> Recipe:
    """Return a recipe with the sizes of the model's small preset, but the settings that make the row what it is."""
    kind, _ = models.resolve(recipe.model["name"])
    small = {name: value for name, value in kind.presets[SMALL].items() if name not in kept}
    training = replace(
        recipe.training,
        epochs=min(QUICK_EPOCHS, recipe.training.epochs),
        batch_size=min(16, recipe.training.batch_size),
    )
    return replace(recipe, model={**recipe.model, **small}, training=training)


def is_training_recipe(name: str) -> bool:
    """Return True for a shipped training recipe, or a file."""
    return name in shipped_files(RECIPES) or Path(name).is_file()
