"""Compare fractal attention (`affekt.models.layers.fractal_attention`) with full attention by torch's fused kernel.

    python benchmarks/attention.py [--runs 15] [--threads 1 2] [--only sizes lengths flatness memory] [--compile]

Both take query, key and value of 1024 features and 16 heads in 32 bits and return (batch, frames, features). Splitting the
features into heads and joining them is included, the projections before and after are not. "plain" is the same fractal
attention in torch's operations; "compiled" (--compile) is another formulation with `torch.compile`, which needs a C++
compiler. The results are checked to agree before anything is timed.

The tables have milliseconds for forward alone, and for forward and backward together ("both"): at three sizes, at the
lengths of short utterances, and for 65,536 frames divided into fewer and longer utterances ("flatness"), where the time per
frame should stay the same. The floor is the time that this machine needs, by `limits.py`, to read query, key and value and to
write the output once; with backward, also to read them and the gradient again and to write three gradients. Memory is the
rise of the peak memory of a separate process. Writes results/attention.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import harness
import torch
import torch.nn.functional as F
from limits import bandwidth
from torch import Tensor

from affekt.cost.measure import peak_memory
from affekt.models.layers import fractal_attention
from affekt.models.layers.fractal.torch_ops import fractal_scales

DIM, HEADS = 1024, 16
SIZES = ((8, 326), (4, 1024), (2, 4096))
"""(utterances, frames) of each batch."""
LENGTHS = tuple((batch, frames) for batch in (1, 8) for frames in (81, 100, 150, 224, 326))
"""(utterances, frames) of batches of short utterances."""
FLAT = ((8, 326), (64, 1024), (16, 4096), (4, 16384), (1, 65536))  # the first is for comparison only
MEMORY = (1024, 4096, 16384, 65536)
"""Numbers of frames for which memory is measured."""
LONGEST_FULL = 16384  # frames; with more, full attention takes minutes, and its memory grows as before
TABLES = ("sizes", "lengths", "flatness", "memory")
TENSORS = {"forward": 4, "both": 11}
"""Number of tensors that a step reads or writes: forward q, k, v and the output; backward adds q, k, v, the output's gradient
and three gradients."""
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def fractal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return fractal attention as the models compute it."""
    return fractal_attention(query, key, value, heads=HEADS)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the same fractal attention in torch's operations, summed over its scales."""
    scales = fractal_scales(query, key, value, heads=HEADS)
    return sum(scales[1:], start=scales[0])


def products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute fractal attention without matrix products, for torch.compile, which fuses it into loops.

    Compiled on a CPU by torch 2.13, `plain`, whose matrices have three frames, returns wrong numbers. Every scale must have
    at least one frame.
    """
    frames, total = query.shape[1], torch.zeros(())
    streams = [query, key, value]
    for _ in range(4):
        count = streams[0].shape[1]
        query, key, value = (
            F.pad(x, (0, 0, 0, -count % 3)).unflatten(1, (-1, 3)).unflatten(3, (HEADS, -1)) for x in streams
        )
        scores = (query.unsqueeze(3) * key.unsqueeze(2)).sum(dim=5) / (DIM // HEADS) ** 0.5
        attended = (scores.softmax(dim=3).unsqueeze(5) * value.unsqueeze(2)).sum(dim=3)
        total = total + F.gelu(attended.flatten(3).flatten(1, 2))[:, torch.arange(frames) * count // frames]
        streams = [x[:, : count // 3 * 3].unflatten(1, (-1, 3)).mean(dim=2) for x in streams]
    return total


def full(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return full attention by torch's fused kernel."""
    query, key, value = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).contiguous()


IMPLEMENTATIONS: dict[str, Attention] = {"fractal": fractal, "full": full, "plain": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--compile", action="store_true", help="time torch.compile too")
    parser.add_argument(
        "--rise", nargs=3, metavar=("NAME", "STEP", "FRAMES"), help="print the rise of the peak memory, in bytes"
    )
    options = parser.parse_args()
    if options.rise:
        name, step, frames = options.rise
        print(memory_rise(name, step, int(frames)))
        return
    implementations = (
        {**IMPLEMENTATIONS, "compiled": torch.compile(products, dynamic=False)}
        if options.compile and has_compiler()
        else IMPLEMENTATIONS
    )
    check(implementations)
    result = earlier_results() | {"dim": DIM, "heads": HEADS}
    for threads in options.threads:
        torch.set_num_threads(threads)
        limits = bandwidth(threads)
        tables = result["by_threads"].setdefault(str(threads), {})
        tables["bandwidth"] = limits
        print(f"\n{threads} thread(s), {max(limits.values()) / 1e9:.1f} GB/s ({max(limits, key=limits.__getitem__)})")
        for name, sizes in (("sizes", SIZES), ("lengths", LENGTHS), ("flatness", FLAT)):
            if name in options.only:
                measure = measure_flatness if name == "flatness" else measure_sizes
                rows = measure(implementations, sizes, options.runs, threads, max(limits.values()))
                tables[name] = [{**row, "runs": options.runs} for row in rows]
                show(name, tables[name])
    if "memory" in options.only:
        result["memory"] = list(measure_memory())
        show_memory(result["memory"])
    print(f"\nwrote {harness.write('attention', result)}")


def earlier_results() -> dict[str, Any]:
    """Return the content of the results file, so that tables that are not measured now are kept; without tables if it was
    measured on another processor."""
    path = harness.RESULTS / "attention.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"by_threads": {}} if results.pop("machine", {}).get("processor") != harness.processor() else results


def has_compiler() -> bool:
    """Return whether a C++ compiler is installed, and print a note if not."""
    available = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    if not available:
        print("torch.compile is skipped: no C++ compiler was found")
    return available


def check(implementations: dict[str, Attention]) -> None:
    """Assert that all implementations of fractal attention return the same outputs and gradients."""
    inputs, gradient = random_inputs(2, 163)
    for name, attend in implementations.items():
        if name not in ("full", "plain"):
            for run in (forward, both):
                torch.testing.assert_close(
                    run(attend, inputs, gradient), run(plain, inputs, gradient), atol=1e-5, rtol=1e-5
                )


def random_inputs(batch: int, frames: int) -> tuple[list[Tensor], Tensor]:
    """Return query, key and value, and the gradient of the output."""
    torch.manual_seed(0)
    return [torch.randn(batch, frames, DIM, requires_grad=True) for _ in range(3)], torch.randn(batch, frames, DIM)


def forward(attend: Attention, inputs: list[Tensor], _: Tensor) -> Tensor:
    with torch.no_grad():
        return attend(*inputs)


def both(attend: Attention, inputs: list[Tensor], gradient: Tensor) -> tuple[Tensor, ...]:
    """Run forward and backward, and return the gradients of query, key and value."""
    return torch.autograd.grad(attend(*inputs), inputs, gradient)


STEPS = {"forward": forward, "both": both}


def measure_sizes(
    implementations: dict[str, Attention], sizes: tuple[tuple[int, int], ...], runs: int, threads: int, rate: float
) -> Iterator[dict[str, Any]]:
    """Time all implementations at each size; `rate` is the memory bandwidth in bytes per second."""
    for batch, frames in sizes:
        inputs, gradient = random_inputs(batch, frames)
        torch.compiler.reset()  # after several sizes torch stops compiling without an error
        for step, run in STEPS.items():
            turns = {name: partial(run, attend, inputs, gradient) for name, attend in implementations.items()}
            times = harness.interleaved(turns, runs, clock=harness.clock_for(threads))
            floor = 1000 * TENSORS[step] * gradient.nbytes / rate
            yield {"batch": batch, "frames": frames, "step": step, "ms": times, "floor_ms": round(floor, 4)}


def measure_flatness(
    _: dict[str, Attention], sizes: tuple[tuple[int, int], ...], runs: int, threads: int, rate: float
) -> Iterator[dict[str, Any]]:
    """Time fractal attention alone, alternating between the sizes: the first to use new memory of a process is slower."""
    inputs = {size: random_inputs(*size) for size in sizes}
    for step, run in STEPS.items():
        turns = {f"{batch} x {frames}": partial(run, fractal, *inputs[batch, frames]) for batch, frames in sizes}
        times = harness.interleaved(turns, runs, clock=harness.clock_for(threads))
        for (batch, frames), (__, gradient) in inputs.items():
            floor = round(1000 * TENSORS[step] * gradient.nbytes / rate, 4)
            ms = {"fractal": times[f"{batch} x {frames}"]}
            yield {"batch": batch, "frames": frames, "step": step, "ms": ms, "floor_ms": floor}


def show(table_name: str, results: list[dict[str, Any]]) -> None:
    """Print a table of times, in milliseconds; for "flatness" also the ratio of the extremes."""
    others = [name for name in results[0]["ms"] if name != "fractal"]
    print(f"\n{table_name}\n")
    columns = ["batch x frames", "step", "fractal ms", "us per frame", "floor ms", "floor / fractal"]
    rows = []
    for result in results:
        ours = result["ms"]["fractal"]
        cells = [f"{result['batch']} x {result['frames']}", result["step"], f"{ours:.2f}"]
        cells += [f"{1000 * ours / result['batch'] / result['frames']:.2f}", f"{result['floor_ms']:.2f}"]
        cells += [f"{result['floor_ms'] / ours:.0%}"]
        for name in others:
            cells += [f"{result['ms'][name]:.2f}", f"{result['ms'][name] / ours:.2f}"]
        rows.append(cells)
    harness.table([*columns, *(header for name in others for header in (f"{name} ms", "ratio"))], rows)
    if table_name == "flatness":
        for step in STEPS:
            times = [
                result["ms"]["fractal"]
                for result in results
                if result["step"] == step and (result["batch"], result["frames"]) in FLAT[1:]
            ]
            print(
                f"\n{step}: the slowest 65,536 frames take {max(times) / min(times):.2f} times as long as the fastest"
            )


def measure_memory() -> Iterator[dict[str, Any]]:
    """Yield the rise of the peak memory by number of frames, step and implementation, in bytes."""
    for frames in MEMORY:
        for step in STEPS:
            for name in ("fractal", "full"):
                if name == "fractal" or frames <= LONGEST_FULL:
                    command = [sys.executable, str(Path(__file__)), "--rise", name, step, str(frames)]
                    process = subprocess.run(command, check=True, capture_output=True, text=True)
                    memory = {"rise": json.loads(process.stdout), "given": 4 * 4 * DIM * frames}
                    yield {"way": name, "step": step, "frames": frames, **memory}


def memory_rise(name: str, step: str, frames: int) -> int:
    """Return the rise of this process's peak memory in bytes, with one thread and without the inputs."""
    torch.set_num_threads(1)
    small, large = random_inputs(1, 81), random_inputs(1, frames)
    STEPS[step](IMPLEMENTATIONS[name], *small)  # so that one-time allocations are not counted
    before = peak_memory(reset=True)
    STEPS[step](IMPLEMENTATIONS[name], *large)
    after = peak_memory()
    if before is None or after is None:
        sys.exit("this system does not report the peak memory of a process: use --only without memory")
    return int((after - before) * 2**20)


def show_memory(results: list[dict[str, Any]]) -> None:
    """Print the table of peak memory."""
    print("\nmemory: rise of the peak for one utterance, in MiB and relative to the size of q, k, v and output\n")
    rows = [
        [row["frames"], row["step"], row["way"], f"{row['rise'] / 2**20:.0f}", f"{row['rise'] / row['given']:.2f}"]
        for row in results
    ]
    harness.table(["frames", "step", "implementation", "MiB", "relative"], rows)


if __name__ == "__main__":
    main()
