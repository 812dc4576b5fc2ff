"""Fractal attention on a CPU: torch's interface to the kernels in `cpu_kernels`.

numba compiles the kernels on their first call, for 32 or 64 bits, and caches them on disk. This takes half a minute for the
forward and the backward pass, once on each machine. If there is enough work, the kernels run in as many threads as torch is
set to use.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from affekt.models.layers.fractal.options import FractalOptions
from affekt.models.layers.shapes import Frames
from affekt.models.layers.threads import run_in_parallel

if TYPE_CHECKING:
    from affekt.models.layers.fractal.cpu_kernels import KernelOptions

# Type of the inputs -> type of the computation.
COMPUTE_DTYPES = {torch.float32: torch.float32, torch.float64: torch.float64, torch.bfloat16: torch.float32}
MAX_SERIAL_SIZE = 2**19  # frames times features; up to this size, starting a second thread takes longer than it saves
MAX_IMBALANCE = 1.15  # ratio of the largest to the mean load of a thread; above it, work is divided by heads
HUGE_PAGE = 2**21  # bytes


def supports(query: Tensor, options: FractalOptions) -> bool:  # noqa: ARG001 (all options are supported)
    """Return whether `attend` can compute this: numba is installed and the tensors are on a CPU."""
    return query.device.type == "cpu" and query.dtype in COMPUTE_DTYPES and _has_numba()


@functools.cache
def _has_numba() -> bool:
    if importlib.util.find_spec("numba") is None:
        return False
    from numba import config

    return not getattr(config, "DISABLE_JIT", False)


def attend(
    query: Frames,
    key: Frames,
    value: Frames,
    options: FractalOptions,
    lengths: Int[Tensor, " batch"] | None = None,
) -> Frames:
    """Return the sum of `torch_ops.fractal_scales` over all scales, with zeros in the padding.

    16-bit tensors are converted to 32 bits. `lengths` is the number of real frames of each utterance; None means all.
    """
    precision = COMPUTE_DTYPES[query.dtype]
    streams = [x.to(precision) for x in (query, key, value)]
    return _Attention.apply(*streams, options, lengths).to(query.dtype)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, options: FractalOptions, lengths: Tensor | None
    ) -> Tensor:
        from affekt.models.layers.fractal import cpu_kernels

        batch, frames, dim = query.shape
        counts = np.full(batch, frames) if lengths is None else lengths.numpy().astype(np.int64)
        seed = int(torch.randint(2**63 - 1, (), device="cpu")) if options.dropout else 0
        settings = _kernel_options(options, dim, query.dtype, seed)
        out = _empty_like(query)
        columns, streams = _as_rows(query, key, value)
        run_in_parallel(
            lambda tasks: cpu_kernels.forward(*streams, columns, _flat(out), frames, tasks, counts, tuple(settings)),
            _divide_work(counts, dim, options.heads),
        )
        ctx.save_for_backward(query, key, value)
        ctx.counts, ctx.settings = counts, settings
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from affekt.models.layers.fractal import cpu_kernels

        query, key, value = ctx.saved_tensors
        _, frames, dim = query.shape
        gradients = [_empty_like(query) for _ in range(3)]
        output_gradient, out = _flat(gradient.contiguous()), [_flat(x) for x in gradients]
        columns, streams = _as_rows(query, key, value)
        run_in_parallel(
            lambda tasks: cpu_kernels.backward(
                *streams, columns, output_gradient, *out, frames, tasks, ctx.counts, tuple(ctx.settings)
            ),
            _divide_work(ctx.counts, dim, ctx.settings.heads),
        )
        return *gradients, None, None


@functools.lru_cache(maxsize=64)
def _kernel_options(options: FractalOptions, dim: int, dtype: torch.dtype, seed: int) -> KernelOptions:
    from affekt.models.layers.fractal.cpu_kernels import KernelOptions

    number = np.float64 if dtype == torch.float64 else np.float32
    temperature = options.temperature or (dim / options.heads) ** 0.5
    return KernelOptions(
        options.heads,
        options.factor,
        options.scales,
        options.mask_window_padding,
        options.upsampling == "repeat",
        number(1 / temperature),
        number(1 / (1 - options.dropout)),
        np.uint32(min(int(options.dropout * 2**32), 2**32 - 1)),
        np.uint64(seed),
    )


def _as_rows(*streams: Tensor) -> tuple[tuple[int, ...], list[NDArray[Any]]]:
    """Return the column of each stream's first feature, and each stream as an array with a row for every frame, (batch *
    frames, row).

    The arrays are views where possible: the thirds of one fused projection are columns of the same array. Tensors with
    other strides are copied.
    """
    columns, arrays = list[int](), []
    for x in streams:
        (batch, frames, dim), row, offset = x.shape, x.stride(1), int(x.storage_offset())
        first = offset % row if row else 0
        end = (offset - first + batch * frames * row) * x.element_size()
        regular = x.stride(2) == 1 and (batch == 1 or x.stride(0) == frames * row)
        if not regular or first + dim > row or end > x.untyped_storage().nbytes():
            x, row, first = x.clone(memory_format=torch.contiguous_format), dim, 0
            offset = 0
        columns.append(first)
        arrays.append(x.detach().as_strided((batch * frames, row), (row, 1), offset - first).numpy())
    return tuple(columns), arrays


def _flat(x: Tensor) -> NDArray[Any]:
    return x.detach().view(-1, x.shape[2]).numpy()


def _empty_like(like: Tensor) -> Tensor:
    """Allocate an uninitialized contiguous tensor. On Linux, request huge pages for it: for large results, allocating small
    pages would take most of the time."""
    memory = torch.empty(like.shape, dtype=like.dtype)
    start = -(-memory.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    size = (memory.data_ptr() + memory.nbytes) // HUGE_PAGE * HUGE_PAGE - start
    advise = _load_madvise()
    if size > 0 and advise:
        advise(start, size)
    return memory


@functools.cache
def _load_madvise() -> Callable[[int, int], object] | None:
    """Return a function that requests huge pages, given a memory block's address and size; None except on Linux."""
    import ctypes

    if sys.platform != "linux":
        return None
    huge_pages = 14  # MADV_HUGEPAGE
    advise = ctypes.CDLL(None).madvise
    return lambda start, size: advise(ctypes.c_void_p(start), ctypes.c_size_t(size), huge_pages)


def _divide_work(lengths: NDArray[np.int64], dim: int, heads: int) -> list[NDArray[np.int64]]:
    """Return the tasks of each thread, as an array with rows (utterance, first head, last head + 1).

    Threads get whole utterances, longest first. If their loads would be too uneven, each thread gets some heads of all
    utterances instead.
    """
    threads = torch.get_num_threads() if int(lengths.sum()) * dim > MAX_SERIAL_SIZE else 1
    if threads == 1:
        return [np.array([(utterance, 0, heads) for utterance in range(len(lengths))], np.int64)]
    work: list[list[tuple[int, int, int]]] = [[] for _ in range(threads)]
    loads = [0] * threads
    for utterance in np.argsort(-lengths, kind="stable").tolist():
        lightest = loads.index(min(loads))
        loads[lightest] += int(lengths[utterance])
        work[lightest].append((utterance, 0, heads))
    if max(loads) * threads > MAX_IMBALANCE * sum(loads):
        edges = [heads * thread // threads for thread in range(threads + 1)]
        work = [
            [(utterance, head, end) for utterance in range(len(lengths)) if head < end]
            for head, end in itertools.pairwise(edges)
        ]
    return [np.array(tasks, np.int64) for tasks in work if tasks]
