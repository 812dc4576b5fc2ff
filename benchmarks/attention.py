"""Fractal attention beside full attention: `affekt.models.layers.fractal_attention` and torch's fused kernel.

    python benchmarks/attention.py [--runs 15] [--threads 1 2] [--only sizes lengths flatness memory] [--compile]

Both are given query, key and value of 1024 features and 16 heads in 32 bits, and give (batch, frames, features); cutting
the features into heads and joining them again is included, the projections before and after are not. Plain is the same
fractal attention in torch's own operations; compiled, on demand, is another formulation by `torch.compile`, which needs a
compiler. All are checked to agree before anything is timed.

Printed are, in milliseconds, forward, and forward and backward together: at three sizes, at the lengths of short
utterances, and over 65,536 frames cut into ever fewer and longer utterances, where the cost of a frame should stay the same.
The floor is the time in which this machine, by `limits.py`, reads query, key and value once and writes the output once;
backward it reads these and the gradient, and writes three gradients. Memory is how far the peak of a process of its own
rises. Writes results/attention.json.
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

import sides
import torch
import torch.nn.functional as F
from limits import bandwidth
from torch import Tensor

from affekt.cost.measure import peak_memory
from affekt.models.layers import fractal_attention
from affekt.models.layers.fractal.torch_ops import fractal_scales

DIM, HEADS = 1024, 16
SIZES = ((8, 326), (4, 1024), (2, 4096))
LENGTHS = tuple((batch, frames) for batch in (1, 8) for frames in (81, 100, 150, 224, 326))
FLAT = ((8, 326), (64, 1024), (16, 4096), (4, 16384), (1, 65536))  # the first only to compare with
MEMORY = (1024, 4096, 16384, 65536)
LONGEST_FULL = 16384  # frames: beyond, full attention takes minutes, and its memory is known by then
PARTS = ("sizes", "lengths", "flatness", "memory")
TENSORS = {"forward": 4, "both": 11}  # read or written: q, k, v, output; then q, k, v, its gradient, their gradients
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def fractal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return fractal_attention(query, key, value, heads=HEADS)


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    levels = fractal_scales(query, key, value, heads=HEADS)
    return sum(levels[1:], start=levels[0])


def products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Fractal attention without products of matrices, for torch.compile, which makes loops of it. (Of `plain`, whose
    matrices are of three frames, torch 2.13's makes wrong numbers on a processor.) Every scale must have a frame."""
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
    query, key, value = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).contiguous()


WAYS: dict[str, Attention] = {"fractal": fractal, "full": full, "plain": plain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--compile", action="store_true", help="what torch.compile makes of it too")
    parser.add_argument("--rise", nargs=3, metavar=("WAY", "STEP", "FRAMES"), help="print a rise of memory, in bytes")
    options = parser.parse_args()
    if options.rise:
        way, step, frames = options.rise
        print(rise(way, step, int(frames)))
        return
    ways = {**WAYS, "compiled": torch.compile(products, dynamic=False)} if options.compile and compiler() else WAYS
    check(ways)
    result = kept() | {"dim": DIM, "heads": HEADS}
    for threads in options.threads:
        torch.set_num_threads(threads)
        limits = bandwidth(threads)
        found = result["by_threads"].setdefault(str(threads), {})
        found["bandwidth"] = limits
        print(f"\n{threads} thread(s), {max(limits.values()) / 1e9:.1f} GB/s ({max(limits, key=limits.__getitem__)})")
        for name, part in (("sizes", SIZES), ("lengths", LENGTHS), ("flatness", FLAT)):
            if name in options.only:
                timed = level if name == "flatness" else measured
                rows = timed(ways, part, options.runs, threads, max(limits.values()))
                found[name] = [{**row, "runs": options.runs} for row in rows]
                show(name, found[name])
    if "memory" in options.only:
        result["memory"] = list(memory())
        show_memory(result["memory"])
    print(f"\nwrote {sides.write('attention', result)}")


def kept() -> dict[str, Any]:
    """The results so far: of parts that are left out by --only, or threads that are not asked for, they stay."""
    path = sides.RESULTS / "attention.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"by_threads": {}} if held.pop("machine", {}).get("processor") != sides.processor() else held


def compiler() -> bool:
    found = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    if not found:
        print("torch.compile is left out: it needs a C++ compiler, and none is here")
    return found


def check(ways: dict[str, Attention]) -> None:
    """All that compute fractal attention give the same, forward and backward."""
    given, gradient = random_inputs(2, 163)
    for name, way in ways.items():
        if name not in ("full", "plain"):
            for run in (forward, both):
                torch.testing.assert_close(run(way, given, gradient), run(plain, given, gradient), atol=1e-5, rtol=1e-5)


def random_inputs(batch: int, frames: int) -> tuple[list[Tensor], Tensor]:
    """Query, key and value, and the gradient of what comes out."""
    torch.manual_seed(0)
    return [torch.randn(batch, frames, DIM, requires_grad=True) for _ in range(3)], torch.randn(batch, frames, DIM)


def forward(way: Attention, given: list[Tensor], _: Tensor) -> Tensor:
    with torch.no_grad():
        return way(*given)


def both(way: Attention, given: list[Tensor], gradient: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(way(*given), given, gradient)


STEPS = {"forward": forward, "both": both}


def measured(
    ways: dict[str, Attention], sizes: tuple[tuple[int, int], ...], runs: int, threads: int, rate: float
) -> Iterator[dict[str, Any]]:
    for batch, frames in sizes:
        given, gradient = random_inputs(batch, frames)
        torch.compiler.reset()  # beyond some sizes torch would no longer compile, and would not say so
        for step, run in STEPS.items():
            turns = {name: partial(run, way, given, gradient) for name, way in ways.items()}
            times = sides.interleaved(turns, runs, clock=sides.clock_for(threads))
            floor = 1000 * TENSORS[step] * gradient.nbytes / rate
            yield {"batch": batch, "frames": frames, "step": step, "ms": times, "floor_ms": round(floor, 4)}


def level(
    _: dict[str, Attention], sizes: tuple[tuple[int, int], ...], runs: int, threads: int, rate: float
) -> Iterator[dict[str, Any]]:
    """Fractal attention alone, all sizes in turns: memory that a process has not touched before is dear, whoever is first."""
    inputs = {size: random_inputs(*size) for size in sizes}
    for step, run in STEPS.items():
        turns = {f"{batch} x {frames}": partial(run, fractal, *inputs[batch, frames]) for batch, frames in sizes}
        times = sides.interleaved(turns, runs, clock=sides.clock_for(threads))
        for (batch, frames), (__, gradient) in inputs.items():
            floor = round(1000 * TENSORS[step] * gradient.nbytes / rate, 4)
            taken = {"fractal": times[f"{batch} x {frames}"]}
            yield {"batch": batch, "frames": frames, "step": step, "ms": taken, "floor_ms": floor}


def show(name: str, found: list[dict[str, Any]]) -> None:
    others = [way for way in found[0]["ms"] if way != "fractal"]
    print(f"\n{name}\n")
    columns = ["batch x frames", "step", "fractal ms", "us a frame", "floor ms", "of the floor's rate"]
    rows = []
    for one in found:
        ours = one["ms"]["fractal"]
        cells = [f"{one['batch']} x {one['frames']}", one["step"], f"{ours:.2f}"]
        cells += [f"{1000 * ours / one['batch'] / one['frames']:.2f}", f"{one['floor_ms']:.2f}"]
        cells += [f"{one['floor_ms'] / ours:.0%}"]
        cells += [cell for way in others for cell in (f"{one['ms'][way]:.2f}", f"{one['ms'][way] / ours:.2f}")]
        rows.append(cells)
    sides.table([*columns, *(cell for way in others for cell in (f"{way} ms", "ratio"))], rows)
    if name == "flatness":
        for step in STEPS:
            alike = [one for one in found if one["step"] == step and (one["batch"], one["frames"]) in FLAT[1:]]
            costs = [one["ms"]["fractal"] for one in alike]
            print(f"\n{step}: the dearest 65,536 frames cost {max(costs) / min(costs):.2f} times the cheapest")


def memory() -> Iterator[dict[str, Any]]:
    for frames in MEMORY:
        for step in STEPS:
            for way in ("fractal", "full"):
                if way == "fractal" or frames <= LONGEST_FULL:
                    command = [sys.executable, str(Path(__file__)), "--rise", way, step, str(frames)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    risen = json.loads(done.stdout)
                    yield {"way": way, "step": step, "frames": frames, "rise": risen, "given": 4 * 4 * DIM * frames}


def rise(way: str, step: str, frames: int) -> int:
    """Bytes by which the resident memory of this process rises at most, one thread, what is given being there already."""
    torch.set_num_threads(1)
    small, large = random_inputs(1, 81), random_inputs(1, frames)
    STEPS[step](WAYS[way], *small)  # what is set up once is not counted
    before = peak_memory(reset=True)
    STEPS[step](WAYS[way], *large)
    after = peak_memory()
    if before is None or after is None:
        sys.exit("this system does not tell how much memory a process has held: leave memory out by --only")
    return int((after - before) * 2**20)


def show_memory(found: list[dict[str, Any]]) -> None:
    print("\nmemory: rise of the peak, MiB, one utterance; in parts of the bytes of q, k, v and output\n")
    rows = [
        [one["frames"], one["step"], one["way"], f"{one['rise'] / 2**20:.0f}", f"{one['rise'] / one['given']:.2f}"]
        for one in found
    ]
    sides.table(["frames", "step", "way", "MiB", "parts"], rows)


if __name__ == "__main__":
    main()
