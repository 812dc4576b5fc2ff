"""Keep the messages of libsndfile, mpg123 and ffmpeg off standard output and standard error, to which they write directly.

Only the command line does this: a library must leave the file descriptors of its process alone. `separate_streams` gives
Python's `sys.stdout` and `sys.stderr` file descriptors of their own, so that results, progress bars and log messages still
appear while descriptors 1 and 2 are redirected to the null device.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_lock = threading.Lock()
_stderr: int | None = None
"""A copy of the original descriptor 2; None if the streams are not separated."""
_active = 0
"""Number of decoders that are being kept silent."""


def separate_streams() -> None:
    """Give `sys.stdout` and `sys.stderr` file descriptors of their own, after which `silent_decoders` has an effect."""
    global _stderr
    try:
        if _stderr is None and (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2):
            sys.stdout = _reopen(sys.stdout, line_buffering=sys.stdout.isatty())
            sys.stderr = _reopen(sys.stderr, line_buffering=True)
            _stderr = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # one of them is closed
        return


def are_separated() -> bool:
    """Return whether `separate_streams` has had an effect."""
    return _stderr is not None


def _reopen(stream: TextIO, *, line_buffering: bool) -> TextIO:
    return open(
        os.dup(stream.fileno()),
        "w",
        buffering=1 if line_buffering else -1,
        encoding=stream.encoding,
        errors=stream.errors,
        closefd=False,
    )


@contextmanager
def silent_decoders() -> Iterator[None]:
    """Discard what is written to file descriptor 2 in this block, and to descriptor 1 from now on.

    This has no effect if the streams are not separated. A C library writes to a buffer of standard output first, which may be
    emptied after the block, and therefore descriptor 1 is not restored.
    """
    if _stderr is None:
        yield
        return
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    """Redirect the descriptors when the first decoder starts, and restore descriptor 2 when the last one ends."""
    global _active
    with _lock:
        before, _active = _active, _active + change
        if before and _active:
            return
        if _active:
            null_device = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null_device, 1)
            os.dup2(null_device, 2)
            os.close(null_device)
        elif _stderr is not None:
            os.dup2(_stderr, 2)
