"""Train a recipe: read the corpora, split them, compute features, and train a run for every fold and seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from affekt.corpora.headers import check_headers
from affekt.errors import BadConfig
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.runs.folder import Run, lock_runs, place_run, runs_of_experiment
from affekt.training.distributed import processes
from affekt.training.newer_settings import add_newer_settings
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe
from affekt.workflows.job import Job
from affekt.workflows.job_runner import JobRunner
from affekt.workflows.jobs import Launcher, LocalLauncher
from affekt.workflows.training_data import TrainingData, recorded_split

logger = logging.getLogger(__name__)


def train(
    recipe: Recipe | Plan,
    folder: Path,
    *,
    data: TrainingData | None = None,
    one_model: bool = False,
    launcher: Launcher | None = None,
    progress: Progress | None = None,
) -> list[Run]:
    """Train a recipe, with a run folder for each fold and seed; resume runs that were interrupted.

    Under torchrun, several processes train one model (DDP), on a GPU each with `device = "cuda"`.

    Args:
        recipe: A recipe, or the plan that it resolves to.
        folder: The run folder; with several folds or seeds, the folder that contains the run folders.
        data: The recipe's training data, if already read.
        one_model: Raise `BadConfig` before training if no bundle could be made of the runs.
        launcher: Trains the folds and seeds, several at a time if it has workers; None trains them in this process.
        progress: Called with the progress of feature extraction in this process; a given launcher has its own.

    Raises:
        BadConfig: Settings do not fit together, or the folder contains runs with other settings.
        BadCorpus: A corpus is missing or cannot be read.
        BadOutput: Another process trains in a run folder, or a run folder cannot be written.
    """
    plan = recipe if isinstance(recipe, Plan) else resolve(recipe)
    with ExitStack() as stack:
        rank = stack.enter_context(_processes(plan))
        launcher = launcher or LocalLauncher(JobRunner(progress=progress))
        plan.frozen_features  # noqa: B018 (a missing encoder raises before a corpus is read)
        if plan.unused_streams:
            logger.info("%s does not use %s with these settings", plan.model.name, ", ".join(plan.unused_streams))
        data = data or TrainingData.read(plan.recipe)
        folds = _check_folds(plan, data, folder, one_model)
        if rank == 0:  # before features are computed, which may take hours
            stack.enter_context(lock_runs([run_dir for fold in folds for run_dir in fold.run_dirs]))
            check_audio(plan, data, folds)
        launcher.runner.add(plan, data, {fold.number: fold.split for fold in folds})
        jobs = [
            Job(plan.recipe, run_dir, fold=fold.number, repeat=repeat)
            for fold in folds
            for repeat, run_dir in enumerate(fold.run_dirs)
        ]
        launcher.run(jobs)
    return [job.run for job in jobs]


@contextmanager
def _processes(plan: Plan) -> Iterator[int]:
    """Join the processes that torchrun started, and yield the rank; only the first process logs progress."""
    with processes(plan.recipe.training.device) as (rank, _):
        root = logging.getLogger("affekt")
        level = root.level
        if rank:
            root.setLevel(logging.WARNING)
        try:
            yield rank
        finally:
            root.setLevel(level)


@dataclass(frozen=True)
class _Fold:
    number: int
    split: Split
    run_dirs: list[Path]


def _check_folds(plan: Plan, data: TrainingData, folder: Path, one_model: bool) -> list[_Fold]:
    """Return the folds with their run folders, one for each seed. Raises `BadConfig` if a run folder has another run."""
    recipe, splits = plan.recipe, data.folds(plan)
    if one_model:
        check_one_model(recipe, len(splits))
    for run in runs_of_experiment(folder):
        add_newer_settings(run)
        run.check_settings({**plan.config(), "seed": run.config["seed"]})
    seeds = range(recipe.seed, recipe.seed + recipe.repeats)
    options = {"num_folds": len(splits), "num_seeds": len(seeds)}
    folds = [
        _Fold(number, split, [place_run(folder, seed, split, number, **options) for seed in seeds])
        for number, split in splits
    ]
    for fold in folds:
        for repeat, run_dir in enumerate(fold.run_dirs):
            Run(run_dir).check(plan.config(repeat), recorded_split(recipe, fold.split))
    return folds


def check_audio(plan: Plan, data: TrainingData, folds: Sequence[_Fold]) -> None:
    """Raise `BadCorpus` if a feature needs audio, and an utterance of a fold that has not started has no usable audio."""
    new = [fold for fold in folds if not all(Run(run_dir).epochs for run_dir in fold.run_dirs)]
    if any(plan.features[stream].kind.input == "audio" for stream in plan.streams):
        keys = {key for fold in new for subset in fold.split.subsets.values() for key in subset}
        check_headers(data.select(sorted(keys)))


def check_one_model(recipe: Recipe, num_folds: int) -> None:
    """Raise `BadConfig` for runs that cannot be combined into one bundle."""
    if num_folds > 1:
        raise BadConfig(
            f"{recipe.name} has {num_folds} folds, and a bundle is made of one: choose a fold, such as folds=[1], or train "
            "without a bundle"
        )
    if recipe.training.tune == "all" and recipe.repeats > 1:
        raise BadConfig(f"{recipe.name} trains an encoder for each seed, and a bundle has only one: set repeats = 1")


class RepeatedRecipe(Protocol):
    """A recipe, of training or of a search, that is repeated with consecutive seeds."""

    @property
    def seed(self) -> int: ...

    @property
    def repeats(self) -> int: ...


def run_folder(recipe: RepeatedRecipe, folder: Path, fold: int, repeat: int, num_folds: int) -> Path:
    """Return the folder of a run: `folder` itself for a single run, else a folder below it for each fold and seed."""
    if num_folds > 1:
        folder = folder / f"fold-{fold:02}"
    return folder / f"seed-{recipe.seed + repeat}" if recipe.repeats > 1 else folder
