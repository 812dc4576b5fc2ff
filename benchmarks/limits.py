"""What this machine can do at most: bytes moved and products computed in a second. Nothing can be faster than these allow.

Both are the best of several runs. Bytes are counted as a program sees them (STREAM's rule): what it reads and what it
writes, each once. That a processor may read a line of memory before it overwrites it is not counted, here or in what is
held against it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from sides import clock_for

NUMBERS = 2**25  # of 4 bytes in each array: 128 MiB, more than any cache
SQUARES = (512, 1024, 2048)


def bandwidth(threads: int = 1, runs: int = 7) -> dict[str, float]:
    """Bytes per second: of a copy, of the sum of two arrays, and of three that make one, as attention reads and writes."""
    first, second, third, out = (torch.rand(NUMBERS) for _ in range(4))
    size = 4 * NUMBERS
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "copy": (2 * size, lambda: out.copy_(first)),
        "numpy's copy": (2 * size, lambda: np.copyto(out.numpy(), first.numpy())),
        "two in, one out": (3 * size, lambda: torch.add(first, second, alpha=2, out=out)),
        "three in, one out": (4 * size, lambda: torch.addcmul(first, second, third, out=out)),
    }
    return {name: many / best(run, threads, runs) for name, (many, run) in ways.items()}


def product_rate(threads: int = 1, runs: int = 7) -> float:
    """Floating-point operations per second of the largest of several products of matrices, a multiply-add being two."""
    matrices = [torch.rand(size, size) for size in SQUARES]
    return max(2 * len(x) ** 3 / best(partial(torch.mm, x, x), threads, runs) for x in matrices)


def best(run: Callable[[], object], threads: int, runs: int) -> float:
    """Seconds of the fastest run."""
    clock = clock_for(threads)
    run()
    taken = []
    for _ in range(runs):
        began = clock()
        run()
        taken.append(clock() - began)
    return min(taken)
