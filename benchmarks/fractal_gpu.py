"""Compare the speed of fractal attention on a GPU with full attention and with a copy of as many bytes.

    python benchmarks/fractal_gpu.py      prints a table, and writes benchmarks/results/fractal_gpu.json

Our kernels are checked against the plain formulation in 64 bits. Then three sides alternate, forward alone and forward with
backward ("step"): our kernels; the plain formulation, scale by scale; torch's scaled_dot_product_attention, including the
reshapes to heads and back. Query, key and value are the thirds of the output of one fused projection, as in a model. The
table has medians in milliseconds, and for our kernels the fraction of the GPU's copy bandwidth: the time of `Tensor.copy_`
for the bytes that must be moved (`bytes_moved`), divided by ours. The plain formulation is left out where it needs too much
memory.

`--sweep` times many launch settings. Those in `gpu.FORWARD` and `gpu.BACKWARD` should be the fastest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from harness import interleaved, table, write
from torch import Tensor

from affekt.models.layers.fractal import gpu
from affekt.models.layers.fractal.gpu_plan import bytes_moved
from affekt.models.layers.fractal.options import FractalOptions
from affekt.models.layers.fractal.torch_ops import fractal_scales

HEADS, DIM = 16, 1024
SIZES = ((8, 326), (4, 1024), (2, 4096), (32, 1024), (32, 4096), (2, 65536))  # batch, frames
PRECISIONS = {"32-bit": torch.float32, "bfloat16": torch.bfloat16}
PLAIN_MAX_FRAMES = 2**17  # in a batch; the plain formulation needs too much memory for more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sweep", action="store_true")
    arguments = parser.parse_args()
    options = FractalOptions(HEADS)
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: fractal attention's kernels can only run on one")
    if not gpu.supports(torch.empty(1, 1, DIM, device="cuda"), options):
        sys.exit("the kernels need triton and a GPU of compute capability 8.0 or more")
    torch.set_num_threads(arguments.threads)
    if arguments.sweep:
        sweep(options, arguments.runs)
        return
    results = [measure(name, batch, frames, options, arguments.runs) for name in PRECISIONS for batch, frames in SIZES]
    write("fractal_gpu", {"device": torch.cuda.get_device_name(), "heads": HEADS, "dim": DIM, "results": results})
    show(results)


def measure(precision: str, batch: int, frames: int, options: FractalOptions, runs: int) -> dict[str, Any]:
    """Return milliseconds of all sides at one size and precision, and the bytes that fractal attention must move."""
    inputs = thirds(batch, frames, PRECISIONS[precision])
    check(inputs, options)
    sides: dict[str, Callable[..., Tensor]] = {"ours": partial(gpu.attend, options=options), "full": full}
    if batch * frames <= PLAIN_MAX_FRAMES:
        sides["plain"] = partial(plain, options=options)
    steps: dict[str, Callable[[], object]] = {}
    for name, side in sides.items():
        steps[f"{name}, forward"] = partial(forward, side, inputs)
        steps[f"{name}, step"] = partial(step, side, inputs)
    needed = [
        bytes_moved(batch, frames, DIM, itemsize=inputs[0].itemsize, backward=backward) for backward in (False, True)
    ]
    steps["copy, forward"], steps["copy, step"] = copy_of(needed[0]), copy_of(sum(needed))
    milliseconds = interleaved(steps, runs, clock=clock)
    return {"precision": precision, "batch": batch, "frames": frames, "bytes": needed, "ms": milliseconds}


def check(inputs: list[Tensor], options: FractalOptions) -> None:
    """Compare output and gradients with the plain formulation in 64 bits, on the first 2,000 frames of an utterance."""
    ours = [x[:1, :2000].detach().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in ours]
    outputs = [gpu.attend(ours[0], ours[1], ours[2], options), plain(exact[0], exact[1], exact[2], options)]
    gradients = [torch.autograd.grad(outputs[0], ours, outputs[0].detach())]
    gradients.append(torch.autograd.grad(outputs[1], exact, outputs[1].detach()))
    tolerance = 1e-4 if ours[0].dtype == torch.float32 else 0.1
    for actual, expected in zip((outputs[0], *gradients[0]), (outputs[1], *gradients[1]), strict=True):
        torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


def thirds(batch: int, frames: int, dtype: torch.dtype) -> list[Tensor]:
    """Return query, key and value as views of one projection, (batch, frames, DIM) each."""
    projected = torch.randn(batch, frames, 3 * DIM, device="cuda", dtype=dtype)
    return [x.requires_grad_() for x in projected.chunk(3, dim=2)]


def full(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return full attention by torch's fused kernel."""
    heads = [x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (query, key, value)]
    return F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)


def plain(query: Tensor, key: Tensor, value: Tensor, options: FractalOptions) -> Tensor:
    """Return fractal attention in torch's operations."""
    scales = fractal_scales(query, key, value, heads=options.heads, factor=options.factor, scales=options.scales)
    return sum(scales[1:], start=scales[0])


@torch.no_grad()
def forward(side: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    return side(*inputs)


def step(side: Callable[..., Tensor], inputs: list[Tensor]) -> object:
    """Run forward and backward, and return the gradients of the inputs."""
    output = side(*inputs)
    return torch.autograd.grad(output, inputs, output.detach())


def copy_of(num_bytes: int) -> Callable[[], object]:
    """Return a function that copies: it reads half of the bytes and writes the other half."""
    source = torch.empty(num_bytes // 2, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def clock() -> float:
    """Return the elapsed time in seconds, after all work of the GPU is done."""
    torch.cuda.synchronize()
    return time.perf_counter()


def show(results: list[dict[str, Any]]) -> None:
    """Print the table of times."""
    columns = ("precision, batch x frames", "", "ours", "copy / ours", "full", "ratio", "plain", "ratio")
    table(columns, (row for result in results for row in rows(result)))


def rows(result: dict[str, Any]) -> Iterator[list[str]]:
    """Yield the cells of a result: forward, then forward and backward."""
    for kind in ("forward", "step"):
        ms = {name.partition(",")[0]: time for name, time in result["ms"].items() if name.endswith(kind)}
        cells = [f"{result['precision']}, {result['batch']} x {result['frames']}", kind, f"{ms['ours']:.3f}"]
        cells.append(f"{100 * ms['copy'] / ms['ours']:.0f} %")
        for other in ("full", "plain"):
            cells += [f"{ms[other]:.3f}", f"{ms[other] / ms['ours']:.1f}"] if other in ms else ["", ""]
        yield cells


def sweep(options: FractalOptions, runs: int) -> None:
    """Time launch settings at a size that fills the GPU: forward for FORWARD, a whole step for BACKWARD."""
    inputs = thirds(32, 4096, torch.float32)
    rows = []
    for name, run in (("FORWARD", forward), ("BACKWARD", step)):
        usual = getattr(gpu, name)
        for elements in (256, 512, 1024, 2048):
            for registers, programs in ((96, 5), (128, 4), (168, 3), (255, 2)):
                launch = gpu.Launch(elements, registers, programs)
                setattr(gpu, name, launch)
                side = lambda: run(lambda q, k, v: gpu.attend(q, k, v, options), inputs)  # noqa: B023, E731
                rows.append([name, *launch, interleaved({"ours": side}, runs, clock=clock)["ours"]])
        setattr(gpu, name, usual)
    table(("kernel", "elements", "registers", "programs", "ms"), rows)


if __name__ == "__main__":
    main()
