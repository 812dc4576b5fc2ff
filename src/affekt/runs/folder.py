"""The run folder: everything that a training run writes. Scores and reports are computed from it.

config.toml                    the resolved recipe
split.json                     the utterances of each subset, with the split's hash
log.jsonl                      one object per epoch
labels.json                    the emotions, and each scored utterance's label, by subset
predictions/0007.npz           probabilities after epoch 7 on each scored subset: (utterances, emotions), in the split's order
checkpoint.safetensors         everything needed to resume after a kill
diverged.txt                   why training stopped, if the loss became NaN in a run of a search
weights/0007.safetensors       the weights after epoch 7; only for the last epoch and those that a selection rule selects

This module does not need torch.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.config import is_outdated, read_toml, to_toml
from affekt.errors import BadConfig, BadOutput
from affekt.files import atomic_write, atomic_write_text
from affekt.json_text import to_json
from affekt.lock import FileLock, Locked, lock_path
from affekt.protocols import Split

COMPOSITE_MARKERS = ("search.toml",)
"""Files that mark the folder of a composite experiment, such as a search, whose runs have a separate report."""

DESCRIPTIONS = ("published", "assumptions")
"""Sections of config.toml that describe a run but do not affect its results. Their text may change when a run is resumed."""


RUN_FOLDERS = ("", "seed-*/", "fold-*/", "fold-*/seed-*/")
"""Where an experiment's runs are in its folder."""
MIN_FREE_BYTES = 50_000_000
"""Free space that a disk must have before a training run begins."""


def _fixed_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that must stay the same when a run is resumed.

    The selection rule, the device, the folders in `weights_from` and descriptions may change; the weights in these folders
    may not.
    """
    training = {name: value for name, value in config.get("training", {}).items() if name != "device"}
    changeable = ("selection", "weights_from", *DESCRIPTIONS, "folds")
    return {**{name: value for name, value in config.items() if name not in changeable}, "training": training}


@dataclass(frozen=True)
class Run:
    """A training run on disk, finished or not."""

    folder: Path

    @classmethod
    def start(
        cls, folder: Path, config: Mapping[str, Any], split: Split, emotions: tuple[str, ...], labels: Mapping[str, int]
    ) -> Run:
        """Create the folder of a run, or resume the run in it.

        Args:
            folder: The run folder.
            config: The resolved recipe, from `Plan.config`.
            split: The split that the run records.
            emotions: The emotions, in the order of the model's outputs.
            labels: Key of an utterance in the split -> index of its emotion.

        Raises:
            BadConfig: The folder contains a run with other settings or another split.
        """
        run, text = cls(folder), to_toml(config)
        if run.config_path.is_file():
            run.check(config, split)
            atomic_write_text(run.config_path, text)
            return run
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        (folder / "weights").mkdir(exist_ok=True)
        split.save(folder / "split.json")
        by_subset = {subset: [labels[name] for name in ids] for subset, ids in split.subsets.items()}
        content = {"emotions": list(emotions), "labels": by_subset}
        (folder / "labels.json").write_text(to_json(content) + "\n", encoding="utf-8")
        atomic_write_text(run.config_path, text)  # last, so that a folder with a config.toml is complete
        return run

    def check(self, config: Mapping[str, Any], split: Split) -> None:
        """Raise `BadConfig` if the folder contains a run with other settings or another split."""
        if not self.config_path.is_file():
            return
        self.check_settings(config)
        if self.split.hash != split.hash:
            raise BadConfig(self._refusal("other utterances or another split"))

    def check_settings(self, config: Mapping[str, Any]) -> None:
        """Raise `BadConfig` if the run has other settings than `config`, apart from those that may change."""
        before, now = _fixed_settings(self.config), _fixed_settings(tomllib.loads(to_toml(config)))
        if changed := sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
            raise BadConfig(self._refusal(f"other settings ({', '.join(changed)})"))

    def _refusal(self, difference: str) -> str:
        return f"{self.folder} contains a run with {difference}: choose another run folder (--run), or delete it"

    @property
    def config_path(self) -> Path:
        return self.folder / "config.toml"

    @property
    def config(self) -> dict[str, Any]:
        """The resolved recipe without its descriptions. Raises `BadConfig` for a run of an earlier version."""
        config = read_toml(self.config_path)
        if is_outdated(config):
            raise BadConfig(f"{self.folder} was made by an earlier version: run `affekt migrate {self.folder}`")
        return {name: value for name, value in config.items() if name not in DESCRIPTIONS}

    @property
    def descriptions(self) -> dict[str, Any]:
        """The sections of config.toml that describe the run: `published` and `assumptions`, as far as it has them."""
        return {name: value for name, value in read_toml(self.config_path).items() if name in DESCRIPTIONS}

    @property
    def split(self) -> Split:
        return Split.load(self.folder / "split.json")

    @property
    def emotions(self) -> tuple[str, ...]:
        return tuple(json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))["emotions"])

    def labels(self, subset: str) -> NDArray[np.int64]:
        """Return the labels of a subset, (utterances,), in the split's order."""
        content = json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))
        return np.array(content["labels"][subset], np.int64)

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def weights_path(self, epoch: int) -> Path:
        """Return the path of an epoch's weights; the file may have been deleted."""
        return self.folder / "weights" / f"{epoch:04}.safetensors"

    @property
    def epochs(self) -> list[int]:
        """The epochs that have predictions, counted from 1."""
        return sorted(int(path.stem) for path in (self.folder / "predictions").glob("[0-9]*.npz"))

    def modified_at(self, epoch: int) -> int:
        """Return the time at which an epoch's predictions were written, in nanoseconds since 1970."""
        return self._predictions_path(epoch).stat().st_mtime_ns

    def predictions(self, epoch: int) -> dict[str, NDArray[np.float32]]:
        """Return the probabilities after an epoch by subset, (utterances, emotions) each."""
        with np.load(self._predictions_path(epoch), allow_pickle=False) as stored:
            return {subset: stored[subset] for subset in stored.files}

    def _predictions_path(self, epoch: int) -> Path:
        return self.folder / "predictions" / f"{epoch:04}.npz"

    def record(self, epoch: int, predictions: Mapping[str, NDArray[np.float32]], entry: Mapping[str, Any]) -> None:
        """Store an epoch's predictions and its log line, replacing those of an interrupted attempt."""
        lines = [line for line in self.log() if line["epoch"] < epoch] + [{"epoch": epoch, **entry}]
        atomic_write_text(self.folder / "log.jsonl", "".join(to_json(line) + "\n" for line in lines))
        # Predictions last, so that even after a kill an epoch with predictions also has its log line and its weights.
        with atomic_write(self._predictions_path(epoch)) as temporary, temporary.open("wb") as file:
            np.savez(file, **dict[str, Any](predictions))

    @property
    def diverged(self) -> bool:
        """True if the loss became NaN or infinite; such a run is not continued."""
        return (self.folder / "diverged.txt").is_file()

    def mark_diverged(self, reason: str) -> None:
        """Record that the loss became NaN or infinite."""
        atomic_write_text(self.folder / "diverged.txt", reason + "\n")

    @property
    def seconds(self) -> float:
        """The duration of all epochs so far in seconds, including predictions."""
        return float(sum(line["seconds"] for line in self.log()))

    def discard_after(self, epoch: int) -> None:
        """Delete the predictions of later epochs, whose checkpoint is missing because the process was killed."""
        for later in self.epochs:
            if later > epoch:
                self._predictions_path(later).unlink()

    def log(self) -> list[dict[str, Any]]:
        """Return the log's entries, one per epoch."""
        path = self.folder / "log.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def runs_of_experiment(folder: Path) -> list[Run]:
    """Return the runs, finished or not, of the experiment in a folder; there may be none."""
    return [Run(path.parent) for pattern in RUN_FOLDERS for path in sorted(folder.glob(f"{pattern}config.toml"))]


def place_run(folder: Path, seed: int, split: Split, fold: int, *, num_folds: int, num_seeds: int) -> Path:
    """Return the folder of a run in an experiment's folder: where it exists already, or where it is to be created.

    A single run has the experiment's folder itself. Otherwise there is a folder for each fold and seed, "fold-02/seed-1"; an
    experiment to which folds or seeds are added has both forms.

    Args:
        folder: The experiment's folder.
        seed: The seed of the run.
        split: The fold.
        fold: The number of the fold, from 1.
        num_folds: The number of folds that are trained.
        num_seeds: The number of seeds that are trained.
    """
    present = runs_of_experiment(folder)
    for run in present:
        if run.config.get("seed") == seed and run.split.fold == split.fold:
            return run.folder
    other_folds = {run.split.fold for run in present} - {split.fold}
    other_seeds = {run.config.get("seed") for run in present} - {seed}
    if num_folds > 1 or other_folds:
        folder = folder / f"fold-{fold:02}"
    return folder / f"seed-{seed}" if num_seeds > 1 or other_seeds else folder


@contextmanager
def lock_runs(folders: Iterable[Path]) -> Iterator[None]:
    """Lock run folders, so that no other command trains in them, and check that they can be written.

    Raises:
        BadOutput: Another process trains in a folder, or a folder cannot be written, or its disk is full.
    """
    with ExitStack() as stack:
        for folder in folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(folder / "training")
            except Locked:
                raise BadOutput(
                    f"{folder}: another process trains in this run folder; wait for it, or stop it; if its machine has died, "
                    f"delete {lock_path(folder / 'training')}"
                ) from None
            except OSError as error:
                raise BadOutput(
                    f"{folder} cannot be written ({error.strerror or error}): choose another run folder with --run"
                ) from error
            stack.callback(lock.release)
            check_free_space(folder)
        yield


def check_free_space(folder: Path) -> None:
    """Raise `BadOutput` if a folder's disk has less than `MIN_FREE_BYTES` left."""
    if (free := shutil.disk_usage(folder).free) < MIN_FREE_BYTES:
        raise BadOutput(
            f"{folder}: its disk has only {free / 1e6:.0f} MB left: expected at least {MIN_FREE_BYTES / 1e6:.0f} MB; delete "
            "files, or choose a folder on another disk"
        )


def find_runs(folder: Path) -> list[Run]:
    """Return the runs in a folder: the folder itself or those below it, in the order of their paths.

    Raises:
        BadConfig: There is no run.
    """
    runs = [Run(path.parent) for path in sorted(folder.rglob("predictions")) if (path.parent / "config.toml").is_file()]
    if not runs:
        raise BadConfig(f"{folder} contains no run: expected config.toml and predictions/, which affekt train writes")
    return runs


def standalone_runs(folder: Path) -> list[Run]:
    """Return the runs of a folder except those that are steps of a composite experiment below it.

    Only experiments at or below `folder` are excluded: a folder inside such an experiment returns its own runs.

    Raises:
        BadConfig: The folder contains neither a run nor a composite experiment.
    """
    composites = {path.parent for marker in COMPOSITE_MARKERS for path in folder.rglob(marker)}
    if composites and not any(folder.rglob("predictions")):  # none of them has finished an epoch yet
        return []
    return [run for run in find_runs(folder) if not composites.intersection([run.folder, *run.folder.parents])]
