"""Fractal attention on a GPU, all scales in one kernel each way: the sum of `torch_ops.fractal_scales`, differentiable.

What costs here is memory, not arithmetic: at each scale a frame meets `factor` others. With N = batch * frames * dim numbers

    there   query, key and value are read, the output is written                                     4 N
    back    query, key, value and the output's gradient are read, three gradients written            7 N

cross the card's memory (`bytes_moved`), and nothing else of that size exists. A program asks for an element twice, for the
means of the coarse scales and, microseconds later, for the finest scale; the second time a cache has it. With the coarse
scales in a buffer of their own, made by a first kernel, the inputs would be read twice and the buffer, 0.48 N for three
coarse scales of factor 3, written and read: 8 N, and half of the bandwidth the most that could be had.

The work is cut into tiles of `factor**scales` frames (or several) of one head: whole windows of the coarsest scale, so that
a tile's means need no other tile. Up-sampling, frame i of T taking floor(i * n / T), lags behind by up to one coarse frame
where T is no multiple: the first frames of a tile can need the last coarse frame of the tile before. A program therefore
walks through many tiles in order and keeps those coarse frames; it begins one tile early, which costs a tile's reading for
each program, not for each tile. On the way back nothing is kept: what the means hand down nests, and a coarse frame's
gradient is a sum over frames of the output's gradient, of which some are read ahead.

There are no atomic operations, and nothing is chosen by timing: the same inputs give the same bits on the same card. Sums
are in 32 bits, in 64 for 64-bit inputs. Unmeasured: the kernels have been compiled for a card, and tested in Triton's
interpreter, but none has run them yet. `benchmarks/fractal_gpu.py` measures.
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

from affekt.models.layers.fractal.gpu_plan import Form, Walk, form_for, walk_for
from affekt.models.layers.fractal.options import FractalOptions
from affekt.models.layers.shapes import Frames

PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_FACTOR = 16  # every pair of places in a window is written out in the kernel: beyond, compiling takes minutes
CAPABILITY = (8, 0)  # of the oldest cards that Triton and bfloat16 are for
MULTIPROCESSORS = 4  # that the interpreter plays
WARPS = 4


class Launch(NamedTuple):
    """elements: of one block of one stream, eight or four for each of 128 threads. registers: of a thread, at most; programs:
    for each multiprocessor, as many as have room there at once, so that some read while others compute."""

    elements: int
    registers: int
    programs: int


THERE, BACK = Launch(1024, 128, 4), Launch(512, 168, 3)


def supports(query: Tensor, options: FractalOptions) -> bool:
    """Whether `attend` can do this: Triton, a card that it makes code for (or its interpreter), and a factor up to 16."""
    able = torch.cuda.get_device_capability(query.device) >= CAPABILITY if query.is_cuda else _interpreted()
    return (
        able
        and importlib.util.find_spec("triton") is not None
        and query.dtype in PRECISIONS
        and 2 <= options.factor <= MOST_FACTOR
    )


def attend(
    query: Frames,
    key: Frames,
    value: Frames,
    options: FractalOptions,
    lengths: Int[Tensor, " batch"] | None = None,
) -> Frames:
    """The sum over scales that `fractal_attention` gives, (batch, frames, dim) in and out, without W^O.

    Inputs may be strided views whose last axis is contiguous, as the thirds of a fused projection are: they are not copied.
    lengths: frames of each utterance; each is computed as if alone at its own length, with zeros behind it, and no gradient
        reaches its padding.
    Dropout draws one number from torch's generator; which weights are dropped follows from that and from where they stand.
    """
    seed = int(torch.randint(2**31 - 1, ())) if options.dropout else 0
    lengths = None if lengths is None else lengths.to(query.device).contiguous()
    inputs = [_with_rows(x) for x in (query, key, value)]
    return _Attention.apply(*inputs, lengths, options, seed)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None, options: FractalOptions, seed: int
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, lengths)
        ctx.options, ctx.seed = options, seed
        return _attended((query, key, value), lengths, options, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, lengths = ctx.saved_tensors
        return *_gradients(tuple(inputs), gradient, lengths, ctx.options, ctx.seed), None, None, None


Inputs = tuple[Tensor, Tensor, Tensor]


def _attended(inputs: Inputs, lengths: Tensor | None, options: FractalOptions, seed: int) -> Tensor:
    from affekt.models.layers.fractal.gpu_kernels import attend_kernel

    query = inputs[0]
    form, walk = _cut(query, options, lengths, THERE)
    output = query.new_empty(query.shape)
    memory = _memory(query, walk.programs * (4 * form.rows + form.scales - 1) * form.width)
    streams = (inputs, tuple(_strides(x) for x in inputs), output, _strides(output))
    with _on(query):
        attend_kernel[(walk.programs,)](
            *streams,
            query if lengths is None else lengths,
            memory,
            seed,
            *_sizes(query, options, walk),
            form,
            **_options(THERE),
        )
    return output


def _gradients(inputs: Inputs, slope: Tensor, lengths: Tensor | None, options: FractalOptions, seed: int) -> Inputs:
    from affekt.models.layers.fractal.gpu_kernels import differentiate_kernel

    query, slope = inputs[0], _with_rows(slope)
    form, walk = _cut(query, options, lengths, BACK)
    outputs = (query.new_empty(query.shape), query.new_empty(query.shape), query.new_empty(query.shape))
    memory = _memory(query, walk.programs * 6 * form.rows * form.width)
    streams = (inputs, tuple(_strides(x) for x in inputs), slope, _strides(slope), outputs, _strides(outputs[0]))
    with _on(query):
        differentiate_kernel[(walk.programs,)](
            *streams,
            query if lengths is None else lengths,
            memory,
            seed,
            *_sizes(query, options, walk),
            form,
            **_options(BACK),
        )
    return outputs


def _cut(query: Tensor, options: FractalOptions, lengths: Tensor | None, launch: Launch) -> tuple[Form, Walk]:
    batch, frames, dim = query.shape
    form = form_for(
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
    return form, walk_for(form, heads=batch * options.heads, frames=frames, programs=launch.programs * processors)


def _sizes(query: Tensor, options: FractalOptions, walk: Walk) -> tuple[int, ...]:
    return options.heads, query.shape[1], walk.tiles, walk.items, walk.share


def _options(launch: Launch) -> dict[str, Any]:
    # Reading ahead is the other programs' part; a pipeline would read a program's memory before it is written.
    options = {"num_warps": WARPS, "num_stages": 1, "enable_fp_fusion": True}
    return options if torch.version.hip else {**options, "maxnreg": launch.registers}


def _memory(query: Tensor, size: int) -> Tensor:
    """What programs keep of their coarse scales: written and read while it lies in a cache."""
    return query.new_empty(size, dtype=torch.float64 if query.dtype == torch.float64 else torch.float32)


def _on(query: Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext()


def _strides(x: Tensor) -> tuple[int, int]:
    return x.stride(0), x.stride(1)


def _with_rows(x: Tensor) -> Tensor:
    """x with its last axis contiguous."""
    return x if x.stride(2) == 1 else x.contiguous()


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
