"""Helpers of the benchmarks: alternating runs, a description of the machine, JSON results and Markdown tables.

The implementations that are compared (the "sides") alternate run by run, and each turn begins with a different side, so that
changes in the machine's speed affect all of them equally. For one thread, the clock is `time.process_time`: it adds up the
seconds of all threads of this process and ignores other processes, so that the machine may be in use. For several threads,
and for a GPU, the clock is `time.perf_counter`, which needs an otherwise idle machine.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS", Path(__file__).parent / "results"))


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    runs: int,
    *,
    clock: Callable[[], float] = time.process_time,
    warm: bool = True,
) -> dict[str, float]:
    """Return the median time of each side in milliseconds.

    Args:
        sides: The functions to time, by name.
        runs: The number of timed turns; each turn runs every side once.
        clock: Returns the time in seconds.
        warm: If true, an untimed turn comes first.
    """
    names = list(sides)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1 if warm else 0, runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            sides[name]()
            if turn >= 0:
                times[name].append(1000 * (clock() - start))
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def clock_for(threads: int) -> Callable[[], float]:
    """Return the clock for a number of threads: processor time for one, elapsed time for several."""
    return time.process_time if threads == 1 else time.perf_counter


def machine() -> dict[str, Any]:
    """Describe the machine: processor, cores, Python; torch and its threads if the benchmark has imported torch."""
    torch = sys.modules.get("torch")
    versions = {"torch": torch.__version__, "threads": torch.get_num_threads()} if torch else {}
    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def processor() -> str:
    """Return the processor's name, as far as the system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), platform.processor() or platform.machine())


def environment() -> dict[str, str]:
    """Return the environment of processes that are timed: this one's, with one thread for each numerical library."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def write(name: str, results: Mapping[str, Any]) -> Path:
    """Write the results and the machine to NAME.json in results/, or in the folder BENCHMARK_RESULTS; return the path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n", encoding="utf-8")
    return path


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table."""
    for cells in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
