"""Work of ours on as many threads as torch uses: on torch's own where they can be had, which are awake between its operations
and would otherwise be in the way of others."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

Share = TypeVar("Share")
_forked = False  # a child process has none of its parent's threads, and OpenMP would wait for them


def side_by_side(run: Callable[[Share], object], shares: Sequence[Share]) -> None:
    """Run all shares, each on a thread of its own, and raise what any of them raises. They should leave the interpreter alone
    while they work, as compiled code can."""
    if len(shares) < 2 or _forked:
        for share in shares:
            run(share)
        return
    waiting, done, faults = list(shares), list[Share](), list[BaseException]()

    def work() -> None:
        """One share; more, where there are fewer threads than shares."""
        try:
            while waiting:
                try:
                    share = waiting.pop()
                except IndexError:  # another thread was sooner
                    return
                run(share)
                done.append(share)
        except BaseException as fault:
            faults.append(fault)

    (_team() or _in_pool)(work, len(shares))
    if faults:
        raise faults[0]
    if len(done) < len(shares):  # a signal's, that came before `work` could take it: callbacks cannot raise
        raise KeyboardInterrupt


def _in_pool(work: Callable[[], None], threads: int) -> None:
    others = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


@functools.cache
def _team() -> Callable[[Callable[[], None], int], None] | None:
    """torch's OpenMP threads, by the function that compilers themselves call; None where torch brings another library."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    if not found or not torch.backends.openmp.is_available():
        return None
    library, body = ctypes.CDLL(str(found[0])), ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def run(work: Callable[[], None], threads: int) -> None:
        library.GOMP_parallel(body(lambda _: work()), None, ctypes.c_uint(threads), ctypes.c_uint(0))

    return run


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "affekt")


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
