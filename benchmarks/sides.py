"""What all benchmarks share: sides that take turns, the machine they ran on, the JSON and the table they end in.

Sides alternate run by run, and the one that begins changes with every turn, so that a machine that slows down or speeds up
meanwhile does so for all of them. `time.process_time` adds up the seconds of all threads of this process and counts nothing
of other processes: right for one thread, on a machine that others use too. For several threads, and for a GPU, the clock is
`time.perf_counter`, on a machine that is otherwise quiet.
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
    """Medians over so many runs of every side, in milliseconds.

    One turn more goes before them and warms up, unless `warm` says that it need not.
    """
    names = list(sides)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1 if warm else 0, runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = clock()
            sides[name]()
            if turn >= 0:
                times[name].append(1000 * (clock() - began))
    return {name: round(statistics.median(taken), 4) for name, taken in times.items()}


def clock_for(threads: int) -> Callable[[], float]:
    """The clock that tells what so many threads take: processor time of one, elapsed time of several."""
    return time.process_time if threads == 1 else time.perf_counter


def machine() -> dict[str, Any]:
    """Processor, cores, Python; torch and its threads where the benchmark has imported torch."""
    torch = sys.modules.get("torch")
    known = {"torch": torch.__version__, "threads": torch.get_num_threads()} if torch else {}
    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version(), **known}


def processor() -> str:
    """Its name, as far as the system tells it."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(named), platform.processor() or platform.machine())


def write(name: str, results: Mapping[str, Any]) -> Path:
    """NAME.json in results/, or in the folder that BENCHMARK_RESULTS names; with the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1) + "\n", encoding="utf-8")
    return path


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A Markdown table, printed."""
    for cells in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
