"""Launchers, which run the jobs of `affekt train`, `search` and `reproduce`: in this process, or in worker processes.

`ray_launcher` has the launcher for a cluster. The result of a job is its run folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch

from affekt import errors
from affekt.cores import check_threads
from affekt.errors import AffektError, BadConfig
from affekt.processes import Message
from affekt.training.distributed import num_processes
from affekt.worker_pool import WorkerPool
from affekt.workflows.job import Job
from affekt.workflows.job_runner import JobRunner

logger = logging.getLogger(__name__)

ENTRY = "affekt.workflows.job_worker:work"
"""The main function of a worker process."""
MAX_NAMED_FAILURES = 3
"""Failed jobs that an error names; the others are counted."""


OnFinished = Callable[[Job], None]


def ignore(_: Job) -> None:
    """Do nothing when a job has finished."""


class Launcher(Protocol):
    """Something that runs jobs."""

    runner: JobRunner
    """The runner of this process, which reads corpora and computes features, so that jobs find them in the store."""

    def run(self, jobs: Sequence[Job], *, on_finished: OnFinished = ignore) -> None:
        """Run all jobs, in any order.

        Args:
            jobs: The jobs.
            on_finished: Called with each job that has finished now.

        Raises:
            AffektError: A corpus or a feature is missing; or some jobs failed, after all others have finished.
        """


class LocalLauncher:
    """Runs jobs in this process, in order.

    Args:
        runner: The runner.
    """

    def __init__(self, runner: JobRunner | None = None) -> None:
        self.runner = runner or JobRunner()

    def run(self, jobs: Sequence[Job], *, on_finished: OnFinished = ignore) -> None:
        """Run all jobs; arguments and errors as in `Launcher`.

        Of several processes that train one model, each raises the first error at once.
        """
        failures: dict[Path, AffektError] = {}
        for job in jobs:
            if (prepared := self.runner.prepare(job)) is None:
                continue
            logger.info("seed %d: %s", prepared.run.config["seed"], job.folder)
            try:
                self.runner.train(prepared)
            except AffektError as error:
                if num_processes() > 1:
                    raise
                failures[job.folder] = error
            else:
                on_finished(job)
        raise_failures(failures, len(jobs))


class WorkerLauncher:
    """Runs jobs in worker processes on this machine, one at a time in each; use it in a `with` statement, which ends them.

    Workers share the threads of torch. A worker that dies is replaced, and its job resumes once; a job that fails does not
    stop the others. A worker ends when this process ends for any reason.

    Args:
        workers: The number of worker processes.
        runner: Prepares the jobs in this process, which includes the extraction of features.

    Raises:
        BadConfig: There are more workers than twice the number of the machine's cores, or torchrun started this process.
    """

    def __init__(self, workers: int, runner: JobRunner | None = None) -> None:
        check_threads(workers, "workers")
        if num_processes() > 1:
            raise BadConfig("torchrun trains one model with several processes: use either torchrun or --workers")
        self.runner, self._workers = runner or JobRunner(), workers
        setup = {
            "threads": max(1, torch.get_num_threads() // workers),
            "feature_threads": self.runner.feature_threads,
            "log": logging.getLogger("affekt").getEffectiveLevel(),
        }
        self.pool = WorkerPool[_Task](ENTRY, setup, workers, option="--workers")

    def __enter__(self) -> WorkerLauncher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.__exit__(*exception)

    def run(self, jobs: Sequence[Job], *, on_finished: OnFinished = ignore) -> None:
        """Run all jobs; arguments and errors as in `Launcher`.

        Raises:
            BadConfig: The workers together have more threads than twice the number of the machine's cores.
        """
        threads = max((job.recipe.training.threads for job in jobs), default=1)
        check_threads(min(self._workers, len(jobs)) * max(1, threads), "workers times training.threads:")
        tasks = [_Task(job) for job in jobs if self.runner.prepare(job) is not None]
        failures: dict[Path, AffektError] = {}
        for task, message in self.pool.run(tasks):
            if (error := task.error(message)) is not None:
                failures[task.job.folder] = error
            else:
                on_finished(task.job)
        raise_failures({job.folder: failures[job.folder] for job in jobs if job.folder in failures}, len(jobs))


class _Task:
    """A job, as it is sent to a worker."""

    def __init__(self, job: Job) -> None:
        self.job, self.name = job, str(job.folder)

    def request(self) -> Message:
        return self.job.to_message()

    def error(self, message: Message) -> AffektError | None:
        """Return the error of a job that failed."""
        if "died" in message:
            return AffektError(
                f"two worker processes died while training it (the second with {message['died']}); run the same command "
                "again to resume, with fewer workers if memory ran out"
            )
        return failure(message)


def failure(message: Message) -> AffektError | None:
    """Return the error in the last message of a worker about a job; None if the job has finished."""
    if "failed" not in message:
        return None
    error: AffektError = getattr(errors, message["kind"])(message["failed"], code=message["code"])
    return error


def raise_failures(failures: Mapping[Path, AffektError], num_jobs: int) -> None:
    """Raise an error that names the failed jobs, of the kind of the first one, unless there is none.

    Args:
        failures: Run folder -> why its job failed.
        num_jobs: The number of all jobs.
    """
    if not failures:
        return
    first = next(iter(failures.values()))
    if num_jobs == 1:
        raise first
    named = "; ".join(f"{folder}: {error}" for folder, error in list(failures.items())[:MAX_NAMED_FAILURES])
    others = f"; and {len(failures) - MAX_NAMED_FAILURES} more" if len(failures) > MAX_NAMED_FAILURES else ""
    message = f"{len(failures)} of {num_jobs} training runs failed, the others are finished: {named}{others}"
    raise type(first)(message, code=first.code) from first
