"""Run training jobs one after another in this process, and keep what they share: corpora, splits, features and datasets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from affekt.config import encode
from affekt.errors import Diverged
from affekt.features.base import Feature
from affekt.json_text import to_json
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.training.distributed import first_process_first, num_processes, process_rank
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe
from affekt.training.strategies import Datasets
from affekt.workflows.feature_pool import FeaturePool
from affekt.workflows.fit_run import fit_run, start_run
from affekt.workflows.job import Job
from affekt.workflows.training_data import TrainingData, build_datasets, training_features

logger = logging.getLogger(__name__)

MAX_DATASETS = 4
"""Number of datasets that a runner caches. Of recipes, and of the encoders of features, it keeps only the last."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class _Experiment:
    """A recipe with everything that it names and its splits, by the number of the fold."""

    plan: Plan
    data: TrainingData
    splits: Mapping[int, Split]


@dataclass(frozen=True)
class PreparedJob:
    """A job whose run folder exists and whose features are in the store."""

    job: Job
    plan: Plan
    data: TrainingData
    run: Run
    datasets: Datasets


@dataclass
class JobRunner:
    """Runs jobs one after another, and caches the utterances, features and datasets that they share."""

    threads: int = field(default_factory=torch.get_num_threads)
    """Threads of training for recipes that do not set a number."""
    feature_threads: int = field(default_factory=torch.get_num_threads)
    """Threads of feature extraction for such recipes, on which the bits of features depend."""
    progress: Progress | None = None
    """Called with the progress of feature extraction."""
    pool: FeaturePool | None = None
    """Computes missing features in worker processes."""
    _data: dict[str, TrainingData] = field(default_factory=dict)
    _experiments: dict[str, _Experiment] = field(default_factory=dict)
    _features: dict[str, dict[str, Feature]] = field(default_factory=dict)
    _datasets: dict[str, Datasets] = field(default_factory=dict)

    def run(self, job: Job) -> None:
        """Run a job, unless it is finished."""
        if (prepared := self.prepare(job)) is not None:
            self.train(prepared)

    def prepare(self, job: Job) -> PreparedJob | None:
        """Create or resume the run folder of a job and compute the features that are missing; None if it is finished."""
        experiment = self._experiment(job.recipe)
        plan, data = experiment.plan, experiment.data
        ((_, split),) = [entry for entry in experiment.splits.items() if job.fold in (entry[0], None)]
        run = start_run(plan, job.folder, job.repeat, split, data, process_rank())
        if job.is_finished:
            last_epoch = max(run.epochs, default=0)
            logger.info("%s: finished after epoch %d of %d", job.folder, last_epoch, job.recipe.training.epochs)
            return None
        torch.set_num_threads(plan.recipe.training.threads or self.feature_threads)
        torch.use_deterministic_algorithms(True)
        return PreparedJob(job, plan, data, run, self._build_datasets(plan, data, split))

    def train(self, prepared: PreparedJob) -> None:
        """Train a job to its last epoch. Raises `Diverged`, unless the job may diverge."""
        job, plan, run = prepared.job, prepared.plan, prepared.run
        rank, world = process_rank(), num_processes()
        torch.set_num_threads(plan.recipe.training.threads or self.threads)
        try:
            fit_run(plan, run, prepared.data, prepared.datasets, until=job.until, rank=rank, world=world)
        except Diverged as error:
            if not job.may_diverge:
                raise
            run.mark_diverged(str(error))
            logger.warning("%s", error)

    def add_data(self, recipe: Recipe, data: TrainingData) -> None:
        """Add training data that are already read, for all jobs whose recipes have these labels and corpora."""
        self._data[_cache_key(recipe, "labels", "corpora")] = data

    def add(self, plan: Plan, data: TrainingData, splits: Mapping[int, Split]) -> None:
        """Add a plan with its training data and splits by fold, for all jobs with its recipe."""
        self.add_data(plan.recipe, data)
        _cache(self._experiments, _cache_key(plan.recipe), _Experiment(plan, data, splits), 1)

    def _experiment(self, recipe: Recipe) -> _Experiment:
        key = _cache_key(recipe)
        if key not in self._experiments:
            plan, data_key = resolve(recipe), _cache_key(recipe, "labels", "corpora")
            if data_key not in self._data:
                self._data[data_key] = TrainingData.read(recipe)
            data = self._data[data_key]
            _cache(self._experiments, key, _Experiment(plan, data, dict(data.folds(plan))), 1)
        return self._experiments[key]

    def _build_datasets(self, plan: Plan, data: TrainingData, split: Split) -> Datasets:
        """Return the datasets, built only once for all recipes with the same utterances, features and augmentation."""
        recipe, training = plan.recipe, plan.recipe.training
        features_key = to_json([_cache_key(recipe, "features", "start"), plan.streams, training.tune])
        settings = [encode(training.augmentation), training.votes, training.subset, training.teacher, recipe.seed]
        key = to_json([_cache_key(recipe, "labels", "corpora"), split.hash, features_key, settings])
        if key not in self._datasets:
            if features_key not in self._features:
                _cache(self._features, features_key, training_features(plan), 1)
            with first_process_first(process_rank()):
                datasets = build_datasets(
                    plan,
                    self._features[features_key],
                    data,
                    split,
                    None if process_rank() else self.progress,
                    self.pool,
                )
            _cache(self._datasets, key, datasets, MAX_DATASETS)
        return self._datasets[key]


def _cache(cache: dict[str, Value], key: str, value: Value, size: int) -> None:
    """Add a value, and drop the oldest ones above the size."""
    while len(cache) >= size:
        cache.pop(next(iter(cache)))
    cache[key] = value


def _cache_key(recipe: Recipe, *names: str) -> str:
    """Return some settings of a recipe as text; all of them without names."""
    settings: dict[str, Any] = encode(recipe)
    return to_json([settings[name] for name in names or settings])
