"""The two kernels of fractal attention on a GPU, in Triton: `gpu` says how they go about it, and launches them.

The words are those of `fractal_gpu_parts`. A barrier stands between what is written to a program's memory and what reads it.
"""

# mypy: ignore-errors
# As in `fractal_gpu_parts`.

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from affekt.models.layers.fractal.gpu_functions import (
    dropped,
    gelu,
    gelu_slope,
    held,
    item,
    load,
    load_places,
    mixed,
    pool,
    softmax,
    store,
    stream,
)

AHEAD = tl.constexpr(4)  # frames of the gradient that are asked for before the first is added


@triton.jit
@no_type_check
def _ring(memory, form: tl.constexpr, scale: tl.constexpr):
    """The output of a coarse scale in the program's memory: one row more than a tile has, so that when a tile is written
    the last row of the tile before stays."""
    return memory + (3 * form.rows + form.starts[scale] + scale - 1) * form.width, form.width


@triton.jit
@no_type_check
def _attend_scale(memory, tile, length, seed, head, form: tl.constexpr, scale: tl.constexpr):
    """A coarse scale's output for one tile."""
    factor: tl.constexpr = form.factor
    block: tl.constexpr = form.blocks[scale]
    frames: tl.constexpr = form.tile // factor**scale
    windows: tl.constexpr = frames // factor
    first, count = tile * frames, length // factor**scale
    query, key, value = held(memory, 0, form, scale)
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        real = window < windows
        limit = tl.where(real, count, 0)
        keys = load_places(key, window, first, limit, form)
        values = load_places(value, window, first, limit, form)
        for place in tl.static_range(factor):
            row = window * factor + place
            weights = softmax(load(query, row, first + row < limit, form), keys, window, first, count, form)
            weights = dropped(weights, seed, head, scale, tile * windows + window, place, form)
            output = gelu(mixed(weights, values, form))
            store(_ring(memory, form, scale), (first + row) % (frames + 1), real, output, form)


@triton.jit
@no_type_check
def _upsampled(memory, frame, length, form: tl.constexpr, scale: tl.constexpr):
    """What a coarse scale gives to these frames: frame floor(i * count / length) of it, or floor(i / size) if repeated.

    The first is the second, or one less: with i = coarse * size + within and length = count * size + rest it is less where
    within * count < coarse * rest, and neither product is larger than length.
    """
    size: tl.constexpr = form.factor**scale
    ring: tl.constexpr = form.tile // size + 1
    count = length // size
    coarse = frame // size
    if form.repeat:
        source = tl.minimum(coarse, count - 1)
    else:
        late = (frame - coarse * size) * count < coarse * (length - count * size)
        source = tl.where(late, coarse - 1, coarse)
    return load(_ring(memory, form, scale), source % ring, (frame < length) & (count > 0), form)


@triton.jit
@no_type_check
def _attend_tile(streams, output, memory, tile, length, end, seed, head, form: tl.constexpr):
    """The finest scale's output for one tile, the coarse ones added; zeros from an utterance's length to the batch's end."""
    factor: tl.constexpr = form.factor
    scales: tl.constexpr = form.scales
    block: tl.constexpr = form.blocks[0]
    windows: tl.constexpr = form.tile // factor
    first = tile * form.tile
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        limit = tl.where(window < windows, length, 0)
        keys = load_places(streams[1], window, first, limit, form)
        values = load_places(streams[2], window, first, limit, form)
        for place in tl.static_range(factor):
            row = window * factor + place
            frame = first + row
            real = frame < limit
            weights = softmax(load(streams[0], row, real, form), keys, window, first, length, form)
            weights = dropped(weights, seed, head, 0, tile * windows + window, place, form)
            total = gelu(mixed(weights, values, form))
            for scale in tl.static_range(1, scales):
                total += _upsampled(memory, frame, limit, form, scale)
            total = tl.where(real[:, None], total, 0.0)
            store(output, row, (window < windows) & (frame < end), total, form)


@triton.jit(do_not_specialize=["seed", "heads", "frames", "tiles", "items", "share"])
@no_type_check
def attend_kernel(
    inputs, strides, output, by, lengths, memory, seed, heads, frames, tiles, items, share, form: tl.constexpr
):
    """The way there. `inputs` are query, key and value, `strides` theirs of utterances and frames, `by` the output's.

    An item is one tile of one head of one utterance; a program does `share` items in a row, and before them the coarse
    scales of the tile before, whose last coarse frames its first frames may need.
    """
    scales: tl.constexpr = form.scales
    program = tl.program_id(0)
    memory += program.to(tl.int64) * ((4 * form.rows + scales - 1) * form.width)
    begin = program * share
    lead = tl.where((begin % tiles > 0) & (scales > 1), 1, 0)
    for number in range(begin - lead, tl.minimum(begin + share, items)):
        tile, chain, head, utterance, length = item(number, tiles, heads, lengths, frames, form)
        frame = tile * form.tile
        streams = (
            stream(inputs[0], strides[0], utterance, frame, head, form),
            stream(inputs[1], strides[1], utterance, frame, head, form),
            stream(inputs[2], strides[2], utterance, frame, head, form),
        )
        if scales > 1:
            pool(streams, memory, tile, length, form, 0)
            tl.debug_barrier()
            for scale in tl.static_range(1, scales):
                if scale + 1 < scales:
                    pool(held(memory, 0, form, scale), memory, tile, length, form, scale)
                _attend_scale(memory, tile, length, seed, chain, form, scale)
                tl.debug_barrier()
        if number >= begin:
            target = stream(output, by, utterance, frame, head, form)
            _attend_tile(streams, target, memory, tile, length, frames, seed, chain, form)


@triton.jit
@no_type_check
def _received(gradient, row, tile, length, real, form: tl.constexpr, scale: tl.constexpr):
    """The gradient that reaches a scale's frames: the sum of the output's over the frames that take each of them."""
    size: tl.constexpr = form.factor**scale
    ahead: tl.constexpr = AHEAD if size >= AHEAD else size + 1
    block: tl.constexpr = form.blocks[scale]
    lanes: tl.constexpr = form.lanes
    count = length // size
    rest = length - count * size
    coarse = tile * (form.tile // size) + row
    begin, end = coarse * size, (coarse + 1) * size
    if form.repeat:
        end = tl.where(coarse + 1 == count, length, end)
        longest = size + rest
    else:
        some = tl.maximum(count, 1)
        begin += (coarse * rest + some - 1) // some
        end += ((coarse + 1) * rest + some - 1) // some
        longest = size + (rest + some - 1) // some
    end = tl.where(real & (coarse < count), end, begin)
    total = tl.zeros((block, lanes), tl.float64 if form.double else tl.float32)
    for start in range(0, longest, ahead):
        for step in tl.static_range(ahead):
            frame = begin + start + step
            total += load(gradient, frame - tile * form.tile, frame < end, form)
    return total


@triton.jit
@no_type_check
def _differentiate(
    streams, gradient, targets, memory, tile, length, end, seed, head, form: tl.constexpr, scale: tl.constexpr
):
    """The gradients of a scale's query, key and value for one tile: of its own attention, and of the next scale's frames,
    which are means of its own. Zeros from its count to `end`."""
    factor: tl.constexpr = form.factor
    block: tl.constexpr = form.blocks[scale]
    frames: tl.constexpr = form.tile // factor**scale
    windows: tl.constexpr = frames // factor
    part: tl.constexpr = 1.0 / factor
    first, count = tile * frames, length // factor**scale
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        real = window < windows
        limit = tl.where(real, count, 0)
        queries = load_places(streams[0], window, first, limit, form)
        keys = load_places(streams[1], window, first, limit, form)
        values = load_places(streams[2], window, first, limit, form)
        none = tl.zeros_like(queries[0])
        above = (none, none, none)
        if scale + 1 < form.scales:
            coarser = held(memory, 3, form, scale + 1)
            within = real & (tile * windows + window < count // factor)
            above = (
                load(coarser[0], window, within, form) * part,
                load(coarser[1], window, within, form) * part,
                load(coarser[2], window, within, form) * part,
            )
        by_keys, by_values = (), ()
        for _ in tl.static_range(factor):
            by_keys, by_values = by_keys + (above[1],), by_values + (above[2],)  # noqa: RUF005
        for place in tl.static_range(factor):
            row = window * factor + place
            inside = first + row < limit
            weights = softmax(queries[place], keys, window, first, count, form)
            kept = dropped(weights, seed, head, scale, tile * windows + window, place, form)
            output = mixed(kept, values, form)
            if scale == 0:
                slope = load(gradient, row, inside, form)
            else:
                slope = _received(gradient, row, tile, length, real, form, scale)
            slope *= gelu_slope(output)
            mean = tl.sum(slope * output, axis=1)
            own = above[0]
            new_keys, new_values = (), ()
            for other in tl.static_range(factor):
                # A weight w that dropout makes d gives its score d * (slope . value) - w * (slope . output).
                change = kept[other] * tl.sum(slope * values[other], axis=1) - weights[other] * mean
                change = (change * form.sharpness)[:, None]
                own += change * keys[other]
                new_keys = new_keys + (by_keys[other] + change * queries[place],)  # noqa: RUF005
                new_values = new_values + (by_values[other] + kept[other][:, None] * slope,)  # noqa: RUF005
            by_keys, by_values = new_keys, new_values
            store(targets[0], row, real & (first + row < end), tl.where(inside[:, None], own, 0.0), form)
        for place in tl.static_range(factor):
            row = window * factor + place
            inside, stored = (first + row < limit)[:, None], real & (first + row < end)
            store(targets[1], row, stored, tl.where(inside, by_keys[place], 0.0), form)
            store(targets[2], row, stored, tl.where(inside, by_values[place], 0.0), form)


@triton.jit(do_not_specialize=["seed", "heads", "frames", "tiles", "items", "share"])
@no_type_check
def differentiate_kernel(
    inputs,
    strides,
    gradient,
    gradient_strides,
    outputs,
    by,
    lengths,
    memory,
    seed,
    heads,
    frames,
    tiles,
    items,
    share,
    form: tl.constexpr,
):
    """The way back: the scales are pooled again, finest first, and differentiated, coarsest first, each passing down to the
    next finer one what its means received. No tile needs another's gradients. `outputs` are the gradients of query, key and
    value, of strides `by`."""
    scales: tl.constexpr = form.scales
    program = tl.program_id(0)
    memory += program.to(tl.int64) * (6 * form.rows * form.width)
    for number in range(program * share, tl.minimum(program * share + share, items)):
        tile, chain, head, utterance, length = item(number, tiles, heads, lengths, frames, form)
        frame = tile * form.tile
        streams = (
            stream(inputs[0], strides[0], utterance, frame, head, form),
            stream(inputs[1], strides[1], utterance, frame, head, form),
            stream(inputs[2], strides[2], utterance, frame, head, form),
        )
        slopes = stream(gradient, gradient_strides, utterance, frame, head, form)
        if scales > 1:
            pool(streams, memory, tile, length, form, 0)
            tl.debug_barrier()
            for scale in tl.static_range(1, scales - 1):
                pool(held(memory, 0, form, scale), memory, tile, length, form, scale)
                tl.debug_barrier()
            for finer in tl.static_range(1, scales):
                own, target = held(memory, 0, form, scales - finer), held(memory, 3, form, scales - finer)
                _differentiate(own, slopes, target, memory, tile, length, length, seed, chain, form, scales - finer)
                tl.debug_barrier()
        targets = (
            stream(outputs[0], by, utterance, frame, head, form),
            stream(outputs[1], by, utterance, frame, head, form),
            stream(outputs[2], by, utterance, frame, head, form),
        )
        _differentiate(streams, slopes, targets, memory, tile, length, frames, seed, chain, form, 0)
