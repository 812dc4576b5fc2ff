"""Time fractal attention in onnxruntime: several formulations of it, and the whole graph of the shipped model.

    python benchmarks/exported.py                          formulations; the shipped graph, compared with a new export of it
    python benchmarks/exported.py --against OLD.onnx       OLD.onnx, compared with a new export of the shipped bundle

Each formulation is exported alone: query, key and value are inputs, the sum over four scales is the output. Sizes are those
of the shipped model (256 features, 4 heads, 12.5 frames per second) and of the paper (1024 features, 16 heads). The output is
checked against torch before anything is timed. Sessions have the recognizer's options. Times are milliseconds per run for
formulations; for whole graphs, milliseconds to load the file and to recognize noise of several lengths. Both graphs also
recognize the recordings in samples/, and the largest difference in any probability is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from harness import clock_for, interleaved, table, write
from torch import Tensor, nn

from affekt.audio.read import load
from affekt.bundle.export import OPSET, export_onnx
from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import rebuild
from affekt.models.layers.fractal.torch_ops import fractal_scales

FACTOR, SCALES = 3, 4
SIZES = {"shipped": (256, 4, (13, 31, 63, 125, 375)), "paper": (1024, 16, (81, 326, 1024))}  # width, heads, frames
SECONDS = (1.0, 2.5, 5.0, 10.0, 30.0)
"""Durations of the noise that whole graphs recognize."""
SAMPLES = Path(__file__).parents[1] / "samples"
NEGATIVE = -1e9
"""Score of padding before the softmax, in place of minus infinity."""

WindowAttention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""Attention within windows: from query, key, value, the mask of frames that are not padding, and the number of heads."""


def products(query: Tensor, key: Tensor, value: Tensor, real: Tensor, heads: int) -> Tensor:
    """Attend without matrix products: multiply queries and keys elementwise and sum over the features of a head."""
    both = (query.unsqueeze(3) * key.unsqueeze(2)).unflatten(4, (heads, -1))
    scores = both.sum(dim=5) / both.shape[5] ** 0.5
    weights = scores.masked_fill(~real[None, :, None, :, None], NEGATIVE).softmax(dim=3)
    return (weights.unsqueeze(5) * value.unflatten(3, (heads, -1)).unsqueeze(2)).sum(dim=3).flatten(3)


def matrix(query: Tensor, key: Tensor, value: Tensor, real: Tensor, heads: int) -> Tensor:
    """Attend as in `products`, but sum over the features of a head by a matrix of zeros and ones, (dim, heads)."""
    width = query.shape[3] // heads
    members = torch.eye(heads).repeat_interleave(width, dim=0)
    scores = (query.unsqueeze(3) * key.unsqueeze(2)) @ (members / width**0.5)
    weights = scores.masked_fill(~real[None, :, None, :, None], NEGATIVE).softmax(dim=3)
    return ((weights @ members.T) * value.unsqueeze(2)).sum(dim=3)


def einsum(query: Tensor, key: Tensor, value: Tensor, real: Tensor, heads: int) -> Tensor:
    """Attend as in `products`, by Einstein sums."""
    query, key, value = (x.unflatten(3, (heads, -1)) for x in (query, key, value))
    scores = torch.einsum("bwqhd,bwkhd->bwhqk", query, key) / query.shape[4] ** 0.5
    weights = scores.masked_fill(~real[None, :, None, None, :], NEGATIVE).softmax(dim=4)
    return torch.einsum("bwhqk,bwkhd->bwqhd", weights, value).flatten(3)


def matmul(query: Tensor, key: Tensor, value: Tensor, real: Tensor, heads: int) -> Tensor:
    """Attend as in `products`, by matrix products over (batch, windows, heads, frames, features)."""
    query, key, value = (x.unflatten(3, (heads, -1)).transpose(2, 3) for x in (query, key, value))
    scores = query @ key.transpose(3, 4) / query.shape[4] ** 0.5
    weights = scores.masked_fill(~real[None, :, None, None, :], NEGATIVE).softmax(dim=4)
    return (weights @ value).transpose(2, 3).flatten(3)


def operator(query: Tensor, key: Tensor, value: Tensor, real: Tensor, heads: int) -> Tensor:
    """Attend with ONNX's Attention operator, which divides the features into heads itself."""
    batch = query.shape[0]
    keys = real.expand(batch, -1, -1).flatten(0, 1)[:, None, None, :].expand(-1, -1, FACTOR, -1)
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    attended = torch.onnx.ops.attention(query, key, value, keys, q_num_heads=heads, kv_num_heads=heads)[0]
    return attended.unflatten(0, (batch, -1))


def by_scale(attend: WindowAttention, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attend to the windows of one scale after another."""
    frames = count = query.shape[1]
    streams, scales = [query, key, value], []
    for _ in range(SCALES):
        windows, real = split(streams, count)
        attended = F.gelu(attend(windows[0], windows[1], windows[2], real, heads).flatten(1, 2))
        scales.append(attended[:, torch.arange(frames) * count // frames])
        count = count // FACTOR
        streams = [x.mean(dim=2)[:, :count] for x in windows]
    return sum(scales[1:], start=scales[0])


def all_scales(
    attend: WindowAttention, query: Tensor, key: Tensor, value: Tensor, heads: int, packed: bool = False
) -> Tensor:
    """Attend to the windows of all scales at once. If packed, query, key and value are padded and averaged as one tensor."""
    frames = count = query.shape[1]
    streams = [torch.cat([query, key, value], dim=2)] if packed else [query, key, value]
    scales, starts, counts = [], [0], []
    for _ in range(SCALES):
        windows, real = split(streams, count)
        scales.append((*windows, real))
        counts.append(count)
        starts.append(starts[-1] + FACTOR * (count // FACTOR + 1))
        count = count // FACTOR
        streams = [x.mean(dim=2)[:, :count] for x in windows]
    *joined, real = (torch.cat(tensors, dim=int(tensors[0].ndim > 2)) for tensors in zip(*scales, strict=True))
    query, key, value = joined[0].chunk(3, dim=3) if packed else joined
    attended = F.gelu(attend(query, key, value, real, heads).flatten(1, 2))
    total = attended[:, :frames]
    for start, count in list(zip(starts, counts, strict=False))[1:]:
        total = total + attended.index_select(1, start + torch.arange(frames) * count // frames)
    return total


def split(streams: list[Tensor], count: int) -> tuple[list[Tensor], Tensor]:
    """Return the windows of every stream, with at least one zero frame after the last, and the mask of the real frames."""
    size = FACTOR * (count // FACTOR + 1)
    windows = [F.pad(x, (0, 0, 0, size - count)).unflatten(1, (-1, FACTOR)) for x in streams]
    return windows, (torch.arange(size) < count).unflatten(0, (-1, FACTOR))


def ours(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the package's fractal attention, summed over its scales."""
    scales = fractal_scales(query, key, value, heads=heads, mask_window_padding=True)
    return sum(scales[1:], start=scales[0])


FORMULATIONS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "by scale, matmul": partial(by_scale, matmul),
    "by scale, operator": partial(by_scale, operator),
    "matmul": partial(all_scales, matmul),
    "products": partial(all_scales, products),
    "matrix": partial(all_scales, matrix),
    "einsum": partial(all_scales, einsum),
    "operator": partial(all_scales, operator),
    "operator, packed": partial(all_scales, operator, packed=True),
    "ours": ours,
}


class AttentionOnly(nn.Module):
    """A network that consists of one formulation of attention."""

    def __init__(self, attend: Callable[[Tensor, Tensor, Tensor, int], Tensor], heads: int) -> None:
        super().__init__()
        self.attend, self.heads = attend, heads

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.attend(query, key, value, self.heads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--against", type=Path, help="an earlier model.onnx; the shipped one if not given")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        by_size = measure_formulations(Path(folder), arguments.runs, arguments.threads)
        whole = measure_graphs(Path(folder), arguments.against or Bundle.open().onnx, arguments.runs, arguments.threads)
    print(write("exported", {"onnxruntime": onnxruntime.__version__, "formulations": by_size, "whole": whole}))


def measure_formulations(folder: Path, runs: int, threads: int) -> dict[str, Any]:
    """Return milliseconds by size, frames and formulation."""
    results: dict[str, Any] = {}
    for size, (dim, heads, lengths) in SIZES.items():
        sessions = {
            name: export(AttentionOnly(attend, heads), dim, folder, threads) for name, attend in FORMULATIONS.items()
        }
        results[size] = {frames: measure(sessions, frames, dim, heads, runs, threads) for frames in lengths}
        print(f"\n{dim} features, {heads} heads, ms\n")
        rows = [[name, *(results[size][frames][name] for frames in lengths)] for name in sessions]
        table(["formulation", *(f"{frames} frames" for frames in lengths)], rows)
    return results


def export(network: nn.Module, dim: int, folder: Path, threads: int) -> onnxruntime.InferenceSession:
    """Export a network as ONNX and return a session that runs it."""
    names, axes = ["query", "key", "value"], {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # warnings of the exporter about its own code
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(),
            tuple(torch.randn(2, 40, dim) for _ in names),
            dynamo=True,
            dynamic_shapes=dict.fromkeys(names, axes),
            input_names=names,
            output_names=["attended"],
            opset_version=OPSET,
        )
    assert program is not None
    program.save(folder / "attention.onnx")
    return open_session(folder / "attention.onnx", threads)


def open_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model with the options of `affekt.inference.onnx`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def measure(sessions: dict[str, Any], frames: int, dim: int, heads: int, runs: int, threads: int) -> dict[str, float]:
    """Return the milliseconds of each session for this number of frames, after checking its output against torch."""
    streams = {name: torch.randn(1, frames, dim) for name in ("query", "key", "value")}
    inputs, expected = {name: x.numpy() for name, x in streams.items()}, ours(**streams, heads=heads).numpy()
    for session in sessions.values():
        np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=1e-5)
    turns = max(1, 500_000 // (frames * dim))  # repeat short runs
    sides = {name: partial(run_repeatedly, session, inputs, turns) for name, session in sessions.items()}
    times = interleaved(sides, runs, clock=clock_for(threads))
    return {name: round(milliseconds / turns, 4) for name, milliseconds in times.items()}


def run_repeatedly(session: onnxruntime.InferenceSession, inputs: dict[str, Any], turns: int) -> None:
    """Run a session several times."""
    for _ in range(turns):
        session.run(None, inputs)


def measure_graphs(folder: Path, earlier: Path, runs: int, threads: int) -> dict[str, Any]:
    """Compare an earlier graph with a new export: file sizes, differences, milliseconds to load and to recognize."""
    bundle = Bundle.open()
    paths = {"earlier": earlier, "now": folder / "model.onnx"}
    export_onnx(rebuild(bundle), paths["now"], bundle.emotions)
    sessions = {name: open_session(path, threads) for name, path in paths.items()}
    clock = clock_for(threads)
    loads = {name: partial(open_session, path, threads) for name, path in paths.items()}
    times = {"load": interleaved(loads, runs, clock=clock)}
    for seconds in SECONDS:
        noise = np.random.default_rng(0).normal(scale=0.1, size=(1, int(16_000 * seconds))).astype(np.float32)
        sides = {name: partial(run_repeatedly, session, {"waveform": noise}, 1) for name, session in sessions.items()}
        times[f"{seconds:g} s"] = interleaved(sides, runs, clock=clock)
    differences = [largest_difference(list(sessions.values()), path) for path in sorted(SAMPLES.glob("*.wav"))]
    print(f"\nThe whole graph, ms. Largest difference in any probability: {max(differences):.1g}\n")
    rows = [[name, ms["earlier"], ms["now"], f"{ms['earlier'] / ms['now']:.3f}"] for name, ms in times.items()]
    table(["", *paths, "ratio"], rows)
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    return {"bytes": sizes, "largest_difference": max(differences), "ms": times}


def largest_difference(sessions: list[Any], path: Path) -> float:
    """Return the largest absolute difference between two sessions' probabilities for a recording."""
    waveform = {"waveform": load(path)[np.newaxis]}
    first, second = (session.run(None, waveform)[0] for session in sessions)
    return float(np.abs(first - second).max())


if __name__ == "__main__":
    main()
