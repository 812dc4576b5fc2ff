"""Train a recipe: read the corpora, split them, compute features, and train a run for every fold and seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from affekt.corpora.headers import check_headers
from affekt.errors import BadConfig
from affekt.features.base import Feature
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.runs.folder import Run, lock_runs, place_run, runs_of_experiment
from affekt.training.dataset import Dataset, scoring_batches
from affekt.training.distributed import first_alone, local_device, processes
from affekt.training.finetuning import TEACHER, FineTunedModel, feature_spec, initial_statistics
from affekt.training.loop import fit
from affekt.training.memory import keep_freed_memory
from affekt.training.newer_settings import add_newer_settings
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe
from affekt.training.strategies import Datasets, TrainingContext
from affekt.utterance import speakers_of
from affekt.workflows.training_data import TrainingData, build_datasets, recorded_split

logger = logging.getLogger(__name__)

STATISTICS_SAMPLE = 600
"""Number of training utterances from which the mean and standard deviation of an encoder's output are estimated."""


def train(
    recipe: Recipe | Plan,
    folder: Path,
    *,
    data: TrainingData | None = None,
    one_model: bool = False,
    progress: Progress | None = None,
) -> list[Run]:
    """Train a recipe, with a run folder for each fold and seed; resume runs that were interrupted.

    Under torchrun, several processes train one model (DDP), on a GPU each with `device = "cuda"`.

    Args:
        recipe: A recipe, or the plan that it resolves to.
        folder: The run folder; with several folds or seeds, the folder that contains the run folders.
        data: The recipe's training data, if already read.
        one_model: Raise `BadConfig` before training if no bundle could be made of the runs.
        progress: Called with the progress of feature extraction.

    Raises:
        BadConfig: Settings do not fit together, or the folder contains runs with other settings.
        BadCorpus: A corpus is missing or cannot be read.
        BadOutput: Another process trains in a run folder, or a run folder cannot be written.
    """
    plan = recipe if isinstance(recipe, Plan) else resolve(recipe)
    with ExitStack() as stack:
        rank, world = stack.enter_context(_processes(plan))
        features = _training_features(plan)
        data = data or TrainingData.read(plan.recipe)
        folds = _check_folds(plan, data, folder, one_model)
        if rank == 0:  # before features are computed, which may take hours
            stack.enter_context(lock_runs([run_dir for fold in folds for run_dir in fold.run_dirs]))
            check_audio(plan, data, folds)
        runs = []
        for fold in folds:
            with first_alone(rank):
                datasets = build_datasets(plan, features, data, fold.split, progress if rank == 0 else None)
            for repeat, run_dir in enumerate(fold.run_dirs):
                run = start_run(plan, run_dir, repeat, fold.split, data, rank)
                logger.info("seed %d: %s", plan.recipe.seed + repeat, run_dir)
                fit_run(plan, run, data, datasets, rank=rank, world=world)
                runs.append(run)
    return runs


@contextmanager
def _processes(plan: Plan) -> Iterator[tuple[int, int]]:
    """Set up torch, and yield the rank and the number of processes; only the first process logs progress."""
    if plan.recipe.training.threads:
        torch.set_num_threads(plan.recipe.training.threads)
    torch.use_deterministic_algorithms(True)
    with processes(plan.recipe.training.device) as (rank, world):
        root = logging.getLogger("affekt")
        level = root.level
        if rank:
            root.setLevel(logging.WARNING)
        try:
            yield rank, world
        finally:
            root.setLevel(level)


def _training_features(plan: Plan) -> dict[str, Feature]:
    """Return the features to store: for a fine-tuned encoder only its front end, otherwise the whole feature."""
    if plan.unused_streams:
        logger.info("%s does not use %s with these settings", plan.model.name, ", ".join(plan.unused_streams))
    features = plan.frozen_features
    if plan.recipe.training.tune == "all":
        return {stream: feature.front_end() for stream, feature in features.items()}
    return features


@dataclass(frozen=True)
class _Fold:
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
        _Fold(split, [place_run(folder, seed, split, number, **options) for seed in seeds]) for number, split in splits
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


def start_run(plan: Plan, run_dir: Path, repeat: int, split: Split, data: TrainingData, rank: int = 0) -> Run:
    """Create a run folder, or resume the run in it; of several processes, the first creates it and the others wait."""
    split = recorded_split(plan.recipe, split)
    labels = {key: data.label_index(key) for keys in split.subsets.values() for key in keys}
    with first_alone(rank):
        add_newer_settings(Run(run_dir))
        return Run.start(run_dir, plan.config(repeat), split, data.labels.emotions, labels)


def fit_run(
    plan: Plan,
    run: Run,
    data: TrainingData,
    datasets: Datasets,
    *,
    until: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Train a run to its last epoch, or to the epoch `until`, with the seed in its config.toml."""
    keep_freed_memory()
    settings, seed = plan.recipe.training, int(run.config["seed"])
    torch.manual_seed(seed)
    model = build_initial_model(plan, datasets.train, data.labels).to(local_device(settings.device))
    context = TrainingContext(
        batch_size=settings.batch_size,
        seed=seed,
        epochs=settings.epochs,
        masking=settings.augmentation.masking,
        speakers=speakers_of(data.select(datasets.train.ids)),
    )
    strategy, datasets = plan.strategy.kind.prepare(plan.strategy.config, model, datasets, context)
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
        patience_metric=settings.patience_metric,
        score_train=settings.score_train,
        sampling=settings.sampling,
        rank=rank,
        world=world,
    )


def build_initial_model(plan: Plan, train: Dataset, labels: LabelSet) -> EmotionModel:
    """Build the model with the weights that training starts from: only the head, or an encoder with its head."""
    if plan.recipe.training.tune == "all":
        return _build_fine_tuned(plan, train, labels)
    model = plan.build_model(train.specs, labels.emotions)
    if not plan.origin:
        model.set_statistics(train.statistics())
    plan.load_submodules(model)
    return model


def _build_fine_tuned(plan: Plan, train: Dataset, labels: LabelSet) -> FineTunedModel:
    encoder = plan.build_features()["speech"]
    head = plan.build_model({"speech": feature_spec(encoder)}, labels.emotions)
    # The size of the teacher's frames is only known once its weights are loaded.
    model = FineTunedModel(encoder, head, teacher_dim=plan.build_teacher().dim if plan.teacher else 0)
    if plan.teacher:
        model.set_teacher_statistics(*train.only(TEACHER).statistics()[TEACHER])
    if not plan.origin:
        speech = train.only("speech")
        sample = np.linspace(0, len(train) - 1, min(STATISTICS_SAMPLE, len(train))).astype(int)
        order = scoring_batches(speech.lengths()[sample], plan.recipe.training.batch_size)
        head.set_statistics(initial_statistics(model, [speech.batch(sample[batch].tolist()) for batch in order]))
    return model


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
