"""Measure the latency of live speech: the time from a chunk's arrival to its events.

    python benchmarks/stream.py

A conversation of a minute, from the clips in samples/, is pushed in chunks of 32 ms, with a provisional event for each
second. The latency of an event is the duration of the call that returned it; audio that is not yet in a frame adds up to
32 ms.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from affekt.audio.read import SAMPLE_RATE, find_files, load
from affekt.inference.recognizer import Recognizer
from affekt.timeline.stream import Stream

SAMPLES = Path(__file__).parents[1] / "samples"
CHUNK = 512
"""Samples of a chunk, 32 ms."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    clips = [load(file) for file in find_files(SAMPLES)]
    pause = np.zeros(SAMPLE_RATE // 2, np.float32)
    parts = [part for clip in clips for part in (clip, pause)]
    waveform = np.resize(np.concatenate(parts), round(arguments.seconds * SAMPLE_RATE))
    stream = Stream(Recognizer.load())
    stream.add(waveform[: 2 * SAMPLE_RATE])  # the first run of a network takes longer
    latencies: dict[str, list[float]] = {"no event": [], "provisional": [], "segment": []}
    for start in range(2 * SAMPLE_RATE, waveform.size, CHUNK):
        begin = time.perf_counter()
        events = stream.add(waveform[start : start + CHUNK])
        kinds = {event.kind for event in events if event.row is None or event.row.probabilities}
        kind = "segment" if "segment" in kinds else "provisional" if "provisional" in kinds else "no event"
        latencies[kind].append(1000 * (time.perf_counter() - begin))
    print("| chunk with | number | median, ms | 99th percentile, ms | largest, ms |\n| --- | --- | --- | --- | --- |")
    for kind, values in latencies.items():
        median, high = np.percentile(values, (50, 99)) if values else (0.0, 0.0)
        print(f"| {kind} | {len(values)} | {median:.1f} | {high:.1f} | {max(values, default=0.0):.1f} |")


if __name__ == "__main__":
    main()
