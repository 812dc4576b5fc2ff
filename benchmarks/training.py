"""Compare the training throughput, in utterances per second, with that of an earlier commit.

    make throughput
    git archive COMMIT | tar -x -C FOLDER
    python benchmarks/training.py --before FOLDER COMMIT [--runs 9] [--threads 1] [--cases mstr-small ...]

A step is `Supervised.step`, including making its batch from stored 16-bit features. Features and labels are random. Cases
"...-paper" have the papers' sizes, and batches of 32 utterances of 150 frames with 1024 features (ks_transformer: 8 of 460
frames). Cases "...-small" are the presets, on utterances of the same length. "shipped" is the network and strategy of the
default recipe, on utterances as long as EmoDB's. Each side is a process that runs this file with the `affekt` of its commit,
and runs a turn of steps on request, so that the sides alternate. Times are medians: of processor time for one thread, of
elapsed time for more. Writes results/training.json.

    python benchmarks/training.py --cases small --name small-presets    as in `make bench`

Without an earlier commit, only this one is timed. `--cases small` are the small presets of the five papers' models, with 150
frames of 1024 speech features (ks_transformer: 512), 5 to 20 words of 1024 features, a speaker vector of 192 numbers and a
spectrogram of 300 frames.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import clock_for, table, write

ROOT = Path(__file__).parents[1]
EMOTIONS, BATCH = 6, 32


@dataclass(frozen=True)
class Case:
    """A model and the data to train it on."""

    model: str
    """Name, with the preset."""
    utterances: int
    """Number of utterances in one turn."""
    dims: dict[str, int]
    """Number of features by stream."""
    frames: int | None
    """Frames of speech, 50 per second; None for utterances as long as EmoDB's."""
    shipped: bool = False
    """If true, the model has the settings of the default recipe."""
    precision: str = "float32"


MSTR = Case("mstr", BATCH, {"speech": 1024}, 150)
SMALL = Case("mstr-small", 4 * BATCH, {"speech": 1024}, 150)
BOTH = {"speech": 1024, "text": 1024}
CASES = {
    "mstr-paper": MSTR,
    "vanilla-paper": replace(MSTR, model="vanilla"),
    "mstr-paper-bfloat16": replace(MSTR, precision="bfloat16"),
    "vanilla-paper-bfloat16": replace(MSTR, model="vanilla", precision="bfloat16"),
    "mstr-small": SMALL,
    "vanilla-small": replace(SMALL, model="vanilla-small"),
    "ks_transformer-small": replace(SMALL, model="ks_transformer-small", dims={"speech": 512, "text": 1024}),
    "tdfnet-small": replace(SMALL, model="tdfnet-small", dims={**BOTH, "speaker": 192}),
    "mcsan-small": replace(SMALL, model="mcsan-small", dims=BOTH),
    "emotionnas-fusion-small": Case("emotionnas-fusion-small", BATCH, {"speech": 1024, "spectrogram": 80}, 150),
    "ks_transformer-paper": Case("ks_transformer-paper", 8, {"speech": 512, "text": 1024}, 460),
    "shipped": Case("mstr", 8 * BATCH, {"speech": 1152}, None, shipped=True),
}
SMALL_PRESETS = ["mstr-small", "tdfnet-small", "mcsan-small", "ks_transformer-small", "emotionnas-fusion-small"]
COMPARED = [name for name in CASES if name not in SMALL_PRESETS[1:3] + SMALL_PRESETS[4:]]
"""The cases that are compared with an earlier commit."""
FRAME_RATES = {"speech": 50.0, "spectrogram": 100.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--before",
        nargs=2,
        metavar=("FOLDER", "COMMIT"),
        help="the source of an earlier commit, to compare with",
    )
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cases", nargs="+", choices=["small", *CASES], default=COMPARED)
    parser.add_argument("--name", default="training", help="the name of the JSON file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.serve:
        serve()
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    roots = {"now": ROOT} | ({"before": Path(arguments.before[0]).resolve()} if arguments.before else {})
    results = {}
    for name in SMALL_PRESETS if arguments.cases == ["small"] else arguments.cases:
        with start_sides(roots, arguments.threads) as sides:
            results[name] = throughput(name, sides, arguments.runs)
    table(["case", *roots, *(["ratio"] if arguments.before else [])], [row(name, results[name]) for name in results])
    before = arguments.before[1] if arguments.before else None
    clock = clock_for(arguments.threads).__name__
    print(write(arguments.name, {"clock": clock, "before": before, "utterances_per_second": results}))


@contextmanager
def start_sides(roots: dict[str, Path], threads: int) -> Iterator[dict[str, subprocess.Popen[str]]]:
    command = [sys.executable, __file__, "--serve", "--threads", str(threads)]
    sides = {
        side: subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": str(threads)},
        )
        for side, root in roots.items()
    }
    for side, process in sides.items():
        loaded = Path(read_line(process))
        assert loaded.is_relative_to(roots[side]), f"{side}: imported {loaded}, not the affekt in {roots[side]}"
    yield sides
    for process in sides.values():
        process.communicate()


def throughput(name: str, sides: dict[str, subprocess.Popen[str]], runs: int) -> dict[str, float]:
    """Return utterances per second by side. One turn warms up; each turn begins with another side."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    order = list(sides)
    for turn in range(runs + 1):
        for side in order[turn % len(order) :] + order[: turn % len(order)]:
            process = sides[side]
            assert process.stdin is not None
            process.stdin.write(name + "\n")
            process.stdin.flush()
            seconds = float(read_line(process))
            if turn:
                times[side].append(seconds)
    return {side: round(CASES[name].utterances / statistics.median(seconds), 2) for side, seconds in times.items()}


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the process ended; see its output above"
    return line.strip()


def row(name: str, speeds: dict[str, float]) -> list[str]:
    cells = [f"{speed:.1f} utterances/s" for speed in speeds.values()]
    return [name, *cells, *([f"{speeds['now'] / speeds['before']:.2f}"] if "before" in speeds else [])]


def serve() -> None:
    """Run one side: for each line, the name of a case, run a turn and print its seconds."""
    import affekt

    with suppress(ImportError):  # earlier commits have no such module
        from affekt.training.memory import keep_freed_memory

        keep_freed_memory()
    clock = clock_for(torch.get_num_threads())
    print(affekt.__file__, flush=True)
    for line in sys.stdin:
        strategy, dataset = build(line.strip())
        start = clock()
        turn(strategy, dataset)
        print(clock() - start, flush=True)


def turn(strategy: Any, dataset: Any) -> None:
    from affekt.training.dataset import training_batches

    for indices in training_batches(dataset.lengths(), BATCH, np.random.default_rng(0)):
        strategy.step(dataset.batch(indices), 0.5)


@cache
def build(name: str) -> tuple[Any, Any]:
    from affekt.config import decode
    from affekt.models import models
    from affekt.training.supervised import Supervised, SupervisedConfig

    case, dataset = CASES[name], make_dataset(CASES[name])
    model, preset = models.resolve(case.model)
    recipe = default_recipe() if case.shipped else {"model": {}, "strategy": {"precision": case.precision}}
    torch.manual_seed(0)
    network = model.build(decode(model.Config, {**preset, **recipe["model"]}, "model"), dataset.specs, EMOTIONS)
    if getattr(network.config, "input_norm", "") == "standard":
        network.set_statistics(dataset.statistics())
    return Supervised(network, SupervisedConfig(**recipe["strategy"])), dataset


def default_recipe() -> dict[str, dict[str, Any]]:
    import tomllib

    import affekt

    recipe = tomllib.loads((Path(affekt.__file__).parent / "recipes" / "default.toml").read_text(encoding="utf-8"))
    settings = {name: value for name, value in recipe["model"].items() if name != "name"}
    settings["hidden"] = tuple(settings["hidden"])
    return {"model": settings, "strategy": recipe["training"]["strategy"]}


def make_dataset(case: Case) -> Any:
    """Return utterances of random features. EmoDB's take 1.2 to 9 s, half of them less than 2.6 s."""
    from affekt.models.base import FeatureSpec
    from affekt.training.dataset import Dataset

    generator = np.random.default_rng(0)
    seconds = np.clip(generator.lognormal(np.log(2.6), 0.36, case.utterances), 1.2, 9.0)
    lengths = {"speech": (50 * seconds).astype(int) if case.frames is None else [case.frames] * case.utterances}
    lengths["text"] = generator.integers(5, 21, case.utterances)
    lengths["spectrogram"] = [2 * frames for frames in lengths["speech"]]
    features = {
        name: [generator.normal(size=(frames, dim)).astype(np.float16) for frames in lengths[name]]
        if name in lengths
        else [generator.normal(size=dim).astype(np.float16) for _ in range(case.utterances)]
        for name, dim in case.dims.items()
    }
    specs = {name: FeatureSpec(dim, FRAME_RATES.get(name), has_time=name in lengths) for name, dim in case.dims.items()}
    ids = [f"made/{index}" for index in range(case.utterances)]
    return Dataset(ids, np.arange(case.utterances) % EMOTIONS, features, specs)


if __name__ == "__main__":
    main()
