"""Compare time and memory of EmotionNAS's spectrogram supernet with a plain implementation of the same function.

    make supernet     prints a table, and writes benchmarks/results/search.json

The plain network is built as in DARTS: one module for every operation of every edge, each computed and multiplied by its
weight. Both have the same weights, and are checked to return the same logits first. A step is forward and backward, with
gradients of all weights and of the architecture parameters (alphas). Steps alternate between the two, and the table has the
medians in milliseconds of processor time per utterance (of elapsed time on a GPU). Memory is that of the tensors saved for
the backward pass, in MB per utterance; on a GPU it is the peak.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import harness
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.models.emotionnas.cells import SearchCell
from affekt.models.emotionnas.mixed_ops import Convolution, FactorizedReduces, MixedEdges
from affekt.models.emotionnas.operations import OPERATIONS
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig

# Name, settings, batch size, operations of weight 0.
ROWS: tuple[tuple[str, dict[str, int], int, tuple[str, ...]], ...] = (
    ("the paper's: L = 3, C = 6, 140 x 140", {}, 4, ()),
    ("L = 3, C = 4, 28 x 28", {"shrink": 5, "channels": 4}, 32, ()),
    ("L = 3, C = 6, 28 x 28", {"shrink": 5}, 32, ()),
    ("L = 3, C = 8, 28 x 28", {"shrink": 5, "channels": 8}, 32, ()),
    ("L = 4, C = 6, 28 x 28", {"shrink": 5, "cells": 4}, 32, ()),
    ("L = 6, C = 6, 28 x 28", {"shrink": 5, "cells": 6}, 32, ()),
    ("L = 8, C = 6, 28 x 28", {"shrink": 5, "cells": 8}, 32, ()),
    ("half of weight 0: L = 3, C = 6, 28 x 28", {"shrink": 5}, 32, OPERATIONS[1::2]),
    ("half of weight 0: L = 3, C = 6, 140 x 140", {}, 4, OPERATIONS[1::2]),
)


class PlainFactorizedReduce(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels, channels // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


class PlainZero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0.0


def plain_operation(name: str, channels: int, stride: int) -> Any:
    norm = nn.BatchNorm2d(channels, affine=False)
    if name == "none":
        return PlainZero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else PlainFactorizedReduce(channels)
    if name == "max_pool_3x3":
        return nn.Sequential(nn.MaxPool2d(3, stride, 1), norm)
    if name == "avg_pool_3x3":
        return nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm)
    size, dilation = int(name[-1]), 2 if name.startswith("dil") else 1
    modules: list[nn.Module] = []
    for step in (stride,) if dilation == 2 else (stride, 1):
        padding = dilation * (size // 2)
        modules += [
            nn.ReLU(),
            nn.Conv2d(channels, channels, size, step, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=False),
        ]
    return nn.Sequential(*modules)


class PlainCell(nn.Module):
    """A plain cell that computes the same function as one of ours, with the same weights."""

    def __init__(self, cell: SearchCell) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = copy.deepcopy(cell.preprocess0), copy.deepcopy(cell.preprocess1)
        self.nodes = len(cell.edges) - 1
        self.edges: Any = nn.ModuleList()  # a list of lists; Any because ModuleList has no type of its items
        for node in range(self.nodes):
            for source in range(2 + node):
                mixed = cast(MixedEdges, cell.fans[source])
                edge_index = cell.edges[source].index(len(self.edges))
                self.edges.append(nn.ModuleList(plain_with_weights(mixed, name, edge_index) for name in OPERATIONS))

    def forward(self, first: Tensor, second: Tensor, weights: Tensor, active: Any) -> Tensor:  # noqa: ARG002
        states = [self.preprocess0(first.contiguous()), self.preprocess1(second.contiguous())]
        edge = 0
        for _ in range(self.nodes):
            node: Any = 0.0
            for state in tuple(states):
                node = node + sum(
                    weight * operation(state) for weight, operation in zip(weights[edge], self.edges[edge], strict=True)
                )
                edge += 1
            states.append(node)
        return torch.cat(states[2:], dim=1)


def plain_with_weights(mixed: MixedEdges, name: str, edge_index: int) -> nn.Module:
    """Build a plain operation with the weights of one of the mixed edges."""
    ours: nn.Module | None = getattr(mixed, name, None)
    plain = plain_operation(name, mixed.channels, mixed.stride)
    pairs: list[tuple[Tensor, Tensor]] = []
    if isinstance(ours, FactorizedReduces):
        pairs = [(plain.even.weight, ours.even.weight), (plain.odd.weight, ours.odd.weight)]
    elif isinstance(ours, Convolution):
        for number, layer in enumerate(cast(Any, ours)):
            pairs += [
                (plain[4 * number + 1].weight, layer.depthwise.weight),
                (plain[4 * number + 2].weight, layer.pointwise.weight),
            ]
    with torch.no_grad():
        for target, weights in pairs:
            target.copy_(weights.chunk(mixed.edges)[edge_index])
    return plain


def build_plain(model: SpectrogramBranch) -> SpectrogramBranch:
    plain = copy.deepcopy(model)
    plain.cells = nn.ModuleList(PlainCell(cast(SearchCell, cell)) for cell in plain.cells)
    return plain


def step(model: SpectrogramBranch, batch: Batch, labels: Tensor) -> None:
    for tensor in (*model.parameters(), *model.alphas().values()):
        tensor.grad = None
    F.cross_entropy(model(batch), labels).backward()


def saved_mb(run: Callable[[], None]) -> float:
    """Return the MB of tensors saved for the backward pass, counting shared memory once."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(storages.values()) / 1e6


def read_clock(device: str) -> float:
    """Return seconds of processor time, or of elapsed time for a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(settings: dict[str, Any], size: int, zero: tuple[str, ...], device: str, runs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    ours = SpectrogramBranch(SpectrogramBranchConfig(**settings), 4).to(device).train()
    with torch.no_grad():
        for alpha in ours.alphas().values():
            alpha[:, [OPERATIONS.index(name) for name in zero]] = -torch.inf
    models = {"plain": build_plain(ours), "ours": ours}
    side = ours.config.frames
    batch = Batch({"spectrogram": Stream(torch.randn(size, side, side, device=device))})
    labels = torch.arange(size, device=device) % 4
    with torch.no_grad():
        torch.testing.assert_close(models["plain"](batch), ours(batch), atol=1e-3, rtol=1e-3)
    memory: dict[str, float] = {}
    for name, model in models.items():
        memory[name] = saved_mb(partial(step, model, batch, labels)) / size
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            step(model, batch, labels)
            memory[name] = torch.cuda.max_memory_allocated() / 1e6 / size
    turns = {name: partial(step, model, batch, labels) for name, model in models.items()}
    times = harness.interleaved(turns, runs, clock=partial(read_clock, device))
    medians = {name: time / size for name, time in times.items()}
    return {
        "cells": ours.config.cells,
        "batch": size,
        "milliseconds": medians,
        "memory_mb": memory,
        "faster": medians["plain"] / medians["ours"],
        "smaller": memory["plain"] / memory["ours"],
        "milliseconds_per_cell": medians["ours"] / ours.config.cells,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5, help="steps of each network")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    for name, settings, size, zero in ROWS:
        rows[name] = measure(settings, size, zero, options.device, options.runs)
        print(f"{name}: {rows[name]['faster']:.2f} times as fast", flush=True)
    show(rows)
    card = {} if options.device == "cpu" else {"card": torch.cuda.get_device_name()}
    print(f"\nwrote {harness.write('search', {'device': options.device, **card, 'rows': rows})}")


def show(rows: dict[str, dict[str, Any]]) -> None:
    columns = ("per utterance", "plain ms", "ours ms", "faster", "ms per cell", "plain MB", "ours MB")
    cells = []
    for name, row in rows.items():
        times, memory = row["milliseconds"], row["memory_mb"]
        numbers = [f"{times['plain']:.1f}", f"{times['ours']:.1f}", f"{row['faster']:.2f}"]
        numbers += [f"{row['milliseconds_per_cell']:.2f}", f"{memory['plain']:.1f}", f"{memory['ours']:.1f}"]
        cells.append([name, *numbers])
    print()
    harness.table(columns, cells)


if __name__ == "__main__":
    main()
