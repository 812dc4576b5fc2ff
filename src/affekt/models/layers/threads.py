"""Parallel execution of compiled code on torch's own threads, if they can be used.

After an operation of torch, its threads keep the cores busy for a while, waiting for the next operation. Threads of our own
would compete with them.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

Task = TypeVar("Task")
_forked = False
"""Whether this process was forked. It then has none of its parent's threads, and OpenMP would wait for them forever."""


def run_in_parallel(run: Callable[[Task], object], tasks: Sequence[Task]) -> None:
    """Call `run` on every task, each in its own thread. If a call raises an error, raise it after all calls have ended.

    This is only faster if `run` releases the global interpreter lock, as compiled code can.
    """
    if len(tasks) < 2 or _forked:
        for task in tasks:
            run(task)
        return
    waiting, done, errors = list(tasks), list[Task](), list[BaseException]()

    def work() -> None:
        """Run one task, or more if there are fewer threads than tasks."""
        try:
            while waiting:
                try:
                    task = waiting.pop()
                except IndexError:  # another thread has taken the last task
                    return
                run(task)
                done.append(task)
        except BaseException as error:
            errors.append(error)

    (_openmp() or _run_in_pool)(work, len(tasks))
    if errors:
        raise errors[0]
    if len(done) < len(tasks):  # a signal arrived outside `work`'s try block, and an error cannot pass through OpenMP
        raise KeyboardInterrupt


def _run_in_pool(work: Callable[[], None], threads: int) -> None:
    futures = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for future in futures:
        future.result()


@functools.cache
def _openmp() -> Callable[[Callable[[], None], int], None] | None:
    """Return a function that runs work on torch's OpenMP threads; None if torch's OpenMP library is not GNU's.

    It calls `GOMP_parallel`, to which compilers translate a parallel region.
    """
    libraries = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    if not libraries or not torch.backends.openmp.is_available():
        return None
    library, body = ctypes.CDLL(str(libraries[0])), ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def run(work: Callable[[], None], threads: int) -> None:
        library.GOMP_parallel(body(lambda _: work()), None, ctypes.c_uint(threads), ctypes.c_uint(0))

    return run


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "affekt")


def _mark_forked() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
