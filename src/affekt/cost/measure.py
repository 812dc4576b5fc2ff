"""Latency and memory of a model on this machine's CPU, measured in a fresh process.

Latency is the median over runs with one utterance, after three warm-up runs. Memory is the increase of the peak resident
memory from before the model is built, with torch loaded, until after the last run: weights, activations and memory that the
allocator keeps.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affekt.errors import AffektError

SECONDS, MIN_RUNS, MAX_RUNS = 3.0, 5, 50
"""Runs are timed until they have taken SECONDS in total, but at least MIN_RUNS and at most MAX_RUNS of them."""
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Measurement:
    """A measurement of one model; all None where nothing was measured."""

    latency_ms: float | None
    peak_memory_mb: float | None
    """None also where the system does not report it."""
    threads: int | None


def measure(
    name: str, settings: Mapping[str, Any], emotions: int, frames: Mapping[str, int], threads: int
) -> Measurement:
    """Measure a model in a separate process.

    Args:
        name: The name of the model.
        settings: The settings of the model.
        emotions: Number of emotions.
        frames: Number of frames of each stream.
        threads: Number of threads of the process.

    Raises:
        AffektError: The process failed, for example for lack of memory.
    """
    task = {"name": name, "settings": settings, "emotions": emotions, "frames": frames, "threads": threads}
    result = subprocess.run(
        [sys.executable, "-c", "from affekt.cost.measure import _measure_here; _measure_here()"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["no message; the process may have run out of memory"]
        raise AffektError(f"measuring {name} ended with status {result.returncode}: {last[0]}", code="not_measured")
    return Measurement(**json.loads(result.stdout.splitlines()[-1]), threads=threads)


def _measure_here() -> None:
    import torch

    from affekt.config import decode
    from affekt.cost.sizes import build_zero_batch
    from affekt.models import models

    task = json.loads(sys.stdin.read())
    torch.set_num_threads(task["threads"])
    kind, _ = models.resolve(task["name"])
    torch.ones(8, 8) @ torch.ones(8, 8)  # memory that torch allocates at its first product does not belong to the model
    before = peak_memory(reset=True)
    model = kind(decode(kind.Config, task["settings"], task["name"]), task["emotions"]).eval()
    batch = build_zero_batch(model, task["frames"])
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(3):
            model(batch)
        while len(times) < MIN_RUNS or (len(times) < MAX_RUNS and sum(times) < SECONDS):
            start = time.perf_counter()
            model(batch)
            times.append(time.perf_counter() - start)
    after = peak_memory()
    memory = None if before is None or after is None else after - before
    result = {"latency_ms": 1000 * statistics.median(times), "peak_memory_mb": memory}
    print(json.dumps(result), file=sys.stdout)  # read by `measure` in the calling process


def peak_memory(*, reset: bool = False) -> float | None:
    """Return the peak resident memory of this process in 2**20 bytes; None where the system does not report it.

    Args:
        reset: Forget earlier peaks first, which only Linux can.
    """
    if STATUS.exists():
        if reset:
            # Where this is forbidden, the peak of loading torch remains, and smaller ones are not seen.
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
