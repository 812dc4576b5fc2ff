"""Latency and memory of a model on this machine's processor, in a fresh process, so that nothing else counts.

Latency is the median of single-utterance runs after three that warm up. Memory is how far the peak of the resident set
rises from before the model is built, with torch loaded, until after the last run: weights, activations, what the allocator
keeps.
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

SECONDS, FEWEST, MOST = 3.0, 5, 50  # of timed runs: so long, but not fewer nor more than so many
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Measured:
    latency_ms: float | None
    peak_memory_mb: float | None  # None also where the system does not tell
    threads: int | None


def measure(name: str, settings: Mapping[str, Any], emotions: int, frames: Mapping[str, int], threads: int) -> Measured:
    """In a process of its own. Raises `AffektError` where that did not come to its end, as when memory runs out."""
    task = {"name": name, "settings": settings, "emotions": emotions, "frames": frames, "threads": threads}
    done = subprocess.run(
        [sys.executable, "-c", "from affekt.cost.measure import _measure_here; _measure_here()"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message; was it killed for memory?"]
        raise AffektError(f"measuring {name} ended with status {done.returncode}: {last[0]}", code="not_measured")
    return Measured(**json.loads(done.stdout.splitlines()[-1]), threads=threads)


def _measure_here() -> None:
    import torch

    from affekt.config import decode
    from affekt.cost.sizes import example
    from affekt.models import models

    task = json.loads(sys.stdin.read())
    torch.set_num_threads(task["threads"])
    kind, _ = models.resolve(task["name"])
    torch.ones(8, 8) @ torch.ones(8, 8)  # whatever torch sets up at its first product is not the model's
    before = _peak_resident(anew=True)
    model = kind(decode(kind.Config, task["settings"], task["name"]), task["emotions"]).eval()
    batch = example(model, task["frames"])
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(3):
            model(batch)
        while len(times) < FEWEST or (len(times) < MOST and sum(times) < SECONDS):
            start = time.perf_counter()
            model(batch)
            times.append(time.perf_counter() - start)
    after = _peak_resident()
    memory = None if before is None or after is None else after - before
    print(json.dumps({"latency_ms": 1000 * statistics.median(times), "peak_memory_mb": memory}))


def _peak_resident(*, anew: bool = False) -> float | None:
    """In 2**20 bytes; anew: forget earlier peaks. Linux tells it of the process itself, other systems less exactly."""
    if STATUS.exists():
        if anew:
            # Where that is forbidden, the peak of loading torch is what the model must rise above.
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
