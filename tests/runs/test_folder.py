"""Run folders: runs with other settings are refused, and an interrupted epoch leaves no predictions."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from affekt.errors import BadConfig, BadOutput
from affekt.protocols import Split
from affekt.runs.folder import Run, find_runs, lock_runs, place_run

EMOTIONS = ("angry", "happy", "sad")
SPLIT = Split("made", {"train": ("made/1", "made/2"), "test": ("made/3",)}, True)
LABELS = {"made/1": 0, "made/2": 1, "made/3": 2}


@pytest.fixture
def run(tmp_path):
    return Run.start(tmp_path / "run", {"name": "made"}, SPLIT, EMOTIONS, LABELS)


def test_a_run_folder_of_another_recipe_or_split_is_refused(run):
    with pytest.raises(BadConfig, match=r"contains a run with other settings \(name\)"):
        Run.start(run.folder, {"name": "other"}, SPLIT, EMOTIONS, LABELS)
    other = replace(SPLIT, subsets={"train": ("made/1",), "test": ("made/2",)})
    with pytest.raises(BadConfig, match="contains a run with other utterances or another split"):
        Run.start(run.folder, {"name": "made"}, other, EMOTIONS, LABELS)


def test_a_run_is_read_as_it_was_started(run):
    assert run.config == {"name": "made"}
    assert run.emotions == EMOTIONS
    assert run.labels("train").tolist() == [0, 1]
    assert run.labels("test").tolist() == [2]
    assert run.split.hash == SPLIT.hash
    assert find_runs(run.folder.parent) == [run]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(BadConfig, match=r"contains no run: expected config\.toml and predictions/"):
        find_runs(tmp_path)


def test_an_epoch_that_has_predictions_has_its_log_line(run, monkeypatch):
    """Even after a kill, because predictions are written last."""
    predictions = {"test": np.full((1, 3), 1 / 3, np.float32)}

    def kill(*_):
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr("affekt.runs.folder.atomic_write_text", kill)
        with pytest.raises(InterruptedError):
            run.record(1, predictions, {"loss": 1.0})
    assert run.epochs == []
    run.record(1, predictions, {"loss": 1.0})
    assert (run.epochs, len(run.log())) == ([1], 1)


def test_later_epochs_are_discarded(run):
    for epoch in (1, 2, 3):
        run.record(epoch, {"test": np.full((1, 3), 1 / 3, np.float32)}, {"loss": 1.0})
    run.discard_after(1)
    assert run.epochs == [1]


# Several runs in one folder


def train_runs(folder, seeds, folds, total=3):
    """Create the runs of some folds and seeds, as `affekt train` places them, and return their folders."""
    paths = []
    for fold in folds:
        split = replace(SPLIT, fold=f"{fold} of {total}")
        for seed in seeds:
            path = place_run(folder, seed, split, fold, num_folds=len(folds), num_seeds=len(seeds))
            Run.start(path, {"name": "made", "seed": seed, "folds": list(folds)}, split, EMOTIONS, LABELS)
            paths.append(path.relative_to(folder).as_posix())
    return paths


def test_seeds_are_added_to_a_run_without_repeating_it(tmp_path):
    assert train_runs(tmp_path, [0], [1]) == ["."]
    assert train_runs(tmp_path, [0, 1], [1]) == [".", "seed-1"]
    assert train_runs(tmp_path, [0, 1, 2], [1]) == [".", "seed-1", "seed-2"]
    assert train_runs(tmp_path, [5], [1]) == ["seed-5"]


def test_folds_are_added_to_a_run_without_repeating_it(tmp_path):
    assert train_runs(tmp_path, [0], [1]) == ["."]
    assert train_runs(tmp_path, [0], [2]) == ["fold-02"]
    assert train_runs(tmp_path, [0], [1, 2, 3]) == [".", "fold-02", "fold-03"]
    assert train_runs(tmp_path, [0, 1], [1, 2]) == [".", "fold-01/seed-1", "fold-02", "fold-02/seed-1"]
    assert len({(run.config["seed"], run.split.fold) for run in find_runs(tmp_path)}) == len(find_runs(tmp_path)) == 5


def test_all_folds_and_seeds_at_once_have_a_folder_each(tmp_path):
    assert train_runs(tmp_path, [0, 1], [1, 2]) == [
        "fold-01/seed-0",
        "fold-01/seed-1",
        "fold-02/seed-0",
        "fold-02/seed-1",
    ]


def test_two_processes_do_not_train_in_one_run_folder(tmp_path):
    message = "another process trains in this run folder"
    with lock_runs([tmp_path / "run"]), pytest.raises(BadOutput, match=message), lock_runs([tmp_path / "run"]):
        pass
    with lock_runs([tmp_path / "run"]):  # the lock is released
        pass


def test_a_run_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    message = r"file/run cannot be written \(Not a directory\): choose another run folder"
    with pytest.raises(BadOutput, match=message), lock_runs([tmp_path / "file" / "run"]):
        pass
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=9, free=1))
    message = "its disk has only 0 MB left: expected at least 50 MB"
    with pytest.raises(BadOutput, match=message), lock_runs([tmp_path / "run"]):
        pass
