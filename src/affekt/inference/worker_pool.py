"""Worker processes that recognize files: each loads the recognizer once and takes one file at a time.

A worker that dies is replaced, and its file is sent once more; if it dies again with the same file, the file has failed.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from affekt import errors
from affekt.audio.read import AudioSource
from affekt.audio.streams import STANDARD_INPUT
from affekt.cores import usable_cores
from affekt.errors import AffektError, BadBundle
from affekt.inference.recognizer import Recognizer
from affekt.inference.worker import ENTRY, describe
from affekt.processes import Message, WorkerProcess

logger = logging.getLogger(__name__)

SECONDS_PER_BYTE = 5e-7
"""Estimated time to recognize one byte of a file, in seconds: 8 ms for a second of speech that takes 16 kB."""
SECONDS_PER_FILE = 0.01
"""Estimated additional time per file, in seconds."""
MIN_SECONDS_PER_WORKER = 1.0
"""Least estimated work, in seconds, for which a worker is started. Starting it takes about 0.7 seconds."""
MAX_FAILED_STARTS = 3
"""Number of workers in a row that may die before they are ready."""
POLL = 0.2
"""Longest wait for a message, in seconds. It is short because Windows delivers Ctrl-C only between waits."""
GRACE = 1.0
"""Seconds to wait for the end of a worker that has closed its output."""


class Task(Protocol):
    """A file to process."""

    name: str
    """The name of the file, for messages."""

    def request(self) -> Message:
        """Return the request to send to a worker; called again if it has to be repeated."""
        raise NotImplementedError


AnyTask = TypeVar("AnyTask", bound=Task)


def choose_jobs(jobs: int | None, sources: Sequence[AudioSource], threads: int = 1) -> int:
    """Return the number of worker processes to use for files; 1 means that no worker is started.

    Args:
        jobs: The requested number, which is limited to that of the files; None for as many as save time, up to the cores that
            this process may use.
        sources: The files. What is not a file, and what only this process can read, is left out.
        threads: The number of threads of each worker.
    """
    paths = [Path(source) for source in sources if isinstance(source, str | Path) and is_shared(source)]
    if jobs is None:
        seconds = sum(SECONDS_PER_FILE + SECONDS_PER_BYTE * _size(path) for path in paths)
        jobs = min(usable_cores() // threads, int(seconds / MIN_SECONDS_PER_WORKER))
    return max(1, min(jobs, len(paths)))


def is_shared(source: AudioSource) -> bool:
    """Return whether a source is a path that other processes can read too: not standard input, a descriptor, or an array."""
    if not isinstance(source, str | Path) or str(source) == STANDARD_INPUT:
        return False
    return Path(source).absolute().parts[1:2] not in (("dev",), ("proc",))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


class _Worker(Generic[AnyTask]):
    """A worker process, and the task that it is working on."""

    def __init__(self, entry: str) -> None:
        self.process = WorkerProcess(entry)
        self.task: AnyTask | None = None
        self.is_ready = self.ends = False

    def forward(self, events: queue.SimpleQueue[tuple[_Worker[AnyTask], Message | None]]) -> None:
        """Put the messages of the worker into a queue, and None when it has ended."""
        while (message := self.process.receive()) is not None:
            events.put((self, message))
        events.put((self, None))


class WorkerPool(Generic[AnyTask]):
    """Worker processes with the same recognizer; use it in a `with` statement, which ends them.

    Args:
        recognizer: The recognizer.
        jobs: The number of workers.
    """

    def __init__(self, recognizer: Recognizer, jobs: int) -> None:
        self._setup, self._model, self._jobs = describe(recognizer), recognizer.model, jobs
        self._workers: list[_Worker[AnyTask]] = []
        self._waiting: deque[AnyTask] = deque()
        self._repeated: set[int] = set()
        self._events: queue.SimpleQueue[tuple[_Worker[AnyTask], Message | None]] = queue.SimpleQueue()
        self._failed_starts = 0

    def __enter__(self) -> WorkerPool[AnyTask]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.end()

    @property
    def ids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.id for worker in self._workers]

    def run(self, tasks: Iterable[AnyTask]) -> Iterator[tuple[AnyTask, Message]]:
        """Send the tasks to the workers in order, and yield what the workers send about them, as it arrives.

        The last message about a task has the key "ends", or "died" if two workers died with it.

        Raises:
            AffektError: The workers cannot be started, or cannot load the recognizer.
        """
        self._waiting.extend(tasks)
        self._assign()
        while any(worker.task for worker in self._workers) or self._waiting:
            try:
                event = self._events.get(timeout=POLL)
            except queue.Empty:
                continue
            yield from self._handle(*event)

    def received(self) -> Iterator[tuple[AnyTask, Message]]:
        """Yield the messages that have arrived already."""
        while not self._events.empty():
            sender, message = self._events.get()
            if message is not None and sender.task is not None:
                yield sender.task, message

    def _assign(self) -> None:
        """Give a task to each worker that has none, and start workers while tasks are left."""
        for worker in self._workers:
            if self._waiting and worker.is_ready and worker.task is None and not worker.ends:
                worker.task = self._waiting.popleft()
                worker.process.send(worker.task.request())
        starting = sum(not worker.is_ready for worker in self._workers)
        while len(self._workers) < self._jobs and starting < len(self._waiting):
            started = _Worker[AnyTask](ENTRY)
            started.process.send(self._setup)
            threading.Thread(target=started.forward, args=(self._events,), daemon=True).start()
            self._workers.append(started)
            starting += 1

    def _handle(self, sender: _Worker[AnyTask], message: Message | None) -> Iterator[tuple[AnyTask, Message]]:
        """Act on a message of a worker, or on its end, and yield the message if it is about its task."""
        task = sender.task
        if message is None:
            message = self._replace(sender)
        elif "log" in message:
            logger.log(message["level"], "%s", message["log"])
        elif "error" in message:
            raise getattr(errors, message["kind"])(message["error"], code=message["code"])
        elif "ready" in message:
            self._failed_starts = 0
            sender.is_ready = True
            if message["ready"] != self._model:
                raise BadBundle(f"{self._setup['bundle']} changed while it was in use: start again")
        elif "ends" in message:
            sender.task, sender.ends = None, message["ends"]
        self._assign()
        if task is not None and message is not None and "log" not in message:
            yield task, message

    def _replace(self, ended: _Worker[AnyTask]) -> Message | None:
        """Forget a worker that has ended. Repeat its task, or return the message that it failed if it was repeated before."""
        status = ended.process.end(GRACE)
        self._workers.remove(ended)
        if not ended.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise AffektError(
                    f"{MAX_FAILED_STARTS} worker processes in a row ended with {status} before they were ready: use fewer "
                    "jobs if memory ran out, or one job to recognize without worker processes"
                )
        if ended.task is None:
            return None
        if id(ended.task) in self._repeated:
            return {"died": status}
        self._repeated.add(id(ended.task))
        self._waiting.appendleft(ended.task)
        logger.warning("%s: its worker process ended with %s; it is tried once more", ended.task.name, status)
        return None
