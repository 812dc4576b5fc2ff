"""The limits of this machine: memory bandwidth and the rate of matrix products, which bound the speed of any implementation.

Both are the best of several runs. Bytes are counted by the rule of the STREAM benchmark: each byte that a program reads or
writes counts once. A processor may read a cache line before it overwrites it; neither this file nor the benchmarks count
that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from harness import clock_for

NUM_FLOATS = 2**25  # 128 MiB in each array, more than any cache
MATRIX_SIZES = (512, 1024, 2048)


def bandwidth(threads: int = 1, runs: int = 7) -> dict[str, float]:
    """Return the bytes per second of several elementwise operations.

    The operation "three in, one out" is x + y * z; attention also reads three arrays (query, key and value) and writes one.

    Args:
        threads: The number of threads that torch uses, which the caller has set. It decides which clock is right.
        runs: The number of timed runs of each operation.
    """
    first, second, third, out = (torch.rand(NUM_FLOATS) for _ in range(4))
    size = 4 * NUM_FLOATS
    operations: dict[str, tuple[int, Callable[[], object]]] = {
        "copy": (2 * size, lambda: out.copy_(first)),
        "numpy's copy": (2 * size, lambda: np.copyto(out.numpy(), first.numpy())),
        "two in, one out": (3 * size, lambda: torch.add(first, second, alpha=2, out=out)),
        "three in, one out": (4 * size, lambda: torch.addcmul(first, second, third, out=out)),
    }
    return {name: num_bytes / best(run, threads, runs) for name, (num_bytes, run) in operations.items()}


def product_rate(threads: int = 1, runs: int = 7) -> float:
    """Return floating-point operations per second of the fastest of several matrix products; a multiply-add is two.

    The arguments are those of `bandwidth`.
    """
    matrices = [torch.rand(size, size) for size in MATRIX_SIZES]
    return max(2 * len(x) ** 3 / best(partial(torch.mm, x, x), threads, runs) for x in matrices)


def best(run: Callable[[], object], threads: int, runs: int) -> float:
    """Return the seconds of the fastest run, after one to warm up."""
    clock = clock_for(threads)
    run()
    times = []
    for _ in range(runs):
        start = clock()
        run()
        times.append(clock() - start)
    return min(times)
