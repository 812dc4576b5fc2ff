"""The worker process of training: it runs the jobs that it is sent, one after another.

Messages from the parent: first the numbers of threads and the log level, then jobs. Messages to the parent: `ready`, `log`,
and for each job one with the key `ends`, which has the key `failed` if the job raised an error. Several workers train one
model together if their environment says so, as with torchrun.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from affekt.errors import AffektError, BadOutput
from affekt.lock import FileLock, Locked, lock_path
from affekt.processes import Message, Parent, SendingHandler
from affekt.training.distributed import processes
from affekt.workflows.job import Job
from affekt.workflows.job_runner import JobRunner

LOCK = "worker"
"""The path in a run folder that a worker locks. The command that started the worker holds the lock of the folder itself."""
LOCK_SECONDS = 30.0
"""How long to wait for a worker of a killed command, which ends by itself, unless the parent states another time."""


def work() -> None:
    """Run the jobs that the parent process sends; the main function of a worker."""
    parent = Parent()
    setup = parent.receive()
    logger = logging.getLogger("affekt")
    logger.propagate = False
    handler = SendingHandler(parent)
    logger.addHandler(handler)
    runner = JobRunner(threads=setup["threads"], feature_threads=setup["feature_threads"])
    parent.send({"ready": True})
    while True:
        job = Job.from_message(parent.receive())
        handler.setFormatter(logging.Formatter(f"{job.folder}: %(message)s"))
        parent.send({"ends": False, **_run(runner, job, setup)})


def _run(runner: JobRunner, job: Job, setup: Message) -> Message:
    """Run a job, and return its last epoch, or why it failed.

    Only training is logged, since the parent has logged the preparation; of several processes, only by the first.
    """
    logger = logging.getLogger("affekt")
    try:
        with processes(job.recipe.training.device) as (rank, _), _lock_run(job, rank, setup):
            logger.setLevel(logging.ERROR)
            prepared = runner.prepare(job)
            logger.setLevel(logging.ERROR if rank else setup["log"])
            if prepared is not None:
                runner.train(prepared)
    except AffektError as error:
        return {"failed": str(error), "kind": type(error).__name__, "code": error.code}
    except OSError as error:
        message = f"{error.filename or job.folder}: {error.strerror or error}"
        return {"failed": message, "kind": BadOutput.__name__, "code": BadOutput.code}
    return {"last_epoch": max(job.run.epochs, default=0)}


@contextlib.contextmanager
def _lock_run(job: Job, rank: int, setup: Message) -> Iterator[None]:
    """Lock a job's run folder during a block, if this is the first of the processes that train in it."""
    lock = None if rank else _wait_for_lock(job, setup.get("lock_seconds", LOCK_SECONDS))
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _wait_for_lock(job: Job, seconds: float) -> FileLock:
    """Lock a run folder. If another worker has the lock, whose parent was killed or whose machine has died, wait until it
    loses it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return FileLock(job.folder / LOCK)
        except Locked:
            if time.monotonic() > deadline:
                raise BadOutput(
                    f"{job.folder}: another worker process trains in this run folder; stop it, or, if its machine has died, "
                    f"delete {lock_path(job.folder / LOCK)}"
                ) from None
            time.sleep(0.1)
