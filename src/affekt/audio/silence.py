"""Keep the messages of decoders off standard error, to which mpg123 and ffmpeg write directly.

Only the command line does this: a library must leave the file descriptors of its process alone. `separate_stderr` gives
Python's `sys.stderr` a file descriptor of its own, so that progress bars and log messages still appear while descriptor 2
leads nowhere.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_stderr: int | None = None
"""A copy of the original descriptor 2; None if it is not separated."""
_active = 0
"""Number of decoders that are being kept silent."""


def separate_stderr() -> None:
    """Give `sys.stderr` a file descriptor of its own, after which `silent_decoders` has an effect."""
    global _stderr
    try:
        if _stderr is None and sys.stderr.fileno() == 2:
            _stderr = os.dup(2)
            encoding, errors = sys.stderr.encoding, sys.stderr.errors
            sys.stderr = open(_stderr, "w", buffering=1, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    except (AttributeError, OSError, ValueError):  # there is no standard error
        return


@contextmanager
def silent_decoders() -> Iterator[None]:
    """Discard what is written to file descriptor 2 in this block, if standard error is separated from it."""
    if _stderr is None:
        yield
        return
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    """Redirect descriptor 2 when the first decoder starts, and restore it when the last one ends."""
    global _active
    with _lock:
        before, _active = _active, _active + change
        if before and _active:
            return
        if _active:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        elif _stderr is not None:
            os.dup2(_stderr, 2)
