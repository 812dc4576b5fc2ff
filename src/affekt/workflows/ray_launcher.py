"""The launcher that runs training jobs on a Ray cluster.

Each job is a Ray task. It receives the job as JSON text, and yields log messages and the outcome of the job as JSON texts.
Nothing else is serialized; Ray finds the task's function by its name.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from affekt.errors import AffektError, BadConfig, BadOutput
from affekt.features.choice import choose_feature
from affekt.features.remote_store import VARIABLE as REMOTE_FEATURES
from affekt.files import cache_root
from affekt.json_text import to_json
from affekt.ray_cluster import connect
from affekt.storage import is_url
from affekt.training.distributed import num_processes
from affekt.training.recipe import Recipe
from affekt.workflows.job import Job
from affekt.workflows.job_runner import JobRunner
from affekt.workflows.jobs import OnFinished, failure, ignore, raise_failures
from affekt.workflows.node_requirements import NodeRequirements
from affekt.workflows.ray_nodes import Head, check_nodes, describe_missing_package, find_nodes, last_line
from affekt.workflows.ray_worker import run_job

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Workers in a row that may die with a job before it has finished another epoch."""
LOCK_SECONDS = 150.0
"""Longest wait of a job for the lock of its run folder, in seconds. A file server releases the locks of a dead machine after
at most 90 s."""
FILE_SECONDS = 120.0
"""Longest wait for files written by a node to appear on this machine, in seconds. Network disks cache file listings for up to
a minute."""
POLL = 0.5
"""Longest wait for a message, in seconds."""
DEATHS = {
    "NodeDiedError": "the node died or cannot be reached",
    "OutOfMemoryError": "its memory ran out",
    "WorkerCrashedError": "its process ended unexpectedly",
}
"""Class of Ray's error -> why the worker died."""
VARIABLES = ("AFFEKT_DATA", "AFFEKT_MODELS", REMOTE_FEATURES)
"""Environment variables with folders or URLs that are copied to the nodes. AFFEKT_CACHE is copied too, unless features are in
an object store: then each node has a cache of its own."""


class RayLauncher:
    """Runs jobs on the nodes of a Ray cluster, as many at a time as the cluster has room for; use it in a `with` statement.

    This process computes the features; the nodes only read them. If a node or worker dies, its job resumes on another one. If
    a job fails, the others continue. When this process ends for any reason, so do its jobs.

    Args:
        address: HOST:PORT of the head node, or "auto" for the cluster that this machine belongs to. If it belongs to none,
            Ray is started on this machine.
        runner: The runner of this process, which computes the features.
        cpus_per_job: CPUs that a job reserves, which may be a fraction; None for `training.threads`, at least 1.
        gpus_per_job: GPUs that a job reserves: a fraction of one, or several, on which one model is trained; None for one if
            the recipe's device is "cuda", otherwise zero.
        max_jobs: Maximum number of jobs that run at a time; None for no limit.

    Raises:
        BadConfig: An option is invalid; or, at the start of the `with` statement, there is no cluster at the address.
        MissingExtra: At the start of the `with` statement, Ray is not installed.
    """

    def __init__(
        self,
        address: str,
        runner: JobRunner | None = None,
        *,
        cpus_per_job: float | None = None,
        gpus_per_job: float | None = None,
        max_jobs: int | None = None,
    ) -> None:
        if num_processes() > 1:
            raise BadConfig(
                "torchrun trains one model with several processes: use either torchrun, or --ray with --gpus-per-job"
            )
        if gpus_per_job is not None and gpus_per_job > 1 and gpus_per_job != int(gpus_per_job):
            raise BadConfig(f"--gpus-per-job {gpus_per_job:g}: expected a fraction of one GPU, or a whole number")
        self._cpus, self._gpus, self._max_jobs = cpus_per_job, gpus_per_job, max_jobs
        self.runner = runner or JobRunner()
        self._connection = connect(address, purpose="training on a cluster")

    def __enter__(self) -> RayLauncher:
        self._ray: Any = self._connection.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._connection.__exit__(*exception)

    def run(self, jobs: Sequence[Job], *, on_finished: OnFinished = ignore) -> None:
        """Run all jobs; arguments and errors as in `Launcher`.

        Raises:
            BadConfig: No node has room for a job, or a node cannot read or write what jobs need.
        """
        if not jobs:
            return
        with _requirements(jobs) as requirements:
            self._check_nodes(jobs, requirements)
            tasks = [self._task(job, requirements) for job in jobs if self.runner.prepare(job) is not None]
            failures = dict[Path, AffektError]()
            for task, error in _Queue(self._ray, tasks, self._max_jobs).run():
                if error is None:
                    on_finished(task.job)
                else:
                    failures[task.job.folder] = error
        raise_failures({job.folder: failures[job.folder] for job in jobs if job.folder in failures}, len(jobs))

    def _check_nodes(self, jobs: Sequence[Job], requirements: NodeRequirements) -> None:
        cpus, gpus = max(map(self._cpus_of, jobs)), max(map(self._gpus_of, jobs))
        check_nodes(self._ray, find_nodes(self._ray, cpus, gpus), requirements)

    def _cpus_of(self, job: Job) -> float:
        return self._cpus if self._cpus is not None else float(max(1, job.recipe.training.threads))

    def _gpus_of(self, job: Job) -> float:
        """Return the GPUs of a job. Raises `BadConfig` if its device does not fit."""
        uses_gpu = torch.device(job.recipe.training.device).type == "cuda"
        gpus = self._gpus if self._gpus is not None else float(uses_gpu)
        if uses_gpu != bool(gpus):
            cure = "training.device='cuda'" if gpus else "--gpus-per-job 1"
            raise BadConfig(f"--gpus-per-job {gpus:g}, but {job.recipe.name} trains on another device: set {cure}")
        return gpus

    def _task(self, job: Job, requirements: NodeRequirements) -> _Task:
        cpus, gpus = self._cpus_of(job), self._gpus_of(job)
        ranks = max(1, int(gpus))
        setup = {
            "threads": max(1, int(cpus / ranks)),
            "feature_threads": self.runner.feature_threads,
            "log": logging.getLogger("affekt").getEffectiveLevel(),
            "lock_seconds": LOCK_SECONDS,
        }
        content = replace(job, folder=job.folder.absolute()).to_message()
        request = {"requirements": requirements.to_message(), "setup": setup, "job": content, "ranks": ranks}
        return _Task(job, to_json(request), {"num_cpus": cpus, "num_gpus": gpus, "name": f"train {job.folder}"})


class _Task:
    """A job that is sent to the cluster, again if a worker dies."""

    def __init__(self, job: Job, request: str, resources: dict[str, Any]) -> None:
        self.job, self.request, self.resources = job, request, resources
        self.node = "not started"
        self._deaths, self._epoch = 0, self.last_epoch

    @property
    def last_epoch(self) -> int:
        return max(self.job.run.epochs, default=0)

    def note_death(self, reason: str) -> AffektError | None:
        """Count the death of a worker; return an error if too many workers have died since the last finished epoch."""
        epoch = self.last_epoch
        self._deaths = 1 if epoch > self._epoch else self._deaths + 1
        self._epoch = epoch
        if self._deaths < MAX_DEATHS:
            logger.warning(
                "%s: its worker on node %s died (%s); it resumes after epoch %d",
                self.job.folder,
                self.node,
                reason,
                epoch,
            )
            return None
        return AffektError(
            f"{MAX_DEATHS} workers in a row died while training it, the last on node {self.node} ({reason}); run the same "
            "command again to resume, with more resources for each job if memory ran out"
        )

    def await_files(self, last_epoch: int) -> None:
        """Wait until the files of this epoch, written by a node, are visible on this machine. Raises `BadOutput`."""
        deadline = time.monotonic() + FILE_SECONDS
        while self.last_epoch < last_epoch:
            if time.monotonic() > deadline:
                raise BadOutput(
                    f"{self.job.folder}: node {self.node} has finished epoch {last_epoch}, but its files do not appear on "
                    "this machine: the run folder must be on a disk that all nodes share"
                )
            time.sleep(POLL)


class _Queue:
    """The tasks that wait to be sent to the cluster or run there."""

    def __init__(self, ray: Any, tasks: Sequence[_Task], max_jobs: int | None) -> None:
        self._ray, self._max_jobs = ray, max_jobs or len(tasks)
        self._waiting, self._running = deque(tasks), dict[Any, _Task]()
        self._function = ray.remote(run_job)
        self._head = Head(ray)

    def run(self) -> Iterator[tuple[_Task, AffektError | None]]:
        """Yield each task when it has ended, with its error if it failed. Raises `BadConfig` for an unusable node."""
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._max_jobs:
                    self._submit(self._waiting.popleft())
                self._head.check()
                ready, _ = self._ray.wait(list(self._running), timeout=POLL)
                for answers in ready:
                    yield from self._receive(answers)
        finally:
            for answers in self._running:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(answers, force=True)

    def _submit(self, task: _Task) -> None:
        options = {**task.resources, "num_returns": "streaming", "max_retries": 0}
        self._running[self._function.options(**options).remote(task.request)] = task

    def _receive(self, answers: Any) -> Iterator[tuple[_Task, AffektError | None]]:
        """React to the next message about a task; yield the task, with its error, if it has ended."""
        task = self._running[answers]
        message = self._next_message(answers)
        if "node" in message:
            task.node = message["node"]
            logger.info("%s: on node %s", task.job.folder, task.node)
        elif "log" in message:
            folder = task.job.folder  # in messages of the node, its path is absolute
            logger.log(message["level"], "%s", message["log"].replace(str(folder.absolute()), str(folder), 1))
        elif "refused" in message:
            raise BadConfig(f"node {task.node} of the Ray cluster {message['refused']}")
        else:
            del self._running[answers]
            error = failure(message)
            if "died" in message:
                error = task.note_death(message["died"])
                if error is None:
                    self._waiting.appendleft(task)
                    self._warn_if_no_node_fits(task)
                    return
            if error is None:
                task.await_files(message["last_epoch"])
            yield task, error

    def _warn_if_no_node_fits(self, task: _Task) -> None:
        """Log a warning if no living node has enough resources for a task, which then waits for a new node."""
        try:
            find_nodes(self._ray, task.resources["num_cpus"], task.resources["num_gpus"])
        except BadConfig as error:
            logger.warning("%s waits for a new node: %s", task.job.folder, error)

    def _next_message(self, answers: Any) -> dict[str, Any]:
        """Return the next message about a task; one with the key "died" if its worker or node has died."""
        try:
            message: dict[str, Any] = json.loads(self._ray.get(next(answers)))
        except self._ray.exceptions.RayError as error:
            if missing := describe_missing_package(error):
                raise BadConfig(f"a node of the Ray cluster {missing}") from error
            return {"died": DEATHS.get(type(error).__name__, last_line(error))}
        return message


@contextlib.contextmanager
def _requirements(jobs: Sequence[Job]) -> Iterator[NodeRequirements]:
    """Yield what nodes need to run the jobs. During the `with` block, there is a new file in each shared folder, by which
    nodes check that they see the same folder.

    Raises:
        BadOutput: The run folders cannot be written.
    """
    runs, store = os.path.commonpath([job.folder.absolute() for job in jobs]), str(cache_root().absolute())
    token, shares_store = f".affekt-{secrets.token_hex(8)}", not os.environ.get(REMOTE_FEATURES)
    shared = (runs, store) if shares_store else (runs,)
    written = {folder: token if _write_token(Path(folder) / token) else "" for folder in shared}
    variables = {name: _absolute(value) for name in VARIABLES if (value := os.environ.get(name))}
    inputs = {path.absolute() for job in jobs for path in _inputs(job.recipe)}
    if not shares_store:  # each node copies corpora from an object store to its own cache
        inputs = {path for path in inputs if not path.is_relative_to(store)}
    try:
        if not written[runs]:
            raise BadOutput(f"{runs} cannot be written: choose another run folder with --run")
        yield NodeRequirements(
            readable=tuple(sorted(map(str, inputs))),
            shared=written,
            writable=runs,
            environment={**variables, **({"AFFEKT_CACHE": store} if shares_store else {})},
            folder=str(Path.cwd()),
        )
    finally:
        for folder in written:
            (Path(folder) / token).unlink(missing_ok=True)


def _absolute(folder: str) -> str:
    return folder if is_url(folder) else str(Path(folder).absolute())


def _write_token(path: Path) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    except OSError:
        return False
    return True


def _inputs(recipe: Recipe) -> Iterator[Path]:
    """Yield the folders and files that a recipe reads: corpora, encoders, runs and the bundle to start from."""
    for source in recipe.sources:
        yield source.path
        if source.only:
            yield Path(source.only).expanduser()
    sections = {**recipe.features, **({"teacher": recipe.training.teacher} if recipe.training.teacher else {})}
    for stream, section in sections.items():
        if (folder := choose_feature(section, f"features.{stream}").path) is not None:
            yield folder
    yield from (Path(folder).expanduser() for folder in recipe.weights_from.values())
    if recipe.start and Path(recipe.start).exists():  # not a bundle that is shipped with affekt
        yield Path(recipe.start)
