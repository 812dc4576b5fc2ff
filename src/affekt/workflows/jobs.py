"""Trainings as jobs, and who does them: this process, or several worker processes side by side.

A job is a recipe, the run folder that it fills, and how far it goes; as JSON it can be sent anywhere. A launcher is
anything with `run(jobs)`: one that sends `fulfil` to a cluster (Ray) needs no more than that. What a job leaves behind is its
run folder, so that a job that was stopped goes on when it is given again.
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
from affekt.training.recipe import Recipe
from affekt.training.strategies import Datasets
from affekt.workflows.train import fit_run, start_run
from affekt.workflows.training_data import Say, TrainingData, build_datasets

KEPT = 4  # datasets that a workshop keeps open


@dataclass(frozen=True)
class Job:
    """Train a recipe of one fold and one seed into a run folder, to its end or until an epoch.

    may_diverge: a loss that is no longer a number ends the job, not the whole search: its run is marked.
    """

    recipe: Recipe
    folder: Path
    until: int | None = None
    may_diverge: bool = False

    @property
    def run(self) -> Run:
        return Run(self.folder)

    def to_json(self) -> str:
        return json.dumps(
            {
                "recipe": encode(self.recipe),
                "folder": str(self.folder),
                "until": self.until,
                "may_diverge": self.may_diverge,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Job:
        content = json.loads(text)
        recipe = decode(Recipe, content.pop("recipe"), "job")
        return cls(recipe, Path(content.pop("folder")), **content)


class Launcher(Protocol):
    """Who does jobs."""

    def run(self, jobs: Sequence[Job], say: Say) -> None:
        """Do all of them, in whatever order. Raises the first one's error of ours; the others can then be given again."""


@dataclass
class JobRunner:
    """Does jobs one after another, and keeps what they share: utterances, splits and datasets."""

    materials: dict[str, TrainingData] = field(default_factory=dict)
    datasets: dict[str, Datasets] = field(default_factory=dict)
    encoders: dict[str, dict[str, Feature]] = field(default_factory=dict)
    threads: int = field(default_factory=torch.get_num_threads)  # for recipes that ask for none
    progress: Progress | None = None

    def fulfil(self, job: Job, say: Say) -> None:
        recipe = job.recipe
        torch.set_num_threads(recipe.training.threads or self.threads)
        torch.use_deterministic_algorithms(True)
        material = self._material(recipe)
        ((_, split),) = material.folds(recipe)
        run = start_run(recipe, job.folder, 0, split, material)
        if run.diverged or (run.checkpoint_path.is_file() and run.epochs[-1:] >= [job.until or recipe.training.epochs]):
            return
        datasets = self._data(recipe, material, split, say)
        try:
            fit_run(recipe, run, material, datasets, until=job.until, say=say)
        except Diverged as error:
            if not job.may_diverge:
                raise
            run.mark_diverged(str(error))
            say(str(error))

    def _material(self, recipe: Recipe) -> TrainingData:
        mark = _mark(recipe, "labels", "corpora")
        if mark not in self.materials:
            self.materials[mark] = TrainingData.read(recipe, lambda _: None)
        return self.materials[mark]

    def _data(self, recipe: Recipe, material: TrainingData, split: Split, say: Say) -> Datasets:
        """What `build_datasets` gives, once for all recipes that hear the same."""
        kinds = _mark(recipe, "encoder", "streams")
        altered = [encode(recipe.training.augmentation), recipe.training.votes, recipe.training.subset]
        mark = json.dumps([_mark(recipe, "labels", "corpora"), split.hash, kinds, recipe.taken, altered, recipe.seed])
        if mark not in self.datasets:
            if kinds not in self.encoders:
                self.encoders[kinds] = recipe.build_encoders()
            while len(self.datasets) >= KEPT:
                self.datasets.pop(next(iter(self.datasets)))
            self.datasets[mark] = build_datasets(recipe, self.encoders[kinds], material, split, say, self.progress)
        return self.datasets[mark]


def _mark(recipe: Recipe, *names: str) -> str:
    settings = encode(recipe)
    return json.dumps([settings[name] for name in names], sort_keys=True)


@dataclass
class LocalLauncher:
    """Does jobs in this process."""

    workshop: JobRunner = field(default_factory=JobRunner)

    def run(self, jobs: Sequence[Job], say: Say) -> None:
        for job in jobs:
            self.workshop.fulfil(job, _named(job, say))


def _named(job: Job, say: Say) -> Say:
    return lambda text: say(f"{job.recipe.name} (seed {job.recipe.seed}): {text}")


class Workers:
    """Does jobs in so many processes of this machine, which live as long as the launcher: use it in a `with` statement.

    They talk in lines of JSON: a job each way in, what is said and how it ended on the way out. A worker ends with the
    process that started it, however that one ends, so that no two ever fill one run folder.
    """

    def __init__(self, number: int) -> None:
        self.processes = [_worker() for _ in range(number)]

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            with contextlib.suppress(BrokenPipeError), process:  # closes its pipes, and waits for it
                pass

    def run(self, jobs: Sequence[Job], say: Say) -> None:
        left: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            left.put(job)
        failed: list[BaseException] = []
        threads = [
            threading.Thread(target=_served, args=(process, left, failed, say), daemon=True)
            for process in self.processes[: len(jobs)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]


def _worker() -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from affekt.workflows.jobs import work; work()"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")


def _served(
    process: subprocess.Popen[str], left: queue.SimpleQueue[Job], failed: list[BaseException], say: Say
) -> None:
    """Hand one worker job after job, until none is left or one has failed."""
    while not failed:
        try:
            job = left.get_nowait()
        except queue.Empty:
            return
        try:
            _handed(process, job, _named(job, say))
        except BaseException as error:  # the caller's thread raises it
            failed.append(error)


def _handed(process: subprocess.Popen[str], job: Job, say: Say) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # its end shows below
        print(job.to_json(), file=process.stdin, flush=True)
    for line in process.stdout:
        answer = json.loads(line)
        if "say" in answer:
            say(answer["say"])
        elif "error" in answer:
            raise getattr(errors, answer["kind"])(answer["error"], code=answer["code"])
        else:
            return
    raise AffektError(
        f"a worker ended with status {process.wait()} while it trained {job.folder}: run the same again to go on; "
        "with fewer workers, if memory ran out"
    )


def serve(jobs: TextIO, answers: TextIO) -> None:
    """A worker's life: jobs in, answers out, until there are no more."""
    coming: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs, coming), daemon=True).start()
    workshop = JobRunner()

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    logging.getLogger("affekt").setLevel(logging.INFO)
    logging.getLogger("affekt").addHandler(_AnswerHandler(answer))
    while line := coming.get():
        try:
            workshop.fulfil(Job.from_json(line), lambda text: answer(say=text))
            answer(done=True)
        except AffektError as error:
            answer(error=str(error), kind=type(error).__name__, code=error.code)


class _AnswerHandler(logging.Handler):
    """Sends log messages to the process that gives the jobs."""

    def __init__(self, answer: Callable[..., None]) -> None:
        super().__init__()
        self.answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        self.answer(say=record.getMessage())


def _listen(jobs: TextIO, coming: queue.SimpleQueue[str]) -> None:
    """Pass the jobs on; at their end, which is the end of the process that gives them, end at once."""
    for line in jobs:
        coming.put(line)
    os._exit(0)


def work() -> None:
    """What a worker's process runs."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what anybody prints goes where warnings go, and not between the answers
    serve(sys.stdin, answers)
