"""Run folders: runs with other settings are refused, and an interrupted epoch leaves no predictions."""

from dataclasses import replace

import numpy as np
import pytest

from affekt.errors import BadConfig
from affekt.protocols import Split
from affekt.runs.folder import Run, find_runs

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
