"""A search recipe: all settings of an architecture search (EmotionNAS, Sun et al., arXiv 2203.13617 v1).

A search has three stages: the cells of the spectrogram branch, the cell of the recurrent branch, and the fusion of the two
networks. Every training run of a stage has an ordinary `Recipe`, so its network is trained, scored, exported and reported
like any other model.

A search recipe is data. `affekt.search.plan.check_search` makes the checks that need a registry or the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from affekt.config import decode_named, encode
from affekt.corpora.source import Source
from affekt.errors import BadConfig
from affekt.features.augment import Augmentation
from affekt.models import models
from affekt.models.emotionnas.cell_graphs import CellGraph, compile_cell_graph
from affekt.models.emotionnas.genotypes import Genotype, get_genotype, random_genotype
from affekt.models.emotionnas.random_cells import fingerprint, random_cell_graph
from affekt.published import Assumption, PublishedResult
from affekt.recipe_files import SEARCHES, load_settings, shipped_files
from affekt.runs.folder import DESCRIPTIONS
from affekt.runs.selection import Rule
from affekt.search.darts import ArchitectureSearchConfig
from affekt.search.halving import Halving
from affekt.training.recipe import Recipe, TrainingConfig
from affekt.training.strategies import DEFAULT, strategies

SPECTROGRAM, RECURRENT, FUSION = "emotionnas-spectrogram", "emotionnas-recurrent", "emotionnas-fusion"
DARTS = "darts"
"""The strategy of `spectrogram.search`."""

Cell = str | CellGraph
"""A recurrent cell: the name of a published one, or its graph."""


@dataclass(frozen=True)
class SpectrogramStage:
    """The cells of the spectrogram branch, found by differentiable search (section 2.1)."""

    search: TrainingConfig
    """How the supernet is trained. The strategy is "darts"."""
    training: TrainingConfig
    """How the derived network is trained, and the networks of random and of published cells."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """The supernet's model settings."""
    derived: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the derived network, and of the networks of random and published cells, that differ from the supernet's."""
    genotype_from: Literal["last", "selection"] = "last"
    """The epoch that the cells are derived from: the last, as in DARTS, or the one that `selection` selects."""
    random: int | Literal["budget"] = "budget"
    """Number of random cells to compare with; "budget" trains as many as the time of the search allows."""
    known: tuple[str, ...] = ("darts-v2",)
    """Published cells to compare with."""

    def __post_init__(self) -> None:
        if self.search.strategy.get("name", DARTS) != DARTS:
            raise BadConfig(f"spectrogram.search.strategy.name: expected {DARTS!r}, the only search strategy")
        if self.random != "budget" and self.random < 0:
            raise BadConfig(f"spectrogram.random = {self.random}: expected 'budget', or a number of at least 0")
        for name in self.known:
            get_genotype(name)

    @property
    def learn_alphas_on(self) -> str:
        """The utterances that the alphas learn from: "validation" or "half"."""
        return str(self.search.strategy.get("learn_alphas_on", ArchitectureSearchConfig.learn_alphas_on))


@dataclass(frozen=True)
class RecurrentStage:
    """The cell of the recurrent branch, selected among candidates by its loss on the validation subset (section 2.2)."""

    training: TrainingConfig
    """How the networks of candidates, of random and of published cells are trained."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """The settings of these networks."""
    candidates: tuple[str, ...] = ("id1010120", "id1008530", "id1006491", "id1010355")
    """Published candidates. The paper does not name its candidates, which earlier work found on the Penn Tree Bank."""
    random_candidates: int = 0
    """Number of further candidates, drawn at random from the search space; not in the paper."""
    halving: Halving | None = None
    """Successive halving of the candidates; None trains every candidate to its last epoch, as in the paper."""
    random: int | Literal["budget"] = "budget"
    """Number of random cells to compare with; "budget" trains as many as the epochs of all candidates allow."""
    known: tuple[str, ...] = ("lstm", "gru")
    """Published cells to compare with."""

    renamed: ClassVar[Mapping[str, str]] = {"drawn": "random_candidates"}

    def __post_init__(self) -> None:
        if self.random_candidates < 0 or (self.random != "budget" and self.random < 0):
            raise BadConfig(
                f"recurrent.random_candidates = {self.random_candidates}, recurrent.random = {self.random}: "
                "expected numbers of at least 0"
            )
        if self.num_candidates < 1:
            raise BadConfig("recurrent has no candidate: set candidates or random_candidates")
        if repeated := [name for name in self.candidates if self.candidates.count(name) > 1]:
            raise BadConfig(f"recurrent.candidates names {repeated[0]} twice")
        for name in (*self.candidates, *self.known):
            compile_cell_graph(name)

    @property
    def num_candidates(self) -> int:
        """Number of candidates, published and drawn at random."""
        return len(self.candidates) + self.random_candidates

    @property
    def rounds(self) -> list[tuple[int, int]]:
        """For each round, its last epoch and the number of candidates that are kept after it."""
        if self.halving is None:
            return [(self.training.epochs, 1)]
        return self.halving.rounds(self.num_candidates, self.training.epochs)

    @property
    def budget(self) -> int:
        """Number of epochs that all candidates together are trained for."""
        if self.halving is None:
            return self.num_candidates * self.training.epochs
        return self.halving.total_epochs(self.num_candidates, self.training.epochs)


@dataclass(frozen=True)
class FusionStage:
    """A perceptron that fuses the two found networks (section 2.3)."""

    training: TrainingConfig
    """How the perceptron is trained. `subset` is the subset that it is trained on."""
    model: Mapping[str, Any] = field(default_factory=dict)
    """The fusion's settings."""


@dataclass(frozen=True)
class SearchRecipe:
    """Settings of a search. Fields without a description are those of a `Recipe`. A stage that is left out is not run."""

    name: str
    labels: str
    corpora: tuple[str | Source, ...]
    protocol: Mapping[str, Any]
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`spectrogram` is the input of the spectrogram branch, `speech` that of the recurrent branch."""
    spectrogram: SpectrogramStage | None = None
    recurrent: RecurrentStage | None = None
    fusion: FusionStage | None = None
    seed: int = 0
    split_seed: int = 0
    folds: tuple[int, ...] = ()
    repeats: int = 1
    """Number of searches, with the seeds `seed`, `seed` + 1, ..."""
    device: str = ""
    """Device of every training run, such as "cuda"; if empty, each stage's own `training.device`."""
    selection: Rule = "validation"
    """The rule that selects the epoch in every training run."""
    about: str = ""
    published: PublishedResult | None = None
    assumptions: tuple[Assumption, ...] = ()

    renamed: ClassVar[Mapping[str, str]] = {"encoder": "features.speech", "streams": "features"}

    def __post_init__(self) -> None:
        if not self.spectrogram and not self.recurrent:
            raise BadConfig("a search recipe needs spectrogram, recurrent, or both")
        if self.fusion and not (self.spectrogram and self.recurrent):
            raise BadConfig("the fusion needs both branches: add spectrogram and recurrent")
        if self.repeats < 1 or self.seed < 0:
            raise BadConfig(
                f"repeats = {self.repeats}, seed = {self.seed}: expected at least 1 run, and a seed of 0 or more"
            )
        for name, training in self._training_settings.items():
            if training.subset != "train" and name != "fusion.training":
                raise BadConfig(
                    f"{name}.subset = {training.subset!r}: expected 'train'; only the fusion may be trained on another subset"
                )
            if training.strategy.get("name") == DARTS and name != "spectrogram.search":
                raise BadConfig(f"{name}.strategy.name = {DARTS!r}: only spectrogram.search can have this strategy")

    @property
    def _training_settings(self) -> dict[str, TrainingConfig]:
        """Section of the search recipe, such as "fusion.training" -> its settings of training."""
        trainings = {"spectrogram.search": self.spectrogram.search} if self.spectrogram else {}
        stages = {"spectrogram": self.spectrogram, "recurrent": self.recurrent, "fusion": self.fusion}
        return trainings | {f"{name}.training": stage.training for name, stage in stages.items() if stage}

    @property
    def branch_recipes(self) -> list[Recipe]:
        """A recipe of each branch that is searched, to check its settings: the supernet, and a recurrent network."""
        supernet = [self.supernet_recipe(1, 0)] if self.spectrogram else []
        return supernet + ([self.recurrent_recipe("candidate", "gru", 1, 0)] if self.recurrent else [])

    @property
    def needs_validation(self) -> bool:
        """True if the search selects or trains anything on the validation subset."""
        stage = self.spectrogram
        return bool(
            self.recurrent
            or self.selection.startswith("validation")
            or (stage and (stage.random or stage.learn_alphas_on == "validation"))
        )

    @property
    def _num_nodes(self) -> int:
        return int(self.spectrogram.model.get("nodes", 4)) if self.spectrogram else 4

    def supernet_recipe(self, fold: int, repeat: int) -> Recipe:
        """Return the recipe of the supernet."""
        assert self.spectrogram
        model = {**self.spectrogram.model, "name": SPECTROGRAM}
        search = self.spectrogram.search
        training = replace(search, strategy={"name": DARTS, **search.strategy})
        return self._recipe("spectrogram-search", model, training, fold, repeat)

    def spectrogram_recipe(self, kind: str, genotype: str | Genotype, fold: int, repeat: int) -> Recipe:
        """Return the recipe of a spectrogram network.

        Args:
            kind: "found", "random" or "known".
            genotype: The cells, or the name of published ones.
            fold: Number of the fold, from 1.
            repeat: Number of the repeat, from 0, which is added to the seed.
        """
        assert self.spectrogram
        settings = {**self.spectrogram.model, **self.spectrogram.derived}
        model = {
            **settings,
            "genotype": genotype if isinstance(genotype, str) else encode(genotype),
            "name": SPECTROGRAM,
        }
        return self._recipe(f"spectrogram-{kind}", model, self.spectrogram.training, fold, repeat)

    def recurrent_recipe(self, kind: str, cell: Cell, fold: int, repeat: int) -> Recipe:
        """Return the recipe of a recurrent network of this cell; `kind` is "candidate", "random" or "known"."""
        assert self.recurrent
        model = {**self.recurrent.model, "recipe": cell, "name": RECURRENT}
        return self._recipe(f"recurrent-{kind}", model, self.recurrent.training, fold, repeat)

    def fusion_recipe(self, branches: Mapping[str, Path], fold: int, repeat: int) -> Recipe:
        """Return the recipe of the perceptron that fuses two finished runs; `branches` maps each branch to its run folder."""
        assert self.fusion
        model = {"name": FUSION, **self.fusion.model}
        return self._recipe("fusion", model, self._fusion_training, fold, repeat, branches)

    @property
    def _fusion_training(self) -> TrainingConfig:
        """Settings of the fusion's training. Outputs of frozen branches are computed once instead of in every epoch."""
        assert self.fusion
        training = self.fusion.training
        frozen = self.fusion.model.get("frozen", True) and training.augmentation == Augmentation()
        return replace(training, strategy={"name": "frozen-fusion" if frozen else "supervised", **training.strategy})

    def fusion_recipe_without_runs(self) -> Recipe:
        """Return a recipe of the fusion, unfrozen, that needs no finished runs, to check its settings."""
        assert self.fusion
        branches = {
            "spectrogram": self.spectrogram_recipe("found", self.random_genotype(0, 1), 1, 0),
            "recurrent": self.recurrent_recipe("candidate", "gru", 1, 0),
        }
        settings = {
            branch: {name: value for name, value in recipe.model.items() if name != "name"}
            for branch, recipe in branches.items()
        }
        model = {**settings, **self.fusion.model, "name": FUSION, "frozen": False}
        return self._recipe("fusion", model, self.fusion.training, 1, 0)

    def _recipe(
        self,
        suffix: str,
        model: Mapping[str, Any],
        training: TrainingConfig,
        fold: int,
        repeat: int,
        weights_from: Mapping[str, Path] | None = None,
    ) -> Recipe:
        streams = models[model["name"]].streams
        training = replace(training, device=self.device or training.device)
        return Recipe(
            name=f"{self.name}-{suffix}",
            labels=self.labels,
            corpora=self.corpora,
            protocol=self.protocol,
            training=training,
            features={stream: section for stream, section in self.features.items() if stream in streams},
            model=model,
            weights_from={branch: str(folder) for branch, folder in (weights_from or {}).items()},
            seed=self.seed + repeat,
            split_seed=self.split_seed,
            folds=(fold,),
            selection="last" if training.subset == "validation" else self.selection,
            about=self.about,
        )

    def resolve(self, fold: int, repeat: int) -> dict[str, Any]:
        """Return the settings of the search of one fold and seed, including all defaults."""
        settings = {**encode(self), "seed": self.seed + repeat, "folds": [fold]}
        for section, training in self._training_settings.items():
            stage, name = section.split(".")
            strategy = {"name": DARTS if name == "search" else DEFAULT, **training.strategy}
            if stage == "fusion":
                strategy = dict(self._fusion_training.strategy)
            _, config = decode_named(strategies, strategy, f"{section}.strategy")
            settings[stage][name]["strategy"] = {**strategy, **encode(config)}
        return {
            name: value for name, value in settings.items() if name not in ("repeats", "device", "about", *DESCRIPTIONS)
        }

    def random_genotype(self, repeat: int, number: int) -> Genotype:
        """Return random cells by their number, from 1. They do not depend on how many others are generated."""
        return random_genotype(_generator(self.seed + repeat, 1, number), self._num_nodes)

    def candidates(self, repeat: int) -> dict[str, Cell]:
        """Return the candidates for the recurrent cell by name: published ones, then distinct random ones."""
        assert self.recurrent
        published: dict[str, Cell] = {name: name for name in self.recurrent.candidates}
        return {
            **published,
            **_draw_recurrent_cells(_generator(self.seed + repeat, 2), self.recurrent.random_candidates),
        }

    def random_recurrent_cells(self, repeat: int, count: int) -> dict[str, Cell]:
        """Return distinct random recurrent cells to compare with, by name."""
        return _draw_recurrent_cells(_generator(self.seed + repeat, 3), count)


def _generator(*seeds: int) -> np.random.Generator:
    """Return a generator seeded with the search's seed and a number that differs between purposes."""
    return np.random.default_rng(list(seeds))


def _draw_recurrent_cells(generator: np.random.Generator, count: int) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    while len(cells) < count:
        cell = random_cell_graph(generator)
        cells.setdefault(f"drawn-{fingerprint(cell)}", cell)
    return cells


def load_search(source: str, assignments: list[str] | None = None) -> SearchRecipe:
    """Load a search recipe from a TOML file or by the name of a shipped one, and apply `key=value` assignments.

    Raises:
        BadConfig: There is no such recipe, or it has unknown keys or invalid values.
    """
    return load_settings(SearchRecipe, "search recipe", SEARCHES, source, assignments)


def shipped_searches() -> list[str]:
    """Return the names of the search recipes inside the package."""
    return list(shipped_files(SEARCHES))
