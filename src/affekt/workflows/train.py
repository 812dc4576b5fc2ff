"""From a recipe to finished runs: read, split, extract, train, for every fold and every seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from affekt.errors import BadConfig
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.models.emotionnas.fusion import DecisionFusion
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.runs.folder import Run, find_runs
from affekt.runs.selection import select_epoch
from affekt.training.checkpoint import load_state
from affekt.training.dataset import Dataset, scoring_batches
from affekt.training.distributed import processes, wait
from affekt.training.finetuning import TEACHER, FineTuned, feature_spec, initial_statistics
from affekt.training.loop import fit
from affekt.training.memory import keep_freed_memory
from affekt.training.recipe import Recipe
from affekt.training.strategies import Datasets, TrainingContext
from affekt.workflows.training_data import Say, TrainingData, build_datasets, recorded_split, speakers_of

SAMPLE = 600  # training utterances that tell what an encoder gives before it is trained


def check_one_model(recipe: Recipe, folds: int) -> None:
    """Raise `BadConfig` for trainings of which no one bundle can be made."""
    if folds > 1:
        raise BadConfig(
            f"{recipe.name} has {folds} folds, of which no one model comes: choose one, such as folds=[1], or make no bundle"
        )
    if recipe.training.tune == "all" and recipe.repeats > 1:
        raise BadConfig(f"{recipe.name} trains an encoder per seed, and a bundle has one: set repeats = 1")


def train(
    recipe: Recipe, folder: Path, *, one_model: bool = False, say: Say = print, progress: Progress | None = None
) -> list[Run]:
    """Train a recipe, a run folder per fold and seed; go on where an interrupted training in the same folder stopped.

    one_model: refuse at once what no bundle could be made of.
    Under torchrun several processes train one model (DDP). Raises `BadConfig` and `BadCorpus`.
    """
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    torch.use_deterministic_algorithms(True)
    with processes() as (rank, world):
        say = say if rank == 0 else _silent
        encoders = recipe.build_encoders()
        material = TrainingData.read(recipe, say)
        if recipe.training.tune == "all":
            encoders = {stream: encoder.front_end() for stream, encoder in encoders.items()}
        if unused := [stream for stream in recipe.filled if stream not in encoders]:
            say(f"{recipe.model_name} does without {', '.join(unused)} with these settings")
        folds = material.folds(recipe)
        if one_model:
            check_one_model(recipe, len(folds))
        places = {
            number: [run_folder(recipe, folder, number, repeat, len(folds)) for repeat in range(recipe.repeats)]
            for number, _ in folds
        }
        for number, split in folds:  # before hours of extraction
            for repeat, place in enumerate(places[number]):
                Run(place).check(recipe.resolved(repeat), recorded_split(recipe, split))
        runs = []
        for number, split in folds:
            datasets = build_datasets(recipe, encoders, material, split, say, progress if rank == 0 else None)
            for repeat, place in enumerate(places[number]):
                run = start_run(recipe, place, repeat, split, material, rank)
                say(f"seed {recipe.seed + repeat}: {place}")
                fit_run(recipe, run, material, datasets, rank=rank, world=world, say=say)
                runs.append(run)
    return runs


def start_run(recipe: Recipe, place: Path, repeat: int, split: Split, material: TrainingData, rank: int = 0) -> Run:
    """The run folder; where several processes train, the first makes it, and the others find it."""
    split = recorded_split(recipe, split)
    index = {one: material.index(one) for ids in split.subsets.values() for one in ids}
    if rank:
        wait()
    run = Run.start(place, recipe.resolved(repeat), split, material.labels.emotions, index)
    if not rank:
        wait()
    return run


def fit_run(
    recipe: Recipe,
    run: Run,
    material: TrainingData,
    datasets: Datasets,
    *,
    until: int | None = None,
    rank: int = 0,
    world: int = 1,
    say: Say = print,
) -> None:
    """Train a run to its end, or until an epoch. The seed is that of its folder."""
    keep_freed_memory()
    settings, seed = recipe.training, int(run.config["seed"])
    torch.manual_seed(seed)
    model = build(recipe, datasets.train, material.labels).to(settings.device)
    strategy_class, config = recipe.strategy_class()
    context = TrainingContext(
        batch_size=settings.batch_size,
        seed=seed,
        masking=settings.augmentation.masking,
        speakers=speakers_of(material.of(datasets.train.ids)),
    )
    strategy, datasets = strategy_class.prepare(config, model, datasets, context)
    fit(
        strategy,
        datasets.train,
        datasets.scored,
        run,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
        until=until,
        patience=settings.patience,
        sampling=settings.sampling,
        rank=rank,
        world=world,
        say=say,
    )


class Repeated(Protocol):
    """A recipe, of a training or of a search, that is repeated with consecutive seeds."""

    @property
    def seed(self) -> int: ...

    @property
    def repeats(self) -> int: ...


def run_folder(recipe: Repeated, folder: Path, fold: int, repeat: int, folds: int) -> Path:
    """Where a run stands: the folder itself for a single one, else a folder per fold and per seed below it."""
    if folds > 1:
        folder = folder / f"fold-{fold:02}"
    return folder / f"seed-{recipe.seed + repeat}" if recipe.repeats > 1 else folder


def runs_below(folder: Path) -> list[Run]:
    """The runs of one training. Raises `BadConfig` where there is none, or where they are of several."""
    found = find_runs(folder)
    first, *others = (_but_for_seeds(run.config) for run in found)
    for run, other in zip(found[1:], others, strict=True):
        if other != first:
            raise BadConfig(f"{found[0].folder} and {run.folder} are of different trainings: name the folder of one")
    return found


def _but_for_seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "seed"}


def build(recipe: Recipe, train: Dataset, labels: LabelSet) -> EmotionModel:
    """The model as training begins: the head alone, or with its encoder."""
    if recipe.training.tune == "head":
        model = recipe.build_model(train.specs, labels.emotions)
        if not recipe.start:
            model.set_statistics(train.statistics())
        if isinstance(model, DecisionFusion) and recipe.branches:
            model.load_branches(**{branch: run_weights(run) for branch, run in recipe.branch_runs().items()})
        return model
    encoder = recipe.build_encoder()
    head = recipe.build_model({"speech": feature_spec(encoder)}, labels.emotions)
    tuned = FineTuned(encoder, head, imitates=recipe.teacher_dim)
    if recipe.training.teacher:
        tuned.set_teacher(*train.only(TEACHER).statistics()[TEACHER])
    if not recipe.start:
        speech = train.only("speech")
        chosen = np.linspace(0, len(train) - 1, min(SAMPLE, len(train))).astype(int)
        order = scoring_batches(speech.lengths()[chosen], recipe.training.batch_size)
        head.set_statistics(initial_statistics(tuned, [speech.batch(chosen[batch].tolist()) for batch in order]))
    return tuned


def run_weights(run: Run) -> dict[str, Tensor]:
    """The weights of a run's chosen epoch."""
    weights: dict[str, Tensor] = load_state(run.weights_path(select_epoch(run, run.config["selection"])))
    return weights


def _silent(_: str) -> None:
    pass
