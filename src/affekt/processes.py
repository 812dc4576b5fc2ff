"""Worker processes, which exchange messages with the process that starts them: JSON objects, one per line.

A worker is a new interpreter that runs one function of a module. Unlike with `multiprocessing`, nothing is pickled, and the
main module is not imported again: a script needs no `if __name__ == "__main__"`. A worker ends when the process that started
it ends for any reason, and Ctrl-C reaches only that process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from affekt.json_text import to_json

Message = dict[str, Any]


class WorkerProcess:
    """A worker, as seen by the process that starts it.

    Args:
        entry: The function that the worker runs, as MODULE:FUNCTION. It communicates through a `Parent`.
        environment: Environment variables that it has besides those of this process.
    """

    def __init__(self, entry: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        module, function = entry.split(":")
        paths = [path or str(Path.cwd()) for path in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {module} import {function}; {function}()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if _is_inherited(2) else subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
            **_own_group(),
        )
        self.id = self._process.pid

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; nothing happens if the worker has ended, which `receive` detects."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(to_json(message) + "\n")
            self._process.stdin.flush()

    def receive(self) -> Message | None:
        """Wait for the next message and return it; None if the worker has ended."""
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith("\n"):  # a worker may end in the middle of a line
            return None
        message: Message = json.loads(line)
        return message

    def end(self, grace: float = 0.0) -> str:
        """Kill the worker unless it has ended, and return its status in words, such as "exit status 1".

        Args:
            grace: Seconds to wait for the worker to end by itself before it is killed.
        """
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return describe_status(status)


def _own_group() -> dict[str, Any]:
    """Return the options that keep Ctrl-C from a new process."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"process_group": 0}


def describe_status(status: int) -> str:
    """Return the exit status of a process in words, such as "exit status 1" or "signal SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


class Parent:
    """The process that started this worker. Anything that the worker prints goes to standard error."""

    def __init__(self) -> None:
        self._output = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._messages.put(line)
        os._exit(0)  # the parent has ended, or has closed the pipe

    def receive(self) -> Message:
        """Wait for the next message and return it. The process exits if the parent has ended."""
        message: Message = json.loads(self._messages.get())
        return message

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. The process exits if the parent has ended."""
        try:
            with self._lock:
                self._output.write(to_json(message) + "\n")
                self._output.flush()
        except OSError:
            os._exit(0)


class SendingHandler(logging.Handler):
    """Sends log messages, with their tracebacks, to the parent."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        self._parent.send({"log": self.format(record), "level": record.levelno})


def _is_inherited(descriptor: int) -> bool:
    """Return whether a file descriptor is open in child processes."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False
