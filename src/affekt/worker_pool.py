"""A pool of worker processes that take one task at a time.

A worker that dies is replaced, and its task is sent once more; if another worker dies with it, the task has failed.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from affekt import errors
from affekt.errors import AffektError
from affekt.processes import Message, WorkerProcess

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Number of workers in a row that may die before they are ready."""
POLL = 0.2
"""Longest wait for a message, in seconds. It is short because Windows delivers Ctrl-C only between waits."""
GRACE = 1.0
"""Longest wait for the exit of a worker that has closed its output, in seconds. After that, the worker is killed."""


class Task(Protocol):
    """A unit of work."""

    name: str
    """The name of the task, for messages."""

    def request(self) -> Message:
        """Return the request to send to a worker; called again if the task is repeated."""
        raise NotImplementedError


AnyTask = TypeVar("AnyTask", bound=Task)


class _Worker(Generic[AnyTask]):
    """A worker process and its current task."""

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
    """Worker processes with the same setup; use it in a `with` statement, which ends them.

    A worker first receives the setup, and answers with a message that has the key "ready". It then receives requests, one at
    a time, and answers each with one or more messages. The last of them has the key "ends", whose value is true if the
    worker process ends after it. At any time, a worker may send a log message (`affekt.processes.SendingHandler`), or an
    error that ends the whole run.

    Args:
        entry: The function that the workers run, as MODULE:FUNCTION.
        setup: The first message to each worker.
        size: The number of workers. They are started when there are tasks for them.
        option: The command-line option that sets this number, for error messages.
        check_ready: Called with the message of a worker that is ready.
    """

    def __init__(
        self,
        entry: str,
        setup: Message,
        size: int,
        *,
        option: str,
        check_ready: Callable[[Message], None] = lambda _: None,
    ) -> None:
        self._entry, self._setup, self._size, self._option = entry, setup, size, option
        self._check_ready = check_ready
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
        """Send the tasks to the workers in order, and yield each answer of a worker with its task, as it arrives.

        The last message about a task has the key "ends", or "died" if two workers died while working on it.

        Raises:
            AffektError: The workers cannot be started, or one has sent an error.
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
        while len(self._workers) < self._size and starting < len(self._waiting):
            started = _Worker[AnyTask](self._entry)
            started.process.send(self._setup)
            threading.Thread(target=started.forward, args=(self._events,), daemon=True).start()
            self._workers.append(started)
            starting += 1

    def _handle(self, sender: _Worker[AnyTask], message: Message | None) -> Iterator[tuple[AnyTask, Message]]:
        """React to a message of a worker, or to its end (None), and yield the message if it is an answer to a request."""
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
            self._check_ready(message)
        elif "ends" in message:
            sender.task, sender.ends = None, message["ends"]
            self._repeated.discard(id(task))  # a later task may get the same id
        self._assign()
        if task is not None and message is not None and "log" not in message:
            yield task, message

    def _replace(self, ended: _Worker[AnyTask]) -> Message | None:
        """Remove a worker that has ended, and queue its task again. If the task was repeated already, return the message that
        it failed."""
        status = ended.process.end(GRACE)
        self._workers.remove(ended)
        if not ended.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise AffektError(
                    f"{MAX_FAILED_STARTS} worker processes in a row ended with {status} before they were ready: reduce "
                    f"{self._option} if memory ran out; with {self._option} 1, no worker process is started"
                )
        if ended.task is None:
            return None
        if id(ended.task) in self._repeated:
            self._repeated.discard(id(ended.task))
            return {"died": status}
        self._repeated.add(id(ended.task))
        self._waiting.appendleft(ended.task)
        logger.warning("%s: its worker process ended with %s; retrying once", ended.task.name, status)
        return None
