"""Write runs to experiment trackers, while they are trained, from their run folders; nothing else depends on a tracker."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from affekt.errors import BadConfig
from affekt.evaluation.metrics import confusion, cross_entropy, ua, wa, wf1
from affekt.extras import need
from affekt.registry import did_you_mean
from affekt.runs.folder import Run, runs_of_experiment
from affekt.runs.groups import flatten

logger = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between two looks at the run folders."""


class Tracker(Protocol):
    """Something that shows learning curves."""

    def update(self, run: Run) -> None:
        """Write the epochs of a run that are new since the last call; replace what an earlier training command wrote."""

    def close(self) -> None:
        """Finish writing."""


def find_tracker(name: str) -> Tracker:
    """Return a tracker, "tensorboard" or "mlflow".

    Raises:
        BadConfig: There is no such tracker.
        MissingExtra: Its package is not installed.
    """
    trackers: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
    if name not in trackers:
        raise BadConfig(f"there is no tracker {name!r}{did_you_mean(name, trackers)} (known: {', '.join(trackers)})")
    need(name, extra=name, purpose=f"--log {name}")
    return trackers[name]()


class Following:
    """Writes the runs of an experiment to trackers from a thread, after each of their epochs; use it in a `with` statement.

    An error of a tracker ends its writing with a warning, and does not end the training.

    Args:
        folder: The folder of the experiment, which need not exist yet.
        trackers: The trackers.
        interval: Seconds between two looks at the run folders.
    """

    def __init__(self, folder: Path, trackers: Sequence[Tracker], interval: float = INTERVAL) -> None:
        self.folder, self.trackers, self.interval = folder, list(trackers), interval
        self._present = {run.folder: run.epochs for run in runs_of_experiment(folder)}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Following:
        if self.trackers:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_thread()
        for tracker in self.trackers:
            with _warning(tracker):
                tracker.close()

    def finish(self, runs: Iterable[Run]) -> None:
        """Write what is left of the runs that were trained, also of those that were finished before."""
        self._end_thread()
        self._update(runs)

    def _end_thread(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(self.interval):
            runs = runs_of_experiment(self.folder)
            self._update(run for run in runs if run.epochs != self._present.get(run.folder, []))

    def _update(self, runs: Iterable[Run]) -> None:
        for run in runs:
            for tracker in list(self.trackers):
                with _warning(tracker) as failed:
                    tracker.update(run)
                if failed:
                    self.trackers.remove(tracker)


@contextlib.contextmanager
def _warning(tracker: Tracker) -> Iterator[list[Exception]]:
    """Log an error of a tracker instead of raising it; the list that is yielded then has it."""
    failed: list[Exception] = []
    try:
        yield failed
    except Exception as error:  # a tracker's server may fail in any way; training goes on
        failed.append(error)
        logger.warning(
            "%s failed (%s: %s); nothing more is written to it. The run folder has everything: run the same command again to "
            "write it",
            type(tracker).__name__,
            type(error).__name__,
            error,
        )


def curves(run: Run, after: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each epoch with the numbers of its log line and the scores on the validation subset; there are no test scores.

    Args:
        run: The run.
        after: Only epochs after this one.
    """
    epochs = set(run.epochs)
    for line in run.log():
        if line["epoch"] <= after or line["epoch"] not in epochs:  # an epoch's predictions are written last
            continue
        values = {name: float(value) for name, value in line.items() if _is_number(value) and name != "epoch"}
        if "validation" in (predictions := run.predictions(line["epoch"])):
            labels, probabilities = run.labels("validation"), predictions["validation"]
            counts = confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1])
            scores = {"loss": cross_entropy(labels, probabilities), "UA": ua(counts), "WA": wa(counts)}
            values |= {f"validation_{name}": value for name, value in {**scores, "WF1": wf1(counts)}.items()}
        yield int(line["epoch"]), values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class TensorBoard:
    """Writes event files to the folder tensorboard/ of each run, and replaces those that it contains."""

    def __init__(self) -> None:
        self._writers = dict[Path, tuple[Any, int]]()
        """Run folder -> its writer and the last epoch that was written."""

    def update(self, run: Run) -> None:
        writer, last = self._writers.get(run.folder) or (self._open(run), 0)
        for epoch, values in curves(run, last):
            for name, value in values.items():
                writer.add_scalar(name, value, epoch)
            last = epoch
        writer.flush()
        self._writers[run.folder] = writer, last

    def _open(self, run: Run) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        writer: Any = SummaryWriter(str(folder))
        writer.add_text("config", f"```toml\n{run.config_path.read_text(encoding='utf-8')}```")
        return writer

    def close(self) -> None:
        for writer, _ in self._writers.values():
            writer.close()


class MLflow:
    """Writes each run to the experiment named after the recipe, at MLFLOW_TRACKING_URI.

    An MLflow run that was written from the same run folder before is deleted.
    """

    def __init__(self) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self._runs = dict[Path, tuple[str, int]]()
        """Run folder -> the id of MLflow's run and the last epoch that was written."""

    def update(self, run: Run) -> None:
        from mlflow.entities import Metric

        run_id, last = self._runs.get(run.folder) or (self._create(run), 0)
        epochs = dict(curves(run, last))
        metrics = [Metric(key, value, 0, epoch) for epoch, values in epochs.items() for key, value in values.items()]
        for start in range(0, len(metrics), 1000):  # the server accepts 1000 values at a time
            self._client.log_batch(run_id, metrics[start : start + 1000])
        self._runs[run.folder] = run_id, max(epochs, default=last)

    def _create(self, run: Run) -> str:
        from mlflow.entities import Param, RunTag

        name, folder = str(run.config["name"]), str(run.folder.resolve())
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        for earlier in self._client.search_runs([experiment_id]):
            if earlier.data.tags.get("affekt.run") == folder:
                self._client.delete_run(earlier.info.run_id)
        run_id = str(self._client.create_run(experiment_id, run_name=_title(run)).info.run_id)
        settings = [Param(key, str(value)[:500]) for key, value in flatten(run.config).items()]
        self._client.log_batch(run_id, tags=[RunTag("affekt.run", folder), RunTag("affekt.split", run.split.hash)])
        for start in range(0, len(settings), 100):  # the server accepts 100 settings at a time
            self._client.log_batch(run_id, params=settings[start : start + 100])
        return run_id

    def close(self) -> None:
        for run_id, _ in self._runs.values():
            self._client.set_terminated(run_id)


def _title(run: Run) -> str:
    fold = f", fold {run.split.fold}" if run.split.fold else ""
    return f"{Path(run.folder).name}: seed {run.config['seed']}{fold}"
