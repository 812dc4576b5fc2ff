"""Compare `affekt recognize` with transformers' audio-classification pipeline: speed, memory and cold start.

    python benchmarks/recognize.py    prints a table, and writes benchmarks/results/recognize.json

`affekt recognize` is compared with the usual way to classify a clip: transformers' pipeline with a Whisper-tiny classifier,
which pads every clip to 30 s. Its weights are random, since its speed does not depend on them. Both sides read the same WAV
files. Runs alternate between the sides, and the table has medians. CPU seconds are those of one core, user and system
together.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
import soundfile

SECONDS = (1.0, 2.5, 10.0, 30.0)
SAMPLES = Path(__file__).parents[1] / "samples"

WARM = """
import json, resource, sys, time
{setup}
files = sys.argv[1:]
result = {{}}
for file in files:
    recognize(file)
    runs = []
    for _ in range({runs}):
        start = time.process_time()
        recognize(file)
        runs.append(time.process_time() - start)
    result[file] = sorted(runs)[len(runs) // 2]
print(json.dumps(result))
"""
AFFEKT = "from affekt import Recognizer\nrecognize = Recognizer.load()"
PIPELINE = """
import os, warnings
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.simplefilter("ignore")
import soundfile, torch
from transformers import pipeline
torch.set_num_threads(1)
folder = os.environ["BENCH_CLASSIFIER"]
classify = pipeline("audio-classification", model=folder, feature_extractor=folder, device="cpu")
def recognize(file):
    samples, rate = soundfile.read(file, dtype="float32")
    return classify({"raw": samples, "sampling_rate": rate})
"""
SETUPS = {"affekt": AFFEKT, "transformers": PIPELINE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each side, each in a new process")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [write_noise(root / f"{seconds}.wav", seconds) for seconds in SECONDS]
        environment = {**os.environ, "BENCH_CLASSIFIER": str(save_classifier(root / "classifier"))}
        result = {
            "help": median([run_cold(["-m", "affekt", "--help"], environment) for _ in range(runs)]),
            "cold": measure_cold(files[1], environment, runs),
            "warm": measure_warm(files, environment, runs),
            "peak_mb": {
                name: {
                    str(seconds): peak_memory(name, file, environment)
                    for seconds, file in zip(SECONDS, files, strict=True)
                }
                for name in SETUPS
            },
        }
    show(result)
    print(f"\nwrote {harness.write('recognize', result)}")


def measure_cold(clip: Path, environment: dict[str, str], runs: int) -> dict[str, dict[str, float]]:
    """Return the seconds of a new process that recognizes one clip."""
    commands = {
        "affekt": ["-m", "affekt", "recognize", str(clip)],
        "transformers": ["-c", f"{PIPELINE}\nprint(recognize({str(clip)!r}))"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    run_cold(commands["affekt"], environment)  # the first run reads files from disk
    for _ in range(runs):
        for name, command in commands.items():
            times[name].append(run_cold(command, environment))
    return {name: median(values) for name, values in times.items()}


def measure_warm(files: list[Path], environment: dict[str, str], runs: int) -> dict[str, dict[str, float]]:
    """Return CPU seconds per second of audio in a process that has recognized a clip before: medians over processes."""
    times: dict[str, list[dict[str, float]]] = {name: [] for name in SETUPS}
    for _ in range(runs):
        for name, setup in SETUPS.items():
            script = WARM.format(setup=setup, runs=3)
            times[name].append(json.loads(run(["-c", script, *map(str, files)], environment).stdout))
    return {
        name: {
            str(seconds): statistics.median(times_by_file[str(file)] for times_by_file in processes) / seconds
            for seconds, file in zip(SECONDS, files, strict=True)
        }
        for name, processes in times.items()
    }


def write_noise(path: Path, seconds: float) -> Path:
    samples = np.random.default_rng(0).normal(size=int(seconds * 16_000)).cumsum()
    soundfile.write(path, 0.5 * samples / np.abs(samples).max(), 16_000)
    return path


def save_classifier(folder: Path) -> Path:
    """Save a Whisper-tiny classifier of six emotions with random weights, as transformers does; return the folder."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, vocab_size=51864
    )
    config.num_labels = 6
    WhisperForAudioClassification(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{arguments[0]} failed:\n{result.stderr}")
    return result


def run_cold(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return elapsed and CPU seconds of a new process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run(arguments, environment)
    elapsed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_memory(side: str, file: Path, environment: dict[str, str]) -> float:
    """Return the peak resident memory, in MB, of a process that recognizes one clip."""
    arguments = (
        ["-m", "affekt", "recognize", str(file)]
        if side == "affekt"
        else ["-c", f"{PIPELINE}\nrecognize({str(file)!r})"]
    )
    command = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, *sys.argv[1:]], check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    unit = 1e6 if sys.platform == "darwin" else 1e3  # macOS reports bytes, Linux kilobytes
    return float(run(["-c", command, *arguments], environment).stdout) / unit


def median(runs: list[tuple[float, float]]) -> dict[str, float]:
    elapsed, cpu = zip(*runs, strict=True)
    return {"seconds": statistics.median(elapsed), "cpu_seconds": statistics.median(cpu)}


def show(result: dict[str, Any]) -> None:
    print("{processor}, {cores} cores, Python {python}\n".format(**harness.machine()))
    print(f"affekt --help: {result['help']['seconds']:.2f} s\n")
    rows = [("cold start, clip of 2.5 s, s", {name: entry["seconds"] for name, entry in result["cold"].items()})]
    for seconds in map(str, SECONDS):
        rows.append(
            (f"warm, CPU s per s of audio, clip of {seconds} s", {n: w[seconds] for n, w in result["warm"].items()})
        )
    for seconds in map(str, SECONDS):
        rows.append((f"peak memory, MB, clip of {seconds} s", {n: p[seconds] for n, p in result["peak_mb"].items()}))
    cells = [
        [name, f"{row['affekt']:.4g}", f"{row['transformers']:.4g}", f"{row['transformers'] / row['affekt']:.1f}"]
        for name, row in rows
    ]
    harness.table(["", "affekt", "transformers", "ratio"], cells)


if __name__ == "__main__":
    main()
