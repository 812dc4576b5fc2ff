"""Write finished runs to experiment trackers, from what the run folder contains; nothing else depends on a tracker."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from affekt.errors import BadConfig
from affekt.evaluation.metrics import confusion, cross_entropy, ua, wa, wf1
from affekt.extras import need
from affekt.registry import did_you_mean
from affekt.runs.folder import Run
from affekt.runs.groups import flatten

Tracker = Callable[[Sequence[Run]], None]


def find_tracker(name: str) -> Tracker:
    """Return the function that writes runs to a tracker, "tensorboard" or "mlflow".

    Raises:
        BadConfig: There is no such tracker.
        MissingExtra: Its package is not installed.
    """
    writers: dict[str, Tracker] = {"tensorboard": write_tensorboard, "mlflow": write_mlflow}
    if name not in writers:
        raise BadConfig(f"there is no tracker {name!r}{did_you_mean(name, writers)} (known: {', '.join(writers)})")
    need(name, extra=name, purpose=f"--log {name}")
    return writers[name]


def curves(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield each epoch with the numbers of its log line and the scores on the validation subset, which has no test scores."""
    epochs = set(run.epochs)
    for line in run.log():
        values = {name: float(value) for name, value in line.items() if _is_number(value) and name != "epoch"}
        if line["epoch"] in epochs and "validation" in (predictions := run.predictions(line["epoch"])):
            labels, probabilities = run.labels("validation"), predictions["validation"]
            counts = confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1])
            scores = {"loss": cross_entropy(labels, probabilities), "UA": ua(counts), "WA": wa(counts)}
            values |= {f"validation_{name}": value for name, value in {**scores, "WF1": wf1(counts)}.items()}
        yield int(line["epoch"]), values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def write_tensorboard(runs: Sequence[Run]) -> None:
    """Write TensorBoard's event files to the folder tensorboard/ of each run, instead of those that it contains."""
    from torch.utils.tensorboard import SummaryWriter

    for run in runs:
        folder = run.folder / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as writer:
            writer.add_text("config", f"```toml\n{run.config_path.read_text(encoding='utf-8')}```")
            for epoch, values in curves(run):
                for name, value in values.items():
                    writer.add_scalar(name, value, epoch)


def write_mlflow(runs: Sequence[Run]) -> None:
    """Write each run to MLflow, into the experiment of the recipe's name; MLFLOW_TRACKING_URI says where.

    A run of MLflow that was written from the same run folder is deleted.
    """
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    for run in runs:
        name, folder = str(run.config["name"]), str(run.folder.resolve())
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        for earlier in client.search_runs([experiment_id]):
            if earlier.data.tags.get("affekt.run") == folder:
                client.delete_run(earlier.info.run_id)
        run_id = client.create_run(experiment_id, run_name=_title(run)).info.run_id
        metrics = [Metric(key, value, 0, epoch) for epoch, values in curves(run) for key, value in values.items()]
        settings = [Param(key, str(value)[:500]) for key, value in flatten(run.config).items()]
        tags = [RunTag("affekt.run", folder), RunTag("affekt.split", run.split.hash)]
        for start in range(0, max(len(metrics), len(settings)), 100):  # the server accepts 100 settings at a time
            end = start + 100
            client.log_batch(run_id, metrics[start:end], settings[start:end], tags if start == 0 else [])
        client.set_terminated(run_id)


def _title(run: Run) -> str:
    fold = f", fold {run.split.fold}" if run.split.fold else ""
    return f"{Path(run.folder).name}: seed {run.config['seed']}{fold}"
