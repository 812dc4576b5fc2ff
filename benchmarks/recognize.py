"""How fast, how large and how soon: `affekt recognize` beside transformers' audio-classification pipeline.

    make bench        prints a table, and writes benchmarks/results/recognize.json

The other side is the usual way to classify a clip: transformers' pipeline with a Whisper-tiny classifier (random weights:
its speed does not depend on them), which pads every clip to 30 s. Both sides read the same WAV files. Runs alternate
between the sides; what is printed is the median. CPU seconds are of one core, user and system together.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

SECONDS = (1.0, 2.5, 10.0, 30.0)
COLD_RUNS = 5
RESULTS = Path(__file__).parent / "results" / "recognize.json"

WARM = """
import json, resource, sys, time
{setup}
files = sys.argv[1:]
result = {{}}
for file in files:
    answer(file)
    runs = []
    for _ in range({runs}):
        began = time.process_time()
        answer(file)
        runs.append(time.process_time() - began)
    result[file] = sorted(runs)[len(runs) // 2]
print(json.dumps(result))
"""
AFFEKT = "from affekt import Recognizer\nanswer = Recognizer.load()"
PIPELINE = """
import os, warnings
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.simplefilter("ignore")
import soundfile, torch
from transformers import pipeline
torch.set_num_threads(1)
folder = os.environ["BENCH_CLASSIFIER"]
classify = pipeline("audio-classification", model=folder, feature_extractor=folder, device="cpu")
def answer(file):
    samples, rate = soundfile.read(file, dtype="float32")
    return classify({"raw": samples, "sampling_rate": rate})
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [noise(root / f"{seconds}.wav", seconds) for seconds in SECONDS]
        environment = {**os.environ, "BENCH_CLASSIFIER": str(classifier(root / "classifier"))}
        result = {
            "machine": {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()},
            "help": median([cold(["-m", "affekt", "--help"], environment) for _ in range(COLD_RUNS)]),
            "cold": {},
            "warm": {},
            "peak_mb": {},
        }
        clip = str(files[1])
        sides = {"affekt": AFFEKT, "transformers": PIPELINE}
        starts: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        cold(["-m", "affekt", "recognize", clip], environment)  # the first of all reads from disk
        for _ in range(COLD_RUNS):
            starts["affekt"].append(cold(["-m", "affekt", "recognize", clip], environment))
            starts["transformers"].append(cold(["-c", f"{PIPELINE}\nprint(answer({clip!r}))"], environment))
        for name, setup in sides.items():
            result["cold"][name] = median(starts[name])
            script = WARM.format(setup=setup, runs=9 if name == "affekt" else 3)
            output = run(["-c", script, *map(str, files)], environment)
            warm = json.loads(output.stdout)
            result["warm"][name] = {
                str(seconds): warm[str(file)] / seconds for seconds, file in zip(SECONDS, files, strict=True)
            }
        result["peak_mb"] = {
            name: {str(seconds): peak(name, file, environment) for seconds, file in zip(SECONDS, files, strict=True)}
            for name in sides
        }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(result)


def noise(path: Path, seconds: float) -> Path:
    samples = np.random.default_rng(0).normal(size=int(seconds * 16_000)).cumsum()
    soundfile.write(path, 0.5 * samples / np.abs(samples).max(), 16_000)
    return path


def classifier(folder: Path) -> Path:
    """A Whisper-tiny classifier of six emotions with random weights, as transformers saves it."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification

    config = WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, num_labels=6, vocab_size=51864
    )
    WhisperForAudioClassification(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{arguments[0]} failed:\n{result.stderr}")
    return result


def cold(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(elapsed, CPU) seconds of a new process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run(arguments, environment)
    elapsed, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak(side: str, file: Path, environment: dict[str, str]) -> float:
    """Largest resident memory, in MB, of a process that answers once."""
    arguments = (
        ["-m", "affekt", "recognize", str(file)] if side == "affekt" else ["-c", f"{PIPELINE}\nanswer({str(file)!r})"]
    )
    command = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, *sys.argv[1:]], check=True, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes here
    return float(run(["-c", command, *arguments], environment).stdout) / unit


def median(runs: list[tuple[float, float]]) -> dict[str, float]:
    elapsed, cpu = zip(*runs, strict=True)
    return {"seconds": statistics.median(elapsed), "cpu_seconds": statistics.median(cpu)}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0].partition(":")[2].strip() if names else platform.processor()


def show(result: dict[str, Any]) -> None:
    machine = result["machine"]
    print(f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}\n")
    print(f"affekt --help: {result['help']['seconds']:.2f} s\n")
    print(f"{'':<44}{'affekt':>10}{'transformers':>14}{'ratio':>8}")
    rows = [("cold answer to a clip of 2.5 s, s", {name: entry["seconds"] for name, entry in result["cold"].items()})]
    for seconds in map(str, SECONDS):
        rows.append(
            (f"warm, CPU s per s of sound, clip of {seconds} s", {n: w[seconds] for n, w in result["warm"].items()})
        )
    for seconds in map(str, SECONDS):
        rows.append((f"peak memory, MB, clip of {seconds} s", {n: p[seconds] for n, p in result["peak_mb"].items()}))
    for name, entry in rows:
        one, other = entry["affekt"], entry["transformers"]
        print(f"{name:<44}{one:>10.4g}{other:>14.4g}{other / one:>8.1f}")


if __name__ == "__main__":
    main()
