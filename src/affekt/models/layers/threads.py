"""Work of ours on as many threads as torch uses: on torch's own where they can be had, which are awake between its operations
and would otherwise be in the way of others."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

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
    faults: list[BaseException] = []

    def one(number: int) -> None:
        try:
            run(shares[number])
        except BaseException as fault:
            faults.append(fault)

    team = _team()
    if team is not None:
        team(one, len(shares))
    else:
        others = [_pool(len(shares) - 1).submit(one, number) for number in range(1, len(shares))]
        one(0)
        for other in others:
            other.result()
    if faults:
        raise faults[0]


@functools.cache
def _team() -> Callable[[Callable[[int], None], int], None] | None:
    """torch's OpenMP threads, by the function that compilers themselves call; None where torch brings another library."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    if not found or not torch.backends.openmp.is_available():
        return None
    library = ctypes.CDLL(str(found[0]))
    body_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def run(one: Callable[[int], None], threads: int) -> None:
        left = list(range(threads))

        def body(_: Any) -> None:
            while left:  # one each; where a busy process is given fewer threads, more
                try:
                    number = left.pop()
                except IndexError:
                    return
                one(number)

        library.GOMP_parallel(body_type(body), None, ctypes.c_uint(threads), ctypes.c_uint(0))

    return run


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "affekt")


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
