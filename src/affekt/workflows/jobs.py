"""Training runs as jobs, and the launchers that run jobs: in this process, or in parallel worker processes.

A job is a recipe, the run folder that it writes, and the epoch at which it ends. It can be sent to other processes as JSON. A
launcher is anything with a method `run(jobs)`: a launcher for a cluster (Ray) only has to send each job to a `JobRunner`
there. The result of a job is its run folder, so an interrupted job resumes when it is run again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import torch

from affekt import errors
from affekt.config import decode, encode
from affekt.errors import AffektError, Diverged
from affekt.features.base import Feature
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe
from affekt.training.strategies import Datasets
from affekt.workflows.train import fit_run, start_run
from affekt.workflows.training_data import TrainingData, build_datasets

logger = logging.getLogger(__name__)

MAX_DATASETS = 4
"""Number of datasets that a runner caches."""


@dataclass(frozen=True)
class Job:
    """A training run: a recipe with one fold and one seed, and the run folder."""

    recipe: Recipe
    folder: Path
    until: int | None = None
    """The epoch to end at; None for the last."""
    may_diverge: bool = False
    """If true, a loss that becomes NaN or infinite ends the job and marks its run, instead of raising `Diverged`."""

    @property
    def run(self) -> Run:
        return Run(self.folder)

    def to_json(self) -> str:
        """Return the job as a line of JSON."""
        content = {"folder": str(self.folder), "until": self.until, "may_diverge": self.may_diverge}
        return json.dumps({"recipe": encode(self.recipe), **content})

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read a job from a line of JSON."""
        content = json.loads(text)
        recipe = decode(Recipe, content.pop("recipe"), "job")
        return cls(recipe, Path(content.pop("folder")), **content)


class Launcher(Protocol):
    """Something that runs jobs."""

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all jobs, in any order. Raises the first error of a job; jobs that did not finish can then be run again."""


@dataclass
class JobRunner:
    """Runs jobs one after another, and caches the utterances, features and datasets that they share."""

    data: dict[str, TrainingData] = field(default_factory=dict)
    datasets: dict[str, Datasets] = field(default_factory=dict)
    features: dict[str, dict[str, Feature]] = field(default_factory=dict)
    threads: int = field(default_factory=torch.get_num_threads)
    """Threads for recipes that do not set a number."""
    progress: Progress | None = None

    def run(self, job: Job) -> None:
        """Run a job, unless it is finished."""
        plan = resolve(job.recipe)
        epochs = plan.recipe.training.epochs
        torch.set_num_threads(plan.recipe.training.threads or self.threads)
        torch.use_deterministic_algorithms(True)
        data = self._read_data(plan.recipe)
        ((_, split),) = data.folds(plan)
        run = start_run(plan, job.folder, 0, split, data)
        last_epoch = run.epochs[-1] if run.epochs else 0
        if run.diverged or (run.checkpoint_path.is_file() and last_epoch >= (job.until or epochs)):
            return
        logger.info("training %s", job.folder)
        datasets = self._build_datasets(plan, data, split)
        try:
            fit_run(plan, run, data, datasets, until=job.until)
        except Diverged as error:
            if not job.may_diverge:
                raise
            run.mark_diverged(str(error))
            logger.warning("%s", error)

    def add_data(self, recipe: Recipe, data: TrainingData) -> None:
        """Add training data that are already read, for all jobs whose recipes have these labels and corpora."""
        self.data[_cache_key(recipe, "labels", "corpora")] = data

    def _read_data(self, recipe: Recipe) -> TrainingData:
        cache_key = _cache_key(recipe, "labels", "corpora")
        if cache_key not in self.data:
            self.data[cache_key] = TrainingData.read(recipe)
        return self.data[cache_key]

    def _build_datasets(self, plan: Plan, data: TrainingData, split: Split) -> Datasets:
        """Return the datasets, built only once for all recipes with the same utterances, features and augmentation."""
        recipe, training = plan.recipe, plan.recipe.training
        features_key = _cache_key(recipe, "features")
        settings = [encode(training.augmentation), training.votes, training.subset, recipe.seed]
        cache_key = json.dumps(
            [_cache_key(recipe, "labels", "corpora"), split.hash, features_key, plan.streams, settings]
        )
        if cache_key not in self.datasets:
            if features_key not in self.features:
                self.features[features_key] = plan.build_features()
            while len(self.datasets) >= MAX_DATASETS:
                self.datasets.pop(next(iter(self.datasets)))
            features = self.features[features_key]
            self.datasets[cache_key] = build_datasets(plan, features, data, split, self.progress)
        return self.datasets[cache_key]


def _cache_key(recipe: Recipe, *names: str) -> str:
    settings = encode(recipe)
    return json.dumps([settings[name] for name in names], sort_keys=True)


@dataclass
class LocalLauncher:
    """Runs jobs in this process."""

    runner: JobRunner = field(default_factory=JobRunner)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all jobs in order."""
        for job in jobs:
            self.runner.run(job)


class Workers:
    """Runs jobs in several worker processes on this machine; use it in a `with` statement, which ends them.

    A worker reads jobs and writes log messages and results, as lines of JSON. It ends when the process that started it ends
    for any reason, so two workers never write to the same run folder.
    """

    def __init__(self, number: int) -> None:
        self.processes = [_start_worker() for _ in range(number)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes its pipes, and waits for it
                pass

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all jobs, one at a time in each worker."""
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        failures: list[BaseException] = []
        threads = [
            threading.Thread(target=_feed_worker, args=(process, waiting, failures), daemon=True)
            for process in self.processes[: len(jobs)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]


def _start_worker() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from affekt.workflows.jobs import work; work()"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def _feed_worker(
    process: subprocess.Popen[str], waiting: queue.SimpleQueue[Job], failures: list[BaseException]
) -> None:
    """Send jobs to a worker one after another, until none is waiting or a job has failed."""
    while not failures:
        try:
            job = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            _run_in_worker(process, job)
        except BaseException as error:  # `Workers.run` raises it in the calling thread
            failures.append(error)


def _run_in_worker(process: subprocess.Popen[str], job: Job) -> None:
    """Send a job to a worker, log its messages until it is done, and raise its error if it fails."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # a worker that has ended is detected below
        print(job.to_json(), file=process.stdin, flush=True)
    for line in process.stdout:
        message = json.loads(line)
        if "log" in message:
            logger.log(message["level"], "%s (seed %d): %s", job.recipe.name, job.recipe.seed, message["log"])
        elif "error" in message:
            raise getattr(errors, message["kind"])(message["error"], code=message["code"])
        else:
            return
    raise AffektError(
        f"a worker process ended with exit status {process.wait()} while training {job.folder}; run the same command again "
        "to resume, with fewer workers if memory ran out"
    )


def serve(jobs: TextIO, output: TextIO) -> None:
    """Read jobs and run them; write log messages and results. The process exits when the input ends."""
    incoming: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, incoming), daemon=True).start()

    def send(**content: Any) -> None:
        print(json.dumps(content), file=output, flush=True)

    logging.getLogger("affekt").setLevel(logging.INFO)
    logging.getLogger("affekt").addHandler(_SendingHandler(send))
    runner = JobRunner()
    while line := incoming.get():
        try:
            runner.run(Job.from_json(line))
            send(done=True)
        except AffektError as error:
            send(error=str(error), kind=type(error).__name__, code=error.code)


class _SendingHandler(logging.Handler):
    """Sends log messages to the process that sent the job."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send(log=record.getMessage(), level=record.levelno)


def _receive(jobs: TextIO, incoming: queue.SimpleQueue[str]) -> None:
    """Put each line into the queue; exit at the end of the input, which means that the sending process has ended."""
    for line in jobs:
        incoming.put(line)
    os._exit(0)


def work() -> None:
    """Serve jobs from standard input; the main function of a worker process."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # anything that is printed goes to standard error, so that it does not mix with the messages
    serve(sys.stdin, output)
