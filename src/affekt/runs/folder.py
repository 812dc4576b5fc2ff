"""A run folder: what a training leaves behind. All scores, selections and reports derive from it, none is stored apart.

config.toml                    the resolved recipe
split.json                     who was trained on, who is scored, with the split's hash
log.jsonl                      an object per epoch
labels.json                    the emotions, and each scored utterance's label, by part
predictions/0007.npz           after epoch 7, per scored part: probabilities (utterances, emotions), in the split's order
checkpoint.safetensors         all that is needed to go on after a kill
diverged.txt                   of a search's candidate whose loss ceased to be a number: why it ended
weights/0007.safetensors       the weights that gave those predictions, for the epochs that are kept

This module needs no torch.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.config import read_toml, to_toml
from affekt.errors import BadConfig
from affekt.files import atomic_write, atomic_write_text
from affekt.protocols import Split


COMPOSITE_MARKERS = ("search.toml",)
"""Files that mark the folder of a composite experiment: its runs are steps of it, and it reports them itself."""


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a training. By which rule an epoch is chosen, and on which device, may change between two calls.

    Where the networks lie that a fusion stands over may change too; which weights they have may not.
    """
    training = {name: value for name, value in config.get("training", {}).items() if name != "device"}
    free = ("selection", "branches")
    return {**{name: value for name, value in config.items() if name not in free}, "training": training}


@dataclass(frozen=True)
class Run:
    folder: Path

    @classmethod
    def start(
        cls, folder: Path, config: Mapping[str, Any], split: Split, emotions: tuple[str, ...], labels: Mapping[str, int]
    ) -> Run:
        """Begin a run, or take up one that was interrupted. `labels`: of every utterance that is trained on or scored.

        Raises `BadConfig` if the folder holds a run of another configuration or split.
        """
        run, text = cls(folder), to_toml(config)
        if run.config_file.is_file():
            run.check(config, split)
            atomic_write_text(run.config_file, text)
            return run
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        (folder / "weights").mkdir(exist_ok=True)
        split.save(folder / "split.json")
        by_part = {part: [labels[one] for one in ids] for part, ids in split.parts.items()}
        content = {"emotions": list(emotions), "labels": by_part}
        (folder / "labels.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
        atomic_write_text(run.config_file, text)  # last: a folder with it is complete
        return run

    def check(self, config: Mapping[str, Any], split: Split) -> None:
        """Raise `BadConfig` if the folder holds a run of another configuration or split."""
        if not self.config_file.is_file():
            return
        before, now = _deciding(self.config), _deciding(tomllib.loads(to_toml(config)))
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if changed or self.split.hash != split.hash:
            what = f"other settings ({', '.join(changed)})" if changed else "other utterances or another split"
            raise BadConfig(f"{self.folder} holds a run of {what}: give another run folder (--run), or remove it")

    @property
    def config_file(self) -> Path:
        return self.folder / "config.toml"

    @property
    def config(self) -> dict[str, Any]:
        return read_toml(self.config_file)

    @property
    def split(self) -> Split:
        return Split.load(self.folder / "split.json")

    @property
    def emotions(self) -> tuple[str, ...]:
        return tuple(json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))["emotions"])

    def labels(self, part: str) -> NDArray[np.int64]:
        """(utterances,), in the order of the split's part."""
        return np.array(json.loads((self.folder / "labels.json").read_text(encoding="utf-8"))["labels"][part], np.int64)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def weights(self, epoch: int) -> Path:
        return self.folder / "weights" / f"{epoch:04}.safetensors"

    @property
    def epochs(self) -> list[int]:
        """The epochs that have predictions, counted from 1."""
        return sorted(int(path.stem) for path in (self.folder / "predictions").glob("[0-9]*.npz"))

    def written(self, epoch: int) -> int:
        """When an epoch's predictions were written, in nanoseconds."""
        return (self.folder / "predictions" / f"{epoch:04}.npz").stat().st_mtime_ns

    def predictions(self, epoch: int) -> dict[str, NDArray[np.float32]]:
        """Part -> (utterances, emotions)."""
        with np.load(self.folder / "predictions" / f"{epoch:04}.npz", allow_pickle=False) as stored:
            return {part: stored[part] for part in stored.files}

    def record(self, epoch: int, predictions: Mapping[str, NDArray[np.float32]], entry: Mapping[str, Any]) -> None:
        """Keep an epoch's predictions and its line in the log; a repeated epoch replaces what a kill left of it."""
        lines = [line for line in self.log() if line["epoch"] < epoch] + [{"epoch": epoch, **entry}]
        atomic_write_text(self.folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        # Predictions last: an epoch that has them has its line and its weights, wherever a kill falls.
        path = self.folder / "predictions" / f"{epoch:04}.npz"
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **dict[str, Any](predictions))

    @property
    def diverged(self) -> bool:
        """Whether its loss ceased to be a number, so that it stays as it is."""
        return (self.folder / "diverged.txt").is_file()

    def mark_diverged(self, why: str) -> None:
        atomic_write_text(self.folder / "diverged.txt", why + "\n")

    @property
    def seconds(self) -> float:
        """What the epochs so far took, scoring included."""
        return float(sum(line["seconds"] for line in self.log()))

    def cut(self, epoch: int) -> None:
        """Forget what a kill left of epochs after this one: predictions that no checkpoint goes with."""
        for later in self.epochs:
            if later > epoch:
                (self.folder / "predictions" / f"{later:04}.npz").unlink()

    def log(self) -> list[dict[str, Any]]:
        path = self.folder / "log.jsonl"
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def runs_in(folder: Path) -> list[Run]:
    """The runs of a folder: itself, or those below it, in order. Raises `BadConfig` where there is none."""
    found = [
        Run(path.parent) for path in sorted(folder.rglob("predictions")) if (path.parent / "config.toml").is_file()
    ]
    if not found:
        raise BadConfig(f"{folder} holds no run: expected config.toml and predictions/, as affekt train writes them")
    return found


def standalone_runs(folder: Path) -> list[Run]:
    """Return the runs of a folder except those that are steps of a composite experiment below it.

    A run or a folder that lies inside a composite experiment is read as it is: only markers at or below `folder` count.

    Raises:
        BadConfig: The folder holds neither a run nor a composite experiment.
    """
    composites = {path.parent for marker in COMPOSITE_MARKERS for path in folder.rglob(marker)}
    if composites and not any(folder.rglob("predictions")):  # none of them has finished an epoch yet
        return []
    return [run for run in runs_in(folder) if not composites.intersection([run.folder, *run.folder.parents])]
