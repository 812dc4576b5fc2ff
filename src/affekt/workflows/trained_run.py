"""Open a run folder, to get its model, batches and predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.batch import Batch
from affekt.errors import BadConfig, BadCorpus
from affekt.features.base import Feature
from affekt.models.base import EmotionModel
from affekt.plural import quantity
from affekt.protocols import utterance_key
from affekt.runs.folder import Run, find_runs
from affekt.runs.selection import Rule, select_epoch
from affekt.training.checkpoint import load_state
from affekt.training.dataset import Dataset
from affekt.training.finetuning import FineTunedModel
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import recipe_of
from affekt.utterance import Utterance
from affekt.workflows.make_bundle import load_trained_model
from affekt.workflows.training_data import TrainingData, build_subset

BATCH_SIZE = 32


@dataclass(frozen=True)
class TrainedRun:
    """A training run whose model can be used again. Its corpora and encoders must be where they were in training.

    >>> run = open_run("runs/mstr-cremad/seed-0")
    >>> model = run.model()
    >>> for batch in run.batches("test"):
    ...     logits, explanation = model(batch), model.explain(batch)
    """

    run: Run
    epoch: int
    """The epoch whose weights are used."""
    plan: Plan

    @property
    def emotions(self) -> tuple[str, ...]:
        """The emotions, in the order of the model's outputs."""
        return self.run.emotions

    @cached_property
    def data(self) -> TrainingData:
        """The utterances and labels of the run's corpora. Raises `BadCorpus` if a corpus cannot be read."""
        return TrainingData.read(self.plan.recipe)

    @cached_property
    def _features(self) -> dict[str, Feature]:
        return self.plan.build_features()

    def model(self) -> EmotionModel:
        """Return the model with the weights of the run's selected epoch, ready for prediction.

        If the run also trained its encoder, encoder and head are one model, which takes the batches of this run.

        Raises:
            BadConfig: The weights were deleted.
        """
        path = self.run.weights_path(self.epoch)
        if not path.is_file():
            raise BadConfig(f"{path} does not exist: the weights of epoch {self.epoch} are needed to build the model")
        model = load_trained_model(self.plan, self.run, self.epoch, self._features, self.emotions)
        if self.plan.recipe.training.tune == "all":
            model = FineTunedModel(self._features["speech"], model)
            model.load(load_state(path))
        return model.eval()

    def keys(self, subset: str) -> tuple[str, ...]:
        """Return the keys of a subset's utterances, in the order of predictions. Raises `BadConfig` for an unknown one."""
        subsets = self.run.split.subsets
        if subset not in subsets:
            raise BadConfig(f"{self.run.folder} has no subset {subset!r} (it has {', '.join(subsets)})")
        return subsets[subset]

    def utterances(self, subset: str) -> list[Utterance]:
        """Return a subset's utterances, in the order of predictions."""
        self._check_present(self.keys(subset))
        return self.data.select(self.keys(subset))

    def find(self, clip: str) -> Utterance:
        """Return the utterance with this key, id or file name. Raises `BadCorpus` unless there is exactly one."""
        utterances = self.data.utterances.values()
        matching = [
            u
            for u in utterances
            if clip in (utterance_key(u), u.id, u.audio and u.audio.name, u.audio and u.audio.stem)
        ]
        if len(matching) != 1:
            several = f"{len(matching)} utterances" if matching else "no utterance"
            raise BadCorpus(
                f"{clip}: {several} of this name in the corpora of {self.run.folder}; expected the id of an utterance, "
                f"such as {next(iter(self.data.utterances))}"
            )
        return matching[0]

    def dataset(self, subset: str) -> Dataset:
        """Return a subset's stored features; compute those that are not stored yet.

        Raises:
            BadConfig: There is no such subset.
            BadCorpus: The corpora lack some of its utterances.
        """
        return self._dataset(self.keys(subset))

    def batches(self, subset: str, size: int = BATCH_SIZE) -> Iterator[Batch]:
        """Yield a subset's utterances as batches, in the order of `predictions`."""
        return batches_of(self.dataset(subset), size)

    def batch(self, utterance: Utterance) -> Batch:
        """Return one utterance of the run's corpora as a batch of one."""
        return self._dataset((utterance_key(utterance),)).batch([0])

    def predictions(self, subset: str) -> NDArray[np.float32]:
        """Return the probabilities that training recorded for a scored subset, (utterances, emotions)."""
        recorded = self.run.predictions(self.epoch)
        if subset not in recorded:
            raise BadConfig(f"{self.run.folder} has no predictions on {subset!r} (it has {', '.join(recorded)})")
        return recorded[subset]

    def _dataset(self, keys: tuple[str, ...]) -> Dataset:
        self._check_present(keys)
        features = self.plan.frozen_features
        if self.plan.recipe.training.tune == "all":
            features = {stream: feature.front_end() for stream, feature in features.items()}
        return build_subset(self.plan, features, self.data, keys)

    def _check_present(self, keys: tuple[str, ...]) -> None:
        if missing := [key for key in keys if key not in self.data.utterances]:
            raise BadCorpus(
                f"{len(missing)} of {quantity(len(keys), 'utterance')} of {self.run.folder} are missing from its corpora, "
                f"first {missing[0]}: expected the same corpora as in training"
            )


def open_run(folder: str | Path, *, selection: Rule | None = None) -> TrainedRun:
    """Open a training run, to use its model again.

    Torch uses the recipe's number of threads from then on: the last bits of stored features depend on it.

    Args:
        folder: The folder of one run; or a folder of several, of which the first is opened.
        selection: The rule that selects the epoch; None for the recipe's own.

    Raises:
        BadConfig: There is no run, it has no finished epoch, or the rule does not apply.
    """
    run = find_runs(Path(folder))[0]
    recipe = recipe_of(run)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    return TrainedRun(run, select_epoch(run, selection or recipe.selection), resolve(recipe))


def batches_of(dataset: Dataset, size: int = BATCH_SIZE) -> Iterator[Batch]:
    """Yield a dataset's utterances as batches, in their order."""
    for start in range(0, len(dataset), size):
        yield dataset.batch(range(start, min(start + size, len(dataset))))
