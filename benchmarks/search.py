"""What a step of EmotionNAS's spectrogram search costs: its network beside a plain one of the same function.

    make supernet     prints a table, and writes benchmarks/results/search.json

The plain network is built as DARTS builds it: one module for every operation of every edge, each computed and multiplied
by its share. Both have the same weights, and give the same logits, which is checked first. A step is forward and
backward, with gradients of all weights and of the architecture's. Steps alternate between the two; what is printed is the
median of each, in milliseconds of processor time per utterance (of time on a GPU). Memory is what a step saves
for its backward pass, in MB per utterance, and on a GPU the peak.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import sides
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affekt.batch import Batch, Stream
from affekt.models.emotionnas.cells import SearchCell
from affekt.models.emotionnas.mixed_ops import Convolution, FactorizedReduce, MixedEdges
from affekt.models.emotionnas.operations import OPERATIONS
from affekt.models.emotionnas.spectrogram import SpectrogramBranch, SpectrogramBranchConfig

# Name, settings, batch, operations without a share.
ROWS: tuple[tuple[str, dict[str, int], int, tuple[str, ...]], ...] = (
    ("the paper's: L = 3, C = 6, 140 x 140", {}, 4, ()),
    ("L = 3, C = 4, 28 x 28", {"shrink": 5, "channels": 4}, 32, ()),
    ("L = 3, C = 6, 28 x 28", {"shrink": 5}, 32, ()),
    ("L = 3, C = 8, 28 x 28", {"shrink": 5, "channels": 8}, 32, ()),
    ("L = 4, C = 6, 28 x 28", {"shrink": 5, "cells": 4}, 32, ()),
    ("L = 6, C = 6, 28 x 28", {"shrink": 5, "cells": 6}, 32, ()),
    ("L = 8, C = 6, 28 x 28", {"shrink": 5, "cells": 8}, 32, ()),
    ("half without a share: L = 3, C = 6, 28 x 28", {"shrink": 5}, 32, OPERATIONS[1::2]),
    ("half without a share: L = 3, C = 6, 140 x 140", {}, 4, OPERATIONS[1::2]),
)


class PlainHalving(nn.Module):
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
        return nn.Identity() if stride == 1 else PlainHalving(channels)
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
    """A cell of the same function and with the same weights as one of ours."""

    def __init__(self, cell: SearchCell) -> None:
        super().__init__()
        self.preprocess0, self.preprocess1 = copy.deepcopy(cell.preprocess0), copy.deepcopy(cell.preprocess1)
        self.nodes = len(cell.edges) - 1
        self.edges: Any = nn.ModuleList()  # of lists, which a ModuleList does not say
        for node in range(self.nodes):
            for source in range(2 + node):
                fan = cell.fans[source]
                place = cell.edges[source].index(len(self.edges))
                self.edges.append(nn.ModuleList(carried(cast(MixedEdges, fan), name, place) for name in OPERATIONS))

    def forward(self, first: Tensor, second: Tensor, shares: Tensor, live: Any) -> Tensor:  # noqa: ARG002
        states = [self.preprocess0(first.contiguous()), self.preprocess1(second.contiguous())]
        edge = 0
        for _ in range(self.nodes):
            node: Any = 0.0
            for state in tuple(states):
                node = node + sum(share * one(state) for share, one in zip(shares[edge], self.edges[edge], strict=True))
                edge += 1
            states.append(node)
        return torch.cat(states[2:], dim=1)


def carried(fan: MixedEdges, name: str, place: int) -> nn.Module:
    """The plain operation, with the weights of one edge of a fan."""
    one: nn.Module | None = getattr(fan, name, None)
    plain = plain_operation(name, fan.channels, fan.stride)
    parts: list[tuple[Tensor, Tensor]] = []
    if isinstance(one, FactorizedReduce):
        parts = [(plain.even.weight, one.even.weight), (plain.odd.weight, one.odd.weight)]
    elif isinstance(one, Convolution):
        for number, part in enumerate(cast(Any, one)):
            parts += [
                (plain[4 * number + 1].weight, part.depthwise.weight),
                (plain[4 * number + 2].weight, part.pointwise.weight),
            ]
    with torch.no_grad():
        for to, weights in parts:
            to.copy_(weights.chunk(fan.edges)[place])
    return plain


def plain_of(model: SpectrogramBranch) -> SpectrogramBranch:
    plain = copy.deepcopy(model)
    plain.cells = nn.ModuleList(PlainCell(cast(SearchCell, cell)) for cell in plain.cells)
    return plain


def step(model: SpectrogramBranch, batch: Batch, labels: Tensor) -> None:
    for tensor in (*model.parameters(), *model.alphas().values()):
        tensor.grad = None
    F.cross_entropy(model(batch), labels).backward()


def saved(work: Callable[[], None]) -> float:
    """MB that are kept for the backward pass, each piece of memory once."""
    pieces: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        pieces[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        work()
    return sum(pieces.values()) / 1e6


def now(device: str) -> float:
    """Seconds: of the processor, or of waiting for a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measured(settings: dict[str, Any], size: int, zero: tuple[str, ...], device: str, runs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    ours = SpectrogramBranch(SpectrogramBranchConfig(**settings), 4).to(device).train()
    with torch.no_grad():
        for alpha in ours.alphas().values():
            alpha[:, [OPERATIONS.index(name) for name in zero]] = -torch.inf
    models = {"plain": plain_of(ours), "ours": ours}
    side = ours.config.frames
    batch = Batch({"spectrogram": Stream(torch.randn(size, side, side, device=device))})
    labels = torch.arange(size, device=device) % 4
    with torch.no_grad():
        torch.testing.assert_close(models["plain"](batch), ours(batch), atol=1e-3, rtol=1e-3)
    memory: dict[str, float] = {}
    for name, model in models.items():
        memory[name] = saved(partial(step, model, batch, labels)) / size
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            step(model, batch, labels)
            memory[name] = torch.cuda.max_memory_allocated() / 1e6 / size
    turns = {name: partial(step, model, batch, labels) for name, model in models.items()}
    times = sides.interleaved(turns, runs, clock=partial(now, device))
    medians = {name: one / size for name, one in times.items()}
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
    parser.add_argument("--runs", type=int, default=5, help="steps of each network, of which the median is taken")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    for name, settings, size, zero in ROWS:
        rows[name] = measured(settings, size, zero, options.device, options.runs)
        print(f"{name}: {rows[name]['faster']:.2f} times as fast", flush=True)
    show(rows)
    card = {} if options.device == "cpu" else {"card": torch.cuda.get_device_name()}
    print(f"\nwrote {sides.write('search', {'device': options.device, **card, 'rows': rows})}")


def show(rows: dict[str, dict[str, Any]]) -> None:
    columns = ("per utterance", "plain ms", "ours ms", "faster", "ms per cell", "plain MB", "ours MB")
    cells = []
    for name, row in rows.items():
        times, memory = row["milliseconds"], row["memory_mb"]
        numbers = [f"{times['plain']:.1f}", f"{times['ours']:.1f}", f"{row['faster']:.2f}"]
        numbers += [f"{row['milliseconds_per_cell']:.2f}", f"{memory['plain']:.1f}", f"{memory['ours']:.1f}"]
        cells.append([name, *numbers])
    print()
    sides.table(columns, cells)


if __name__ == "__main__":
    main()
