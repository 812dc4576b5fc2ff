"""Measure the parts of a cold start, and how much time other ways to load the shipped graph would save.

    python benchmarks/cold_start.py    prints tables, and writes benchmarks/results/cold_start.json

The parts of `affekt recognize` on one clip are timed in new processes. Ways to load the graph are timed in one process, in
turn: the shipped graph; the same with fewer of onnxruntime's optimizations; a graph that onnxruntime has optimized and stored
beforehand, as ONNX and in its own format; and a graph of a single operation, for the time that any session takes. Times are
medians of processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from recognize import SAMPLES, run

from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import DEFAULT, Bundle

PARTS = """
import json, sys, time
marks = [("interpreter", time.process_time())]
def mark(name): marks.append((name, time.process_time()))
import numpy; mark("numpy")
import soundfile, soxr, onnxruntime; mark("onnxruntime, soundfile, soxr")
import affekt.cli; mark("command line: typer and rich")
from affekt.bundle.folder import Bundle
from affekt.inference.recognizer import Recognizer; mark("affekt")
bundle = Bundle.open(); bundle.check(); mark("hash of the model's files")
recognizer = Recognizer.load(bundle.folder); mark("loading the graph")
recognizer(sys.argv[1]); mark("the clip")
print(json.dumps({name: time - before for (_, before), (name, time) in zip([("", 0.0), *marks], marks)}))
"""
Level = onnxruntime.GraphOptimizationLevel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    clip = str(sorted(SAMPLES.glob("*.wav"))[0])
    processes = [json.loads(run(["-c", PARTS, clip], harness.environment()).stdout) for _ in range(runs + 1)][1:]
    parts = {name: 1000 * statistics.median(process[name] for process in processes) for name in processes[0]}
    with tempfile.TemporaryDirectory() as folder:
        loads = harness.interleaved(ways_to_load(Bundle.open(DEFAULT).onnx, Path(folder)), runs)
    show(parts, loads)
    print(f"\nwrote {harness.write('cold_start', {'parts_ms': parts, 'loading_ms': loads})}")


def ways_to_load(graph: Path, folder: Path) -> dict[str, Any]:
    """Return functions that load the graph in different ways and run it once on a second of noise."""
    stored = {suffix: folder / f"optimized.{suffix}" for suffix in ("onnx", "ort")}
    for suffix, path in stored.items():
        options = make_options(Level.ORT_ENABLE_ALL)
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", suffix.upper())
        onnxruntime.InferenceSession(graph, options)
    single = folder / "single.onnx"
    make_single_operation(single)
    noise = np.random.default_rng(0).normal(scale=0.1, size=(1, SAMPLE_RATE)).astype(np.float32)
    ways = {
        "as shipped": (graph, Level.ORT_ENABLE_ALL),
        "basic optimizations only": (graph, Level.ORT_ENABLE_BASIC),
        "no optimizations": (graph, Level.ORT_DISABLE_ALL),
        "optimized before, ONNX": (stored["onnx"], Level.ORT_DISABLE_ALL),
        "optimized before, onnxruntime's format": (stored["ort"], Level.ORT_DISABLE_ALL),
        "a single operation": (single, Level.ORT_ENABLE_ALL),
    }
    return {name: partial(load, *way, noise) for name, way in ways.items()}


def load(path: Path, level: Any, samples: np.ndarray) -> None:
    session = onnxruntime.InferenceSession(path, make_options(level), providers=["CPUExecutionProvider"])
    session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: samples})


def make_options(level: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level, options.enable_cpu_mem_arena = 4, False
    options.graph_optimization_level = level
    return options


def make_single_operation(path: Path) -> None:
    """Write a graph of one operation."""
    shape = ["batch", "samples"]
    entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "single", entries[:1], entries[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def show(parts: dict[str, float], loads: dict[str, float]) -> None:
    print("{processor}, {cores} cores, Python {python}\n".format(**harness.machine()))
    harness.table(["cold start", "CPU ms"], [[name, f"{value:.0f}"] for name, value in parts.items()])
    print()
    harness.table(["loading the graph, and one second", "CPU ms"], [[n, f"{value:.0f}"] for n, value in loads.items()])


if __name__ == "__main__":
    main()
