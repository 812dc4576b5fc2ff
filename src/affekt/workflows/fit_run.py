"""Train one run: create or resume its folder, build the model, and train it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.training.dataset import Dataset, scoring_batches
from affekt.training.distributed import first_process_first, local_device
from affekt.training.finetuning import TEACHER, FineTunedModel, feature_spec, initial_statistics
from affekt.training.loop import fit
from affekt.training.memory import keep_freed_memory
from affekt.training.newer_settings import add_newer_settings
from affekt.training.plan import Plan
from affekt.training.strategies import Datasets, TrainingContext
from affekt.utterance import speakers_of
from affekt.workflows.training_data import TrainingData, recorded_split

STATISTICS_SAMPLE = 600
"""Number of training utterances from which the mean and standard deviation of an encoder's output are estimated."""


def start_run(plan: Plan, run_dir: Path, repeat: int, split: Split, data: TrainingData, rank: int = 0) -> Run:
    """Create a run folder, or resume the run in it; of several processes, the first creates it and the others wait."""
    split = recorded_split(plan.recipe, split)
    labels = {key: data.label_index(key) for keys in split.subsets.values() for key in keys}
    with first_process_first(rank):
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
