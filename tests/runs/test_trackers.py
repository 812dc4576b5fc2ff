"""What was written to a tracker is read back and compared with the run folder."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from affekt.errors import BadConfig
from affekt.runs.folder import Run
from affekt.runs.trackers import Following, MLflow, TensorBoard, find_tracker
from tests.logs import logged
from tests.runs.test_folder import EMOTIONS, LABELS, SPLIT

LOG = [{"loss": 1.25, "train_UA": 0.5, "seconds": 2.0, "precision": "float32"}, {"loss": 0.75, "train_UA": 0.75}]
VALIDATION = replace(SPLIT, subsets={**SPLIT.subsets, "validation": ("made/4", "made/5")})


@pytest.fixture
def run(tmp_path):
    labels = {**LABELS, "made/4": 0, "made/5": 1}
    run = Run.start(tmp_path / "run", {"name": "made", "seed": 3, "model": {"dim": 8}}, VALIDATION, EMOTIONS, labels)
    right, wrong = np.array([[0.8, 0.1, 0.1]], np.float32), np.array([[0.8, 0.1, 0.1]], np.float32)
    for epoch, line in enumerate(LOG, start=1):
        run.record(epoch, {"test": right, "validation": np.concatenate([right, wrong])}, line)
    return run


def write_twice(kind, run):
    for _ in range(2):
        with Following(run.folder, [kind()]) as following:
            following.finish([run])


def test_tensorboard_has_the_curves_once_however_often_they_are_written(run):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_twice(TensorBoard, run)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.25), (2, 0.75)]
    assert [event.value for event in events.Scalars("train_UA")] == [0.5, 0.75]
    assert [event.value for event in events.Scalars("validation_UA")] == [0.5, 0.5]
    assert not [tag for tag in events.Tags()["scalars"] if "test" in tag]


@pytest.mark.slow
def test_mlflow_has_the_settings_and_curves_once_however_often_they_are_written(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    write_twice(MLflow, run)
    client = mlflow.tracking.MlflowClient()
    (written,) = client.search_runs([client.get_experiment_by_name("made").experiment_id])
    assert written.data.params == {"name": "made", "seed": "3", "model.dim": "8"}
    assert written.data.tags["affekt.split"] == VALIDATION.hash
    assert [(m.step, m.value) for m in client.get_metric_history(written.info.run_id, "loss")] == [(1, 1.25), (2, 0.75)]
    assert written.data.metrics["validation_WA"] == 0.5


def test_an_unknown_tracker_is_refused():
    with pytest.raises(BadConfig, match="no tracker 'tensorbord'; did you mean 'tensorboard'"):
        find_tracker("tensorbord")


class Recorder:
    """A tracker that keeps the number of epochs of each call, and fails from a given call on."""

    def __init__(self, fails_at=0):
        self.epochs, self.fails_at, self.called = [], fails_at, threading.Event()

    def update(self, run):
        self.epochs.append(len(run.epochs))
        self.called.set()
        if len(self.epochs) == self.fails_at:
            raise ConnectionError("no such server")

    def close(self):
        self.epochs.append("closed")


def test_a_run_is_written_while_it_is_trained(run):
    tracker = Recorder()
    with Following(run.folder, [tracker], interval=0.01) as following:
        assert not tracker.called.wait(0.1)  # nothing is new
        run.record(3, {"test": np.full((1, 3), 1 / 3, np.float32)}, {"loss": 0.5})
        assert tracker.called.wait(30)
        following.finish([run])
    assert tracker.epochs[0] == 3
    assert tracker.epochs[-2:] == [3, "closed"]


def test_a_tracker_that_fails_does_not_end_the_training(run):
    failing, other = Recorder(fails_at=1), Recorder()
    with logged() as messages, Following(run.folder, [failing, other], interval=30) as following:
        following.finish([run, run])
    assert (failing.epochs, other.epochs) == ([2], [2, 2, "closed"])
    assert any("Recorder failed (ConnectionError: no such server)" in message for message in messages)
