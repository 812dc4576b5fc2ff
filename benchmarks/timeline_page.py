"""Measure the page of a timeline of 10 hours and 10,000 segments: its size, processor time and memory.

    python benchmarks/timeline_page.py            1.15 GB in a temporary folder
    python benchmarks/timeline_page.py --hours 1

The recording is that of `benchmarks/timeline.py`. Its segments are invented: 1,000 per hour, of two speakers, with texts
of 40 characters. The memory is what the process needs in addition while it writes the page.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import table, write
from timeline import write_conversation

from affekt.audio.read import duration
from affekt.inference.row import make_row
from affekt.timeline.plot import save_plot
from affekt.timeline.timeline import Timeline

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
SEGMENTS_PER_HOUR = 1000
TEXT = "This is what one of the speakers said..."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10.0)
    hours = parser.parse_args().hours
    with tempfile.TemporaryDirectory() as folder:
        recording, page = Path(folder, "conversation.wav"), Path(folder, "page.html")
        write_conversation(recording, hours * 3600)
        timeline = invent_timeline(recording, round(hours * SEGMENTS_PER_HOUR))
        before, start = peak_memory(), time.process_time()
        save_plot(timeline, page, recording)
        results = {
            "hours": hours,
            "segments": len(timeline.segments),
            "page_mb": round(page.stat().st_size / 1e6, 2),
            "cpu_seconds": round(time.process_time() - start, 1),
            "memory_mb": round(peak_memory() - before, 1),
        }
    write(f"timeline-page-{hours:g}h", results)
    table(list(results), [list(results.values())])


def invent_timeline(recording: Path, num_segments: int) -> Timeline:
    rng, seconds = np.random.default_rng(0), duration(recording)
    segments = []
    for index in range(num_segments):
        start = index * seconds / num_segments
        probabilities = dict(zip(EMOTIONS, rng.dirichlet(np.full(len(EMOTIONS), 0.3)).tolist(), strict=True))
        segment = make_row(str(recording), "default@00000000", start=start, end=start + 3, probabilities=probabilities)
        segment.update(speaker=str(rng.choice(["Anna", "Bob"])), text=TEXT, speech=3.0, steady_emotion=segment.emotion)
        segments.append(segment)
    return Timeline(str(recording), seconds, "default@00000000", EMOTIONS, "invented segments", tuple(segments))


def peak_memory() -> float:
    """Return the largest memory of the process so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
