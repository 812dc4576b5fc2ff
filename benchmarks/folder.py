"""Compare the recognition of folders by `affekt recognize`, with one job and two, and by a pipeline of transformers.

    python benchmarks/folder.py    prints a table, and writes benchmarks/results/folder.json

One folder has 500 clips of 1 to 5 s, the other twelve recordings of 15 minutes, made from the recordings in samples/, at 16
kHz. The sides alternate. The table has medians of the files, and of the seconds of speech, per second of elapsed time, which
includes the start of the processes. Two jobs can only take half the time of one if two cores are idle. The
audio-classification pipeline recognizes one file after another, with the classifier of recognize.py and one thread. It gets a
fifth of the clips, and no long recordings, of which it would only use the first 30 s.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import numpy as np
import soundfile
from recognize import PIPELINE, SAMPLES, run_cold, save_classifier

from affekt.audio.read import SAMPLE_RATE, load

CLIPS, LONG_RECORDINGS = 500, 12
CLIP_SECONDS = (1.0, 5.0)
LONG_SECONDS = 900.0
PEER_FRACTION = 5
"""The pipeline gets one clip in this many."""
JOBS = (1, 2)
PEER = "transformers"
CLASSIFY = (
    f"{PIPELINE}\nimport pathlib, sys\nfor file in sorted(pathlib.Path(sys.argv[1]).iterdir()): recognize(str(file))"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of each side, each in new processes")
    parser.add_argument("--part", type=float, default=1.0, help="fraction of the files, for a quick check")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, speech = Path(name), join_samples()
        clips, few = round(CLIPS * arguments.part), round(CLIPS * arguments.part / PEER_FRACTION)
        folders = {
            "short clips": write_files(root / "clips", speech, clips, CLIP_SECONDS),
            "short clips, a fifth": write_files(root / "few", speech, few, CLIP_SECONDS),
            "recordings of 15 min": write_files(
                root / "long", speech, round(LONG_RECORDINGS * arguments.part), (LONG_SECONDS, LONG_SECONDS)
            ),
        }
        classifier = save_classifier(root / "classifier")
        results = {what: measure(what, *entry, classifier, arguments.runs) for what, entry in folders.items()}
    show(results)
    print(f"\nwrote {harness.write('folder', {'folders': results})}")


def join_samples() -> np.ndarray[Any, Any]:
    """Return the speech of all samples, one after another."""
    return np.concatenate([load(path) for path in sorted(SAMPLES.glob("*.wav"))])


def write_files(
    folder: Path, speech: np.ndarray[Any, Any], count: int, seconds: tuple[float, float]
) -> tuple[Path, int, float]:
    """Write files of speech, each cut from another position; return the folder, their number and their total seconds."""
    folder.mkdir()
    generator, total = np.random.default_rng(0), 0
    for number in range(count):
        size = int(generator.uniform(*seconds) * SAMPLE_RATE)
        start = int(generator.integers(len(speech)))
        soundfile.write(folder / f"{number:04}.wav", np.resize(np.roll(speech, -start), size), SAMPLE_RATE)
        total += size
    return folder, count, total / SAMPLE_RATE


def measure(what: str, folder: Path, files: int, seconds: float, classifier: Path, runs: int) -> dict[str, Any]:
    """Return the medians of each side for one folder."""
    environment = {**harness.environment(), "BENCH_CLASSIFIER": str(classifier)}
    if what == "short clips, a fifth":
        sides = {PEER: ["-c", CLASSIFY, str(folder)]}
    else:
        command = ["-m", "affekt", "recognize", str(folder), "--json", "--jobs"]
        sides = {f"{jobs} job{'s' * (jobs > 1)}": [*command, str(jobs)] for jobs in JOBS}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(runs):
        names = list(sides)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(run_cold(sides[name], environment))
    return {
        "files": files,
        "seconds_of_speech": round(seconds, 1),
        "sides": {name: rates(files, seconds, runs_of_side) for name, runs_of_side in times.items()},
    }


def rates(files: int, seconds: float, runs: list[tuple[float, float]]) -> dict[str, float]:
    """Return files and seconds of speech per second of elapsed time, and CPU seconds per second of speech."""
    elapsed, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
    return {
        "files_per_second": files / elapsed,
        "speech_seconds_per_second": seconds / elapsed,
        "cpu_seconds_per_second": cpu / seconds,
    }


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    print("{processor}, {cores} cores, Python {python}\n".format(**harness.machine()))
    rows = []
    for what, result in results.items():
        baseline = next(iter(result["sides"].values()))["files_per_second"]
        for name, side in result["sides"].items():
            values = (f"{side[key]:.3g}" for key in side)
            rows.append(
                [
                    what,
                    result["files"],
                    name,
                    *values,
                    f"{side['files_per_second'] / baseline:.2f}" if name != PEER else "",
                ]
            )
    harness.table(
        ["", "files", "", "files/s", "s of speech/s", "CPU s per s of speech", "times as fast as one job"], rows
    )


if __name__ == "__main__":
    main()
