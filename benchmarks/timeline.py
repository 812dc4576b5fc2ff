"""Measure the processor time and the memory of `affekt recognize --timeline` on a long synthetic conversation.

    python benchmarks/timeline.py               one hour
    python benchmarks/timeline.py --hours 10    1.15 GB in a temporary folder

The conversation alternates between the five clips in samples/, with pauses, overlapping turns and soft noise, as WAV
of 16 bits at 16 kHz. The command runs in a process of its own; its processor time counts everything, from the start
of Python to the last row.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
from harness import environment, table, write
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform, find_files, load
from affekt.inference.row import Row

SAMPLES = Path(__file__).parents[1] / "samples"
PAUSES = (-0.3, 0.2, 0.5, 0.8, 1.5, 3.0)
"""Seconds between two turns, drawn at random; negative where turns overlap."""
NOISE = 1e-3
"""Standard deviation of the noise."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3, help="number of runs, of which the fastest counts")
    parser.add_argument("--pauses", type=float, default=1.0, help="factor by which pauses are longer")
    parser.add_argument(
        "--options", nargs="*", default=[], help="further options of affekt recognize, such as window=5"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, rows = Path(folder, "conversation.wav"), Path(folder, "rows.jsonl")
        write_conversation(path, arguments.hours * 3600, arguments.pauses)
        options = [f"--{option}" for option in arguments.options]
        runs = []
        for _ in range(arguments.runs):  # other processes on the machine can only make a run slower
            rows.unlink(missing_ok=True)
            runs.append(run(["recognize", str(path), "--timeline", "--output", str(rows), *options]))
        cpu, peak = min(runs)
        print_result(path, rows, cpu, peak, vars(arguments))


def write_conversation(path: Path, seconds: float, factor: float = 1.0) -> None:
    """Write a conversation of at least this length, piece by piece; pauses are longer by a factor."""
    rng, clips = np.random.default_rng(0), [load(file) for file in find_files(SAMPLES)]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        while file.getnframes() < seconds * SAMPLE_RATE:
            file.writeframes(to_integers(make_exchange(clips, factor, rng)).tobytes())


def make_exchange(clips: list[Waveform], factor: float, rng: np.random.Generator) -> Waveform:
    """Return some turns in random order, about half a minute."""
    turns = [clips[index] for _ in range(2) for index in rng.permutation(len(clips))]
    pauses = factor * rng.choice(PAUSES, len(turns))
    length = sum(turn.size for turn in turns) + round(float(pauses.sum()) * SAMPLE_RATE) + SAMPLE_RATE
    exchange, position = (NOISE * rng.standard_normal(length)).astype(np.float32), 0
    for turn, pause in zip(turns, pauses, strict=True):
        exchange[position : position + turn.size] += turn
        position += turn.size + round(float(pause) * SAMPLE_RATE)
    return exchange


def to_integers(waveform: Waveform) -> NDArray[np.int16]:
    return (np.clip(waveform, -1, 1) * 32767).astype(np.int16)


def run(arguments: list[str]) -> tuple[float, float]:
    """Run affekt, and return its processor time in seconds and its peak of memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "affekt", *arguments]
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, after.ru_maxrss / 1024


def print_result(path: Path, output: Path, cpu: float, peak: float, settings: dict[str, Any]) -> None:
    rows = [Row(json.loads(line)) for line in output.read_text(encoding="utf-8").splitlines()]
    with wave.open(str(path)) as file:
        duration = file.getnframes() / SAMPLE_RATE
    speech, recognized = sum(row["speech"] for row in rows), sum(row.duration for row in rows if row.probabilities)
    results = {
        **settings,
        "seconds": round(duration, 1),
        "segments": len(rows),
        "speech": round(speech / duration, 3),
        "recognized": round(recognized / duration, 3),
        "cpu_per_second": round(cpu / duration, 5),
        "times_real_time": round(duration / cpu, 1),
        "peak_mb": round(peak),
    }
    write(f"timeline-{settings['hours']:g}h-{100 * results['speech']:.0f}", results)
    table(list(results), [list(results.values())])


if __name__ == "__main__":
    main()
