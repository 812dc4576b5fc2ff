"""Fractal attention on a GPU: the differentiable sum of `torch_ops.fractal_scales`, with one kernel for all scales in the
forward pass and one in the backward pass.

Memory bandwidth limits the speed, not arithmetic: at each scale a frame attends to `factor` frames only. With
N = batch * frames * dim elements in each tensor, the memory traffic (`bytes_moved`) is

    forward     query, key and value are read, the output is written                                 4 N
    backward    query, key, value and the output's gradient are read, three gradients written        7 N

and no intermediate result has a size of N. A program (Triton's word for one of the instances of a kernel that run in
parallel) loads each element twice: for the means of the coarse scales and, microseconds later, for the finest scale. The
second time, the element is in a cache. The alternative is a first kernel that computes the coarse scales and writes their
outputs to a buffer, 0.48 N for three coarse scales of factor 3. The inputs would then be read twice, and the buffer would be
written and read: 8 N in total, which halves the speed.

The work is divided into tiles: `factor**scales` frames, or a multiple, of one head. They consist of whole windows of the
coarsest scale, so that a tile's means depend on no other tile. In up-sampling, output frame i of T is a copy of the coarse
frame floor(i * n / T). If T is not a multiple of the scale's size, this lags by up to one coarse frame: the first frames of a
tile may need the last coarse frame of the previous tile. A program therefore processes many consecutive tiles and keeps the
last coarse frames of each. It begins one tile early, so that one additional tile is read for each program, not for each
tile. In the backward pass, tiles are independent. The gradient of a coarse frame is the sum of the output's gradient over
its copies, some of which are beyond the end of the tile, and each scale passes the gradients of its means to the next finer
scale.

There are no atomic operations and no autotuning, so the same inputs give the same bits on the same GPU. Sums are in 32
bits, or 64 for 64-bit inputs. The kernels were compiled for a GPU and tested in Triton's interpreter, but have not yet
run on a GPU. `benchmarks/fractal_gpu.py` measures them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from affekt.models.layers.fractal.gpu_plan import KernelConstants, Schedule, kernel_constants, schedule
from affekt.models.layers.fractal.options import FractalOptions
from affekt.models.layers.shapes import Frames

PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_FACTOR = 16  # the kernel is unrolled over all pairs of frames in a window: above this, compiling takes minutes
MIN_CAPABILITY = (8, 0)  # CUDA compute capability for Triton and bfloat16
MULTIPROCESSORS = 4  # number that is assumed in Triton's interpreter, which has none
WARPS = 4  # groups of 32 threads that run one program of a kernel


class Launch(NamedTuple):
    """Sizes with which a kernel is launched."""

    elements: int
    """Number of elements of one block of one stream: eight or four for each of 128 threads."""
    registers: int
    """Maximum number of registers of a thread."""
    programs: int
    """Number of programs on each multiprocessor: as many as fit at once, so that some read while others compute."""


FORWARD, BACKWARD = Launch(1024, 128, 4), Launch(512, 168, 3)


def supports(query: Tensor, options: FractalOptions) -> bool:
    """Return whether `attend` can compute this: Triton is installed and supports the GPU (or runs in its interpreter), and
    the factor is at most 16."""
    supported = torch.cuda.get_device_capability(query.device) >= MIN_CAPABILITY if query.is_cuda else _is_interpreted()
    return (
        supported
        and importlib.util.find_spec("triton") is not None
        and query.dtype in PRECISIONS
        and 2 <= options.factor <= MAX_FACTOR
    )


def attend(
    query: Frames,
    key: Frames,
    value: Frames,
    options: FractalOptions,
    lengths: Int[Tensor, " batch"] | None = None,
) -> Frames:
    """Return the same sum over all scales as `fractal_attention`, (batch, frames, dim).

    Inputs may be strided views whose last axis is contiguous, such as the thirds of a fused projection; they are not copied.
    Dropout draws one seed from torch's generator; the seed and the position of a weight determine whether it is dropped.

    Args:
        query: Projected queries, (batch, frames, dim).
        key: Projected keys, of the same shape.
        value: Projected values, of the same shape.
        options: Heads, windows and scales.
        lengths: Number of real frames of each utterance; None if all frames are real. The result of an utterance is that of
            the utterance alone, with zeros in its padding, which gets no gradient.
    """
    seed = int(torch.randint(2**31 - 1, ())) if options.dropout else 0
    lengths = None if lengths is None else lengths.to(query.device).contiguous()
    inputs = [_with_contiguous_rows(x) for x in (query, key, value)]
    return _Attention.apply(*inputs, lengths, options, seed)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None, options: FractalOptions, seed: int
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, lengths)
        ctx.options, ctx.seed = options, seed
        return _run_forward((query, key, value), lengths, options, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, lengths = ctx.saved_tensors
        return *_run_backward(tuple(inputs), gradient, lengths, ctx.options, ctx.seed), None, None, None


Inputs = tuple[Tensor, Tensor, Tensor]


def _run_forward(inputs: Inputs, lengths: Tensor | None, options: FractalOptions, seed: int) -> Tensor:
    from affekt.models.layers.fractal.gpu_kernels import attend_kernel

    query = inputs[0]
    constants, work = _divide(query, options, lengths, FORWARD)
    output = query.new_empty(query.shape)
    memory = _allocate_buffer(query, work.programs * (4 * constants.rows + constants.scales - 1) * constants.width)
    streams = (inputs, tuple(_strides(x) for x in inputs), output, _strides(output))
    with _device_of(query):
        attend_kernel[(work.programs,)](
            *streams,
            query if lengths is None else lengths,
            memory,
            seed,
            *_sizes(query, options, work),
            constants,
            **_compile_options(FORWARD),
        )
    return output


def _run_backward(
    inputs: Inputs, gradient: Tensor, lengths: Tensor | None, options: FractalOptions, seed: int
) -> Inputs:
    from affekt.models.layers.fractal.gpu_kernels import differentiate_kernel

    query, gradient = inputs[0], _with_contiguous_rows(gradient)
    constants, work = _divide(query, options, lengths, BACKWARD)
    outputs = (query.new_empty(query.shape), query.new_empty(query.shape), query.new_empty(query.shape))
    memory = _allocate_buffer(query, work.programs * 6 * constants.rows * constants.width)
    streams = (inputs, tuple(_strides(x) for x in inputs), gradient, _strides(gradient), outputs, _strides(outputs[0]))
    with _device_of(query):
        differentiate_kernel[(work.programs,)](
            *streams,
            query if lengths is None else lengths,
            memory,
            seed,
            *_sizes(query, options, work),
            constants,
            **_compile_options(BACKWARD),
        )
    return outputs


def _divide(
    query: Tensor, options: FractalOptions, lengths: Tensor | None, launch: Launch
) -> tuple[KernelConstants, Schedule]:
    """Return the constants of a kernel and the division of its work into programs."""
    batch, frames, dim = query.shape
    constants = kernel_constants(
        options,
        width=dim // options.heads,
        frames=frames,
        elements=launch.elements,
        ragged=lengths is not None,
        double=query.dtype == torch.float64,
    )
    processors = MULTIPROCESSORS
    if query.is_cuda:
        processors = torch.cuda.get_device_properties(query.device).multi_processor_count
    return constants, schedule(
        constants, heads=batch * options.heads, frames=frames, programs=launch.programs * processors
    )


def _sizes(query: Tensor, options: FractalOptions, work: Schedule) -> tuple[int, ...]:
    """Return the arguments of a kernel from `heads` to `items_per_program`."""
    return options.heads, query.shape[1], work.tiles, work.items, work.items_per_program


def _compile_options(launch: Launch) -> dict[str, Any]:
    # No software pipelining (one stage): other programs hide the latency of reading, and a pipeline would read a program's
    # buffer before it is written.
    options = {"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": True}
    return options if torch.version.hip else {**options, "maxnreg": launch.registers}


def _allocate_buffer(query: Tensor, size: int) -> Tensor:
    """Allocate the buffers in which the programs keep their coarse scales. They are small enough to remain in a cache."""
    return query.new_empty(size, dtype=torch.float64 if query.dtype == torch.float64 else torch.float32)


def _device_of(query: Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext()


def _strides(x: Tensor) -> tuple[int, int]:
    return x.stride(0), x.stride(1)


def _with_contiguous_rows(x: Tensor) -> Tensor:
    """Return x with a contiguous last axis; copied only if necessary."""
    return x if x.stride(2) == 1 else x.contiguous()


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
