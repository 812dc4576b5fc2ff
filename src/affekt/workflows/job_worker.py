"""The worker process of training: it runs the jobs that it is sent, one after another.

Messages from the parent: first the numbers of threads and the log level, then jobs. Messages to the parent: `ready`, `log`,
and for each job one with the key `ends`, which has the key `failed` if the job raised an error.
"""

from __future__ import annotations

import logging
import time

from affekt.errors import AffektError, BadOutput
from affekt.lock import FileLock, Locked
from affekt.processes import Message, Parent, SendingHandler
from affekt.workflows.job import Job
from affekt.workflows.job_runner import JobRunner

LOCK = "worker"
"""The path in a run folder that a worker locks. The command that started the worker holds the lock of the folder itself."""
LOCK_SECONDS = 30.0
"""How long to wait for a worker of a killed command, which ends by itself."""


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
        parent.send({"ends": False, **_run(runner, job, setup["log"])})


def _run(runner: JobRunner, job: Job, level: int) -> Message:
    """Run a job, and return why it failed. Only training is logged, since the parent has logged the preparation."""
    logger = logging.getLogger("affekt")
    try:
        lock = _lock(job)
        try:
            logger.setLevel(logging.ERROR)
            prepared = runner.prepare(job)
            logger.setLevel(level)
            if prepared is not None:
                runner.train(prepared)
        finally:
            lock.release()
    except AffektError as error:
        return {"failed": str(error), "kind": type(error).__name__, "code": error.code}
    except OSError as error:
        message = f"{error.filename or job.folder}: {error.strerror or error}"
        return {"failed": message, "kind": BadOutput.__name__, "code": BadOutput.code}
    return {}


def _lock(job: Job) -> FileLock:
    """Lock a run folder; wait for another worker, whose parent was killed, to end."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return FileLock(job.folder / LOCK)
        except Locked:
            if time.monotonic() > deadline:
                raise BadOutput(f"{job.folder}: another worker process trains in this run folder; stop it") from None
            time.sleep(0.1)
