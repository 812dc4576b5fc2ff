"""What the kernels of fractal attention on a GPU are made of, in Triton.

`count` is how many frames an utterance has at a scale, `first` the tile's first of them, a row a frame counted from there, a
place that within its window. Blocks are (windows, lanes), where `lanes` is the head's width up to the next power of two. A
stream is a pointer to a tile's first row, and the stride of rows. A program's own memory, which no other program sees, holds
what the coarse scales of one tile need.
"""

# mypy: ignore-errors
# A kernel is Triton's language in Python's letters; a type checker knows only the letters. Nor do these functions take
# decorators: Triton compiles their source.

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

RATIO_OF_GELU = tl.constexpr(0.7071067811865476)  # 1 / sqrt(2)
DENSITY_AT_ZERO = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)
NOTHING = tl.constexpr(-1e9)  # stands for minus infinity in a softmax, as in the plain formulation


@triton.jit
@no_type_check
def load(stream, row, real, form: tl.constexpr):
    """Rows of one stream, (windows, lanes), zero where they are not real."""
    base, stride = stream
    feature = tl.arange(0, form.lanes)
    mask = real[:, None] & (feature < form.width)[None, :]
    x = tl.load(base + row[:, None].to(tl.int64) * stride + feature[None, :], mask=mask, other=0.0)
    return x.to(tl.float64 if form.double else tl.float32)


@triton.jit
@no_type_check
def store(stream, row, real, x, form: tl.constexpr):
    base, stride = stream
    feature = tl.arange(0, form.lanes)
    mask = real[:, None] & (feature < form.width)[None, :]
    tl.store(base + row[:, None].to(tl.int64) * stride + feature[None, :], x.to(base.dtype.element_ty), mask=mask)


@triton.jit
@no_type_check
def load_places(stream, window, first, count, form: tl.constexpr):
    """The frames of these windows, place by place."""
    factor: tl.constexpr = form.factor
    places = ()
    for place in tl.static_range(factor):
        row = window * factor + place
        places = places + (load(stream, row, first + row < count, form),)  # noqa: RUF005
    return places


@triton.jit
@no_type_check
def held(memory, kind: tl.constexpr, form: tl.constexpr, scale: tl.constexpr):
    """Three streams of a coarse scale in the program's memory: its query, key and value (0), or their gradients (3)."""
    width: tl.constexpr = form.width
    stream: tl.constexpr = form.rows * width
    base = memory + (kind * stream + form.starts[scale] * width)
    return (base, width), (base + stream, width), (base + 2 * stream, width)


@triton.jit
@no_type_check
def pool(streams, memory, tile, length, form: tl.constexpr, scale: tl.constexpr):
    """Means of a tile's windows at `scale`, into the program's memory: the frames of the next scale."""
    factor: tl.constexpr = form.factor
    block: tl.constexpr = form.blocks[scale]
    frames: tl.constexpr = form.tile // factor**scale
    windows: tl.constexpr = frames // factor
    share: tl.constexpr = 1.0 / factor
    targets = held(memory, 0, form, scale + 1)
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        real = window < windows
        # A last window that is not full makes a frame beyond the next scale's count: nobody reads it.
        limit = tl.where(real, length // factor**scale, 0)
        for number in tl.static_range(3):
            places = load_places(streams[number], window, tile * frames, limit, form)
            total = places[0]
            for place in tl.static_range(1, factor):
                total += places[place]
            store(targets[number], window, real, total * share, form)


@triton.jit
@no_type_check
def softmax(query, keys, window, first, count, form: tl.constexpr):
    """One query's weights in each window, a (windows,) for every key."""
    factor: tl.constexpr = form.factor
    scores = ()
    for place in tl.static_range(factor):
        score = tl.sum(query * keys[place], axis=1) * form.sharpness
        if form.mask_window_padding:
            score = tl.where(first + window * factor + place < count, score, NOTHING)
        scores = scores + (score,)  # noqa: RUF005
    most = scores[0]
    for place in tl.static_range(1, factor):
        most = tl.maximum(most, scores[place])
    powers = ()
    total = tl.zeros_like(most)
    for place in tl.static_range(factor):
        power = tl.exp(scores[place] - most)
        total += power
        powers = powers + (power,)  # noqa: RUF005
    weights = ()
    for place in tl.static_range(factor):
        weights = weights + (powers[place] / total,)  # noqa: RUF005
    return weights


@triton.jit
@no_type_check
def dropped(weights, seed, head, scale: tl.constexpr, window, place: tl.constexpr, form: tl.constexpr):
    """The weights after dropout. What is dropped is a function of the seed and of where a weight stands, and of nothing else:
    the way back finds it again."""
    factor: tl.constexpr = form.factor
    if form.dropout == 0.0:
        return weights
    growth: tl.constexpr = 1.0 / (1.0 - form.dropout) if form.dropout < 1.0 else 0.0
    none = tl.zeros_like(window)
    left = ()
    for group in tl.static_range((factor + 3) // 4):
        four = tl.philox(seed, window, none + head, none + (scale * factor + place), none + group)
        for number in tl.static_range(4):
            if group * 4 + number < factor:
                kept = tl.uint_to_uniform_float(four[number]) >= form.dropout
                left = left + (tl.where(kept, weights[group * 4 + number] * growth, 0.0),)  # noqa: RUF005
    return left


@triton.jit
@no_type_check
def mixed(weights, values, form: tl.constexpr):
    factor: tl.constexpr = form.factor
    mixed = weights[0][:, None] * values[0]
    for place in tl.static_range(1, factor):
        mixed += weights[place][:, None] * values[place]
    return mixed


@triton.jit
@no_type_check
def gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * RATIO_OF_GELU))


@triton.jit
@no_type_check
def gelu_slope(x):
    return 0.5 * (1.0 + tl.erf(x * RATIO_OF_GELU)) + x * tl.exp(-0.5 * x * x) * DENSITY_AT_ZERO


@triton.jit
@no_type_check
def item(number, tiles, heads, lengths, frames, form: tl.constexpr):
    """An item: its tile, its head among all of the batch, its head, its utterance, and how long that is."""
    tile, chain = number % tiles, number // tiles
    utterance = chain // heads
    length = frames
    if form.ragged:
        length = tl.minimum(tl.maximum(tl.load(lengths + utterance).to(tl.int32), 0), frames)
    return tile, chain, chain % heads, utterance, length


@triton.jit
@no_type_check
def stream(base, strides, utterance, frame, head, form: tl.constexpr):
    """The stream of one head of an utterance, from `frame` on."""
    return base + utterance.to(tl.int64) * strides[0] + frame.to(tl.int64) * strides[1] + head * form.width, strides[1]
