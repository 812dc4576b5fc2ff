"""The functions that the kernels of fractal attention on a GPU call, in Triton.

Terms in the functions and kernels:
- `count`: number of frames of an utterance at a scale; `length` is the count at the finest scale.
- `first`: first frame of a tile at a scale. `row`: a frame counted from there. `slot`: position of a frame in its window.
- block: a tensor (windows, lanes), where `lanes` is a head's width rounded up to a power of two. It has one frame of each
  window, so that a window is a tuple of `factor` blocks, one for each slot.
- stream: a pointer to a tile's first row, and the stride of its rows.
- `memory`: a program's own buffer for the coarse scales of one tile.
"""

# mypy: ignore-errors
# Kernels are written in Triton's language, which type checkers treat as Python. The functions cannot have other decorators
# either, since Triton compiles their source.

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

GELU_FACTOR = tl.constexpr(0.7071067811865476)  # 1 / sqrt(2)
DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)
NEGATIVE = tl.constexpr(-1e9)  # used instead of minus infinity in a softmax, as in the torch implementation


@triton.jit
@no_type_check
def load(stream, row, real, constants: tl.constexpr):
    """Load rows of one stream, (windows, lanes), with zeros where `real` is false."""
    base, stride = stream
    feature = tl.arange(0, constants.lanes)
    mask = real[:, None] & (feature < constants.width)[None, :]
    x = tl.load(base + row[:, None].to(tl.int64) * stride + feature[None, :], mask=mask, other=0.0)
    return x.to(tl.float64 if constants.double else tl.float32)


@triton.jit
@no_type_check
def store(stream, row, real, x, constants: tl.constexpr):
    """Store x, (windows, lanes), in the rows for which `real` is true."""
    base, stride = stream
    feature = tl.arange(0, constants.lanes)
    mask = real[:, None] & (feature < constants.width)[None, :]
    tl.store(base + row[:, None].to(tl.int64) * stride + feature[None, :], x.to(base.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def load_windows(stream, window, first, count, constants: tl.constexpr):
    """Load the frames of these windows, one block for each slot."""
    factor: tl.constexpr = constants.factor
    rows = ()
    for slot in tl.static_range(factor):
        row = window * factor + slot
        rows = rows + (load(stream, row, first + row < count, constants),)  # noqa: RUF005
    return rows


@triton.jit
@no_type_check
def coarse_streams(memory, kind: tl.constexpr, constants: tl.constexpr, scale: tl.constexpr):
    """Return three streams of a coarse scale in the program's buffer: query, key and value (kind 0) or their gradients (kind
    3)."""
    width: tl.constexpr = constants.width
    stream: tl.constexpr = constants.rows * width
    base = memory + (kind * stream + constants.starts[scale] * width)
    return (base, width), (base + stream, width), (base + 2 * stream, width)


@triton.jit
@no_type_check
def pool(streams, memory, tile, length, constants: tl.constexpr, scale: tl.constexpr):
    """Write the means of a tile's windows at `scale`, the frames of the next scale, into the program's buffer."""
    factor: tl.constexpr = constants.factor
    block: tl.constexpr = constants.blocks[scale]
    frames: tl.constexpr = constants.tile // factor**scale
    windows: tl.constexpr = frames // factor
    weight: tl.constexpr = 1.0 / factor
    targets = coarse_streams(memory, 0, constants, scale + 1)
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        real = window < windows
        # The mean of an incomplete last window is beyond the next scale's count, so it is never read.
        limit = tl.where(real, length // factor**scale, 0)
        for index in tl.static_range(3):
            rows = load_windows(streams[index], window, tile * frames, limit, constants)
            total = rows[0]
            for slot in tl.static_range(1, factor):
                total += rows[slot]
            store(targets[index], window, real, total * weight, constants)


@triton.jit
@no_type_check
def softmax(query, keys, window, first, count, constants: tl.constexpr):
    """Return the attention weights of one query of each window: a tuple with one tensor, (windows,), for every key."""
    factor: tl.constexpr = constants.factor
    scores = ()
    for slot in tl.static_range(factor):
        score = tl.sum(query * keys[slot], axis=1) * constants.score_scale
        if constants.mask_window_padding:
            score = tl.where(first + window * factor + slot < count, score, NEGATIVE)
        scores = scores + (score,)  # noqa: RUF005
    largest = scores[0]
    for slot in tl.static_range(1, factor):
        largest = tl.maximum(largest, scores[slot])
    powers = ()
    total = tl.zeros_like(largest)
    for slot in tl.static_range(factor):
        power = tl.exp(scores[slot] - largest)
        total += power
        powers = powers + (power,)  # noqa: RUF005
    weights = ()
    for slot in tl.static_range(factor):
        weights = weights + (powers[slot] / total,)  # noqa: RUF005
    return weights


@triton.jit
@no_type_check
def apply_dropout(weights, seed, head, scale: tl.constexpr, window, slot: tl.constexpr, constants: tl.constexpr):
    """Return the weights after dropout. The random numbers depend only on the seed and the position, so the backward
    pass draws the same ones. The generator, Philox, returns four numbers for each seed and position."""
    factor: tl.constexpr = constants.factor
    if constants.dropout == 0.0:
        return weights
    gain: tl.constexpr = 1.0 / (1.0 - constants.dropout) if constants.dropout < 1.0 else 0.0
    zeros = tl.zeros_like(window)
    after_dropout = ()
    for group in tl.static_range((factor + 3) // 4):
        draws = tl.philox(seed, window, zeros + head, zeros + (scale * factor + slot), zeros + group)
        for index in tl.static_range(4):
            if group * 4 + index < factor:
                keep = tl.uint_to_uniform_float(draws[index]) >= constants.dropout
                after_dropout = after_dropout + (tl.where(keep, weights[group * 4 + index] * gain, 0.0),)  # noqa: RUF005
    return after_dropout


@triton.jit
@no_type_check
def weighted_sum(weights, values, constants: tl.constexpr):
    """Return the sum of a window's values, weighted for one query, (windows, lanes)."""
    factor: tl.constexpr = constants.factor
    total = weights[0][:, None] * values[0]
    for slot in tl.static_range(1, factor):
        total += weights[slot][:, None] * values[slot]
    return total


@triton.jit
@no_type_check
def gelu(x):
    """Return the exact GELU of x, elementwise."""
    return 0.5 * x * (1.0 + tl.erf(x * GELU_FACTOR))


@triton.jit
@no_type_check
def gelu_slope(x):
    """Return the derivative of GELU at x, elementwise."""
    return 0.5 * (1.0 + tl.erf(x * GELU_FACTOR)) + x * tl.exp(-0.5 * x * x) * DENSITY_AT_ZERO


@triton.jit
@no_type_check
def locate_item(number, tiles, heads, lengths, frames, constants: tl.constexpr):
    """Return an item's tile, its head (counted over the whole batch, then within the utterance), its utterance, and the
    utterance's length."""
    tile, batch_head = number % tiles, number // tiles
    utterance = batch_head // heads
    length = frames
    if constants.ragged:
        length = tl.minimum(tl.maximum(tl.load(lengths + utterance).to(tl.int32), 0), frames)
    return tile, batch_head, batch_head % heads, utterance, length


@triton.jit
@no_type_check
def stream(base, strides, utterance, frame, head, constants: tl.constexpr):
    """Return the stream of one head of an utterance, from `frame` on."""
    start = utterance.to(tl.int64) * strides[0] + frame.to(tl.int64) * strides[1] + head * constants.width
    return base + start, strides[1]
