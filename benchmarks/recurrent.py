"""Compare the speed of our recurrent cells with a plain implementation of their graphs and with torch's LSTM and GRU.

    make recurrent    prints a table, and writes benchmarks/results/recurrent.json

The plain side runs these cells in the usual way: one direction after the other, frame by frame and node by node, with padding
computed and then masked, and gradients by autograd. Both sides have the same weights and are checked to return the same
outputs and gradients before anything is timed. A step is forward and backward over one layer in both directions. Sides
alternate. The table has medians in milliseconds of processor time (of elapsed time on a GPU), and their ratios to ours. In
"padded" the utterances have between half and all of the frames.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import harness
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affekt.models.emotionnas.cell_graphs import CELL_GRAPHS, compile_cell_graph
from affekt.models.emotionnas.recurrent import GraphCell, RecurrentLayer

NAMES = ("id1010120", "lstm", "gru_reset_after")
TORCH_LAYERS = {"lstm": nn.LSTM, "gru_reset_after": nn.GRU}
# batch, frames, width of the states, width of the frames, runs
SIZES = {"small": (32, 125, 64, 384, 9), "medium": (32, 125, 128, 384, 7), "paper": (4, 727, 256, 512, 3)}

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "blend": lambda z, a, b: z * a + (1 - z) * b,
    "elementwise_prod": lambda a, b: a * b,
    "elementwise_sum": lambda a, b: a + b,
    "activation_tanh": torch.tanh,
    "activation_sigm": torch.sigmoid,
    "activation_leaky_relu": F.leaky_relu,
}


class Plain(nn.Module):
    """A layer that computes a cell's graph node by node, with the weights of one of our layers."""

    def __init__(self, name: str, ours: RecurrentLayer, hidden: int) -> None:
        super().__init__()
        self.nodes, self.ours, self.hidden = compile_cell_graph(name), ours, hidden
        self.states = sum(node.startswith("h_new_") and node[6:].isdigit() for node in CELL_GRAPHS[name])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        forward, backward = self.ours.forward_cell, self.ours.backward_cell
        assert backward is not None
        steps = list(range(x.shape[1]))
        both = [self.run_direction(forward, x, mask, steps), self.run_direction(backward, x, mask, steps[::-1])]
        joined = torch.cat([torch.stack([outputs[step] for step in steps], dim=1) for outputs in both], dim=2)
        return joined if mask is None else joined.masked_fill(~mask.unsqueeze(2), 0.0)

    def run_direction(self, cell: GraphCell, x: Tensor, mask: Tensor | None, steps: list[int]) -> dict[int, Tensor]:
        """Return the outputs (batch, hidden) of one direction by step; `steps` are the frames in its order."""
        state = [x.new_zeros(x.shape[0], self.hidden)] * self.states
        outputs = {}
        for step in steps:
            values = {"x": x[:, step], **{f"h_prev_{number}": previous for number, previous in enumerate(state)}}
            for node in self.nodes:
                inputs = [values[name] for name in node.inputs]
                if node.operation == "linear":
                    values[node.name] = cell.linears[node.name](torch.cat(inputs, dim=1))
                else:
                    values[node.name] = OPERATIONS[node.operation](*inputs)
            new = [values[f"h_new_{number}"] for number in range(self.states)]
            if mask is not None:
                real = mask[:, step].unsqueeze(1)
                new = [torch.where(real, now, before) for now, before in zip(new, state, strict=True)]
            state = new
            outputs[step] = state[0]
        return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, help="runs of each side; default: 9, 7 or 3, by size")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    results = [measure(name, size, device, arguments.runs) for size in arguments.sizes for name in NAMES]
    show(results)
    print(f"\nwrote {harness.write('recurrent', {'device': arguments.device, 'results': results})}")


def measure(name: str, size: str, device: torch.device, runs: int | None) -> dict[str, Any]:
    """Return the milliseconds of all sides for one cell and size, with that size."""
    batch, frames, hidden, dim, default_runs = SIZES[size]
    torch.manual_seed(0)
    ours = RecurrentLayer(compile_cell_graph(name), dim, hidden, bidirectional=True).to(device)
    plain, x = Plain(name, ours, hidden), torch.randn(batch, frames, dim, device=device)
    lengths = torch.linspace(frames / 2, frames, batch, device=device).long()
    mask = torch.arange(frames, device=device) < lengths.unsqueeze(1)
    check(ours, plain, x[:, :20], mask[:, -20:])
    runners = {
        "ours": lambda: ours(x, None),
        "plain": lambda: plain(x, None),
        "ours, padded": lambda: ours(x, mask),
        "plain, padded": lambda: plain(x, mask),
    }
    if name in TORCH_LAYERS:
        torch_layer = TORCH_LAYERS[name](dim, hidden, batch_first=True, bidirectional=True).to(device)
        runners["torch"] = lambda: torch_layer(x)[0]
    steps = {side: (lambda run=run: run().square().sum().backward()) for side, run in runners.items()}
    forwards = {f"{side}, forward": without_gradients(run) for side, run in runners.items() if "padded" not in side}
    milliseconds = harness.interleaved({**steps, **forwards}, runs or default_runs, clock=partial(read_clock, device))
    return {
        "recipe": name,
        "size": size,
        "batch": batch,
        "frames": frames,
        "hidden": hidden,
        "dim": dim,
        "ms": milliseconds,
    }


def without_gradients(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Return the function, run without gradients."""
    return torch.no_grad()(run)


def check(ours: RecurrentLayer, plain: Plain, x: Tensor, mask: Tensor) -> None:
    """Assert that both sides return the same outputs and gradients."""
    for given_mask in (None, mask):
        outputs = [side(x, given_mask) for side in (ours, plain)]
        torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)
        gradients = [torch.autograd.grad(output.square().mean(), list(ours.parameters())) for output in outputs]
        torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)


def read_clock(device: torch.device) -> float:
    """Return the processor time in seconds; on a GPU the elapsed time, after all its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def show(results: list[dict[str, Any]]) -> None:
    """Print the table of times and ratios."""
    columns = ("cell", "batch, frames, states, input", "step, ms", "plain", "ratio", "torch", "ratio")
    rows = []
    for result in results:
        ms, size = result["ms"], f"{result['batch']}, {result['frames']}, {result['hidden']}, {result['dim']}"
        torch_cells = [f"{ms['torch']:.0f}", f"{ms['torch'] / ms['ours']:.2f}"] if "torch" in ms else ["", ""]
        ratios = [f"{ms[f'plain{kind}'] / ms[f'ours{kind}']:.2f}" for kind in ("", ", padded", ", forward")]
        cells = [
            result["recipe"],
            size,
            f"{ms['ours']:.0f}",
            f"{ms['plain']:.0f}",
            ratios[0],
            *torch_cells,
            *ratios[1:],
        ]
        rows.append(cells)
    harness.table([*columns, "padded: plain's ratio", "forward: plain's ratio"], rows)


if __name__ == "__main__":
    main()
