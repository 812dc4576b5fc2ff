"""A search recipe: everything that decides a search for an architecture (EmotionNAS, Sun et al., arXiv 2203.13617 v1).

Three stages: cells of the spectrogram branch, the cell of the recurrent branch, their fusion. Every training of a stage is an
ordinary `Recipe`, so that what a search finds is trained, scored, exported and reported as any other model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from affekt.config import decode, encode, override, read_toml
from affekt.corpora.source import Source
from affekt.errors import BadConfig
from affekt.features.augment import Augmentation
from affekt.models import models
from affekt.models.emotionnas.cell_graphs import CellGraph, compile_cell_graph
from affekt.models.emotionnas.genotypes import Genotype, get_genotype, random_genotype
from affekt.models.emotionnas.random_cells import fingerprint, random_cell_graph
from affekt.registry import did_you_mean
from affekt.runs.selection import Rule
from affekt.search.darts import ArchitectureSearchConfig
from affekt.search.halving import Halving
from affekt.training.recipe import BRANCHES, FUSION, RECIPES, Recipe, TrainingConfig

SEARCHES = RECIPES / "searches"
DARTS = "darts"  # the strategy of spectrogram.search
Cell = str | CellGraph  # a recurrent recipe's name, or itself


@dataclass(frozen=True)
class SpectrogramStage:
    """Cells by differentiable search (section 2.1)."""

    search: TrainingConfig
    """The training of the supernet. Its strategy is "darts"."""
    training: TrainingConfig  # of the derived network, of those of random cells and of known ones
    model: Mapping[str, Any] = field(default_factory=dict)  # the search's network's settings
    derived: Mapping[str, Any] = field(default_factory=dict)  # settings in which a derived network differs from it
    # After which of the search's epochs the cells are read off: DARTS takes the last.
    genotype_from: Literal["last", "selection"] = "last"
    random: int | Literal["budget"] = (
        "budget"  # random cells beside the found one; "budget": as many as the search's time pays for
    )
    known: tuple[str, ...] = ("darts-v2",)  # published cells beside it

    def __post_init__(self) -> None:
        if self.search.strategy.get("name", DARTS) != DARTS:
            raise BadConfig(f"spectrogram.search.strategy.name: expected {DARTS!r}, the only search of cells")
        if self.random != "budget" and self.random < 0:
            raise BadConfig(f"spectrogram.random = {self.random}: expected 'budget', or a number of random cells")
        for name in self.known:
            get_genotype(name)

    @property
    def learn_alphas_on(self) -> str:
        """The utterances that the alphas learn from: "validation" or "half"."""
        return str(self.search.strategy.get("learn_alphas_on", ArchitectureSearchConfig.learn_alphas_on))


@dataclass(frozen=True)
class RecurrentStage:
    """A cell among candidate recipes: the one of the lowest loss on the validation part (section 2.2)."""

    training: TrainingConfig
    model: Mapping[str, Any] = field(default_factory=dict)
    # Published candidates by name. The paper takes cells that others searched on the Penn Tree Bank: which, it does not say.
    candidates: tuple[str, ...] = ("id1010120", "id1008530", "id1006491", "id1010355")
    drawn: int = 0  # beyond the paper: candidates drawn from the search space
    halving: Halving | None = None  # None: every candidate is trained to its end, as in the paper
    random: int | Literal["budget"] = (
        "budget"  # recipes drawn without a search beside the found one; "budget": for as many epochs
    )
    known: tuple[str, ...] = ("lstm", "gru")

    def __post_init__(self) -> None:
        if self.drawn < 0 or (self.random != "budget" and self.random < 0):
            raise BadConfig(f"recurrent.drawn = {self.drawn}, random = {self.random}: expected no negative number")
        if len(self.candidates) + self.drawn < 1:
            raise BadConfig("recurrent has no candidate: name some, or draw some")
        if twice := [name for name in self.candidates if self.candidates.count(name) > 1]:
            raise BadConfig(f"recurrent.candidates names {twice[0]} twice")
        for name in (*self.candidates, *self.known):
            compile_cell_graph(name)

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """After how many epochs each round ends, and how many candidates it keeps."""
        count = len(self.candidates) + self.drawn
        return self.halving.plan(count, self.training.epochs) if self.halving else [(self.training.epochs, 1)]

    @property
    def budget(self) -> int:
        """The epochs of all candidates together."""
        count = len(self.candidates) + self.drawn
        return (self.halving or Halving(first=self.training.epochs)).cost(count, self.training.epochs)


@dataclass(frozen=True)
class FusionStage:
    """The perceptron over the two found networks (section 2.3). `training.subset` says on whose answers it is trained."""

    training: TrainingConfig
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchRecipe:
    """What is not here means what it means in a `Recipe`. A stage that is left out is not run."""

    name: str
    labels: str
    corpora: tuple[str | Source, ...]
    protocol: Mapping[str, Any]
    encoder: Mapping[str, Any] = field(default_factory=dict)  # of the recurrent branch
    streams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # `spectrogram`
    spectrogram: SpectrogramStage | None = None
    recurrent: RecurrentStage | None = None
    fusion: FusionStage | None = None
    seed: int = 0
    split_seed: int = 0
    folds: tuple[int, ...] = ()
    repeats: int = 1  # searches, alike but for their seeds
    selection: Rule = "validation"  # of the epoch, in every training
    about: str = ""

    def __post_init__(self) -> None:
        """What is named must exist before anything is computed, so every training's recipe is made once."""
        if not self.spectrogram and not self.recurrent:
            raise BadConfig("a search recipe needs spectrogram, recurrent, or both")
        if self.fusion and not (self.spectrogram and self.recurrent):
            raise BadConfig("fusion stands over both branches: give spectrogram and recurrent")
        if self.repeats < 1:
            raise BadConfig(f"repeats = {self.repeats}: expected at least 1")
        self._check_parts()
        if self.spectrogram:
            self.of_supernet(1, 0)
            self.of_cells("found", self.random_cells(0, 1), 1, 0)
            for known in self.spectrogram.known:
                self.of_cells("known", known, 1, 0)
        if self.recurrent:
            self.of_recipe("candidate", "gru", 1, 0)
            if not self.of_recipe("candidate", "gru", 1, 0).build_protocol().has_validation:
                raise BadConfig(
                    "a recurrent cell is chosen on the validation part: give the protocol its setting validation"
                )
        if self.spectrogram and self.spectrogram.random and not self.of_supernet(1, 0).build_protocol().has_validation:
            raise BadConfig(
                "a random search picks its best on the validation part: give the protocol its setting validation, or "
                "set spectrogram.random = 0"
            )
        if self.fusion:
            self._check_fusion()

    def _check_parts(self) -> None:
        """Raise `BadConfig` for a stage that trains on the part by which it is chosen."""
        stages = {
            "spectrogram.search": self.spectrogram and self.spectrogram.search,
            "spectrogram.training": self.spectrogram and self.spectrogram.training,
            "recurrent.training": self.recurrent and self.recurrent.training,
        }
        for name, training in stages.items():
            if training and training.subset != "train":
                raise BadConfig(
                    f"{name}.subset = {training.subset!r}: only the fusion can be trained on another subset"
                )
        for name in ("spectrogram", "recurrent", "fusion"):
            stage = getattr(self, name)
            if stage and stage.training.strategy.get("name") == DARTS:
                raise BadConfig(
                    f"{name}.training.strategy.name = {DARTS!r}: only spectrogram.search can be such a search"
                )

    def _check_fusion(self) -> None:
        """Raise `BadConfig` for settings of the fusion that its recipe, which needs finished branches, would refuse."""
        assert self.fusion
        branches = {
            "spectrogram": self.of_cells("found", self.random_cells(0, 1), 1, 0),
            "recurrent": self.of_recipe("candidate", "gru", 1, 0),
        }
        settings = {
            branch: {name: value for name, value in one.model.items() if name != "name"}
            for branch, one in branches.items()
        }
        model = {**settings, **self.fusion.model, "name": FUSION, "frozen": False}
        self._recipe("fusion", model, self.fusion.training, 1, 0)

    @property
    def branches(self) -> list[Recipe]:
        """A recipe of each branch that is searched."""
        cells = [self.of_supernet(1, 0)] if self.spectrogram else []
        return cells + ([self.of_recipe("candidate", "gru", 1, 0)] if self.recurrent else [])

    @property
    def needs_validation(self) -> bool:
        """Whether anything in the search is chosen, or trained, on the validation part."""
        cells = self.spectrogram
        return bool(
            self.recurrent
            or self.selection.startswith("validation")
            or (cells and (cells.random or cells.learn_alphas_on == "validation"))
        )

    @property
    def _nodes(self) -> int:
        return int(self.spectrogram.model.get("nodes", 4)) if self.spectrogram else 4

    def of_supernet(self, fold: int, repeat: int) -> Recipe:
        """The recipe of the search's network."""
        assert self.spectrogram
        model = {**self.spectrogram.model, "name": BRANCHES["spectrogram"]}
        search = self.spectrogram.search
        training = replace(search, strategy={"name": DARTS, **search.strategy})
        return self._recipe("spectrogram-search", model, training, fold, repeat)

    def of_cells(self, what: str, genotype: str | Genotype, fold: int, repeat: int) -> Recipe:
        """The recipe of a network of these cells."""
        assert self.spectrogram
        cells = genotype if isinstance(genotype, str) else encode(genotype)
        settings = {**self.spectrogram.model, **self.spectrogram.derived, "genotype": cells}
        model = {**settings, "name": BRANCHES["spectrogram"]}
        return self._recipe(f"spectrogram-{what}", model, self.spectrogram.training, fold, repeat)

    def of_recipe(self, what: str, cell: Cell, fold: int, repeat: int) -> Recipe:
        """The recipe of a network of this recurrent cell."""
        assert self.recurrent
        model = {**self.recurrent.model, "recipe": cell, "name": BRANCHES["recurrent"]}
        return self._recipe(f"recurrent-{what}", model, self.recurrent.training, fold, repeat)

    def of_fusion(self, branches: Mapping[str, Path], fold: int, repeat: int) -> Recipe:
        """The recipe of the perceptron over two finished runs."""
        assert self.fusion
        made = self._recipe("fusion", {"name": FUSION}, self._fusion_training, fold, repeat, branches)
        return replace(made, model={**made.model, **self.fusion.model})

    @property
    def _fusion_training(self) -> TrainingConfig:
        """The fusion's training; branches that stay as they are are run once, not in every epoch."""
        assert self.fusion
        training = self.fusion.training
        frozen = self.fusion.model.get("frozen", True) and training.augmentation == Augmentation()
        return replace(training, strategy={"name": "frozen-fusion" if frozen else "supervised", **training.strategy})

    def _recipe(
        self,
        what: str,
        model: Mapping[str, Any],
        training: TrainingConfig,
        fold: int,
        repeat: int,
        branches: Mapping[str, Path] | None = None,
    ) -> Recipe:
        taken = models[model["name"]].streams
        return Recipe(
            name=f"{self.name}-{what}",
            labels=self.labels,
            corpora=self.corpora,
            protocol=self.protocol,
            training=training,
            encoder=self.encoder if "speech" in taken else {},
            streams={stream: section for stream, section in self.streams.items() if stream in taken},
            model=model,
            branches={branch: str(folder) for branch, folder in (branches or {}).items()},
            seed=self.seed + repeat,
            split_seed=self.split_seed,
            folds=(fold,),
            selection="last" if training.subset == "validation" else self.selection,
            about=self.about,
        )

    def resolved(self, fold: int, repeat: int) -> dict[str, Any]:
        """What decides one search, every default written out."""
        settings = {**encode(self), "seed": self.seed + repeat, "folds": [fold]}
        return {name: value for name, value in settings.items() if name not in ("repeats", "about")}

    def random_cells(self, repeat: int, number: int) -> Genotype:
        """The random cell of a number, from 1: the same however many are asked for."""
        return random_genotype(_drawing(self.seed + repeat, 1, number), self._nodes)

    def candidates(self, repeat: int) -> dict[str, Cell]:
        """The candidate recipes by name: published ones, then drawn ones, each once."""
        assert self.recurrent
        named: dict[str, Cell] = {name: name for name in self.recurrent.candidates}
        return {**named, **_drawn(_drawing(self.seed + repeat, 2), self.recurrent.drawn)}

    def random_recipes(self, repeat: int, count: int) -> dict[str, Cell]:
        """Recipes drawn without a search, by name, each once."""
        return _drawn(_drawing(self.seed + repeat, 3), count)


def _drawing(*numbers: int) -> np.random.Generator:
    return np.random.default_rng(list(numbers))


def _drawn(generator: np.random.Generator, count: int) -> dict[str, Cell]:
    recipes: dict[str, Cell] = {}
    while len(recipes) < count:
        recipe = random_cell_graph(generator)
        recipes.setdefault(f"drawn-{fingerprint(recipe)}", recipe)
    return recipes


def load_search(source: str, assignments: list[str] | None = None) -> SearchRecipe:
    """A search recipe from a TOML file or by the name of a shipped one, with `key=value` assignments applied."""
    path = SEARCHES / f"{source}.toml" if source in shipped_searches() else Path(source)
    if not path.is_file():
        known = shipped_searches()
        raise BadConfig(f"there is no search {source!r}{did_you_mean(source, known)} (shipped: {', '.join(known)})")
    return decode(SearchRecipe, override(read_toml(path), assignments or []), str(path))


def shipped_searches() -> list[str]:
    return sorted(path.stem for path in SEARCHES.glob("*.toml"))
