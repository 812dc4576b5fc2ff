"""The two kernels of fractal attention on a GPU, in Triton; `gpu` describes and launches them.

Names are explained in `gpu_functions`. A barrier separates writing to a program's buffer from reading it.
"""

# mypy: ignore-errors
# As in `gpu_functions`.

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl

from affekt.models.layers.fractal.gpu_functions import (
    apply_dropout,
    coarse_streams,
    gelu,
    gelu_slope,
    load,
    load_windows,
    locate_item,
    pool,
    softmax,
    store,
    stream,
    weighted_sum,
)

AHEAD = tl.constexpr(4)  # frames of the gradient that are loaded before the first is added


@triton.jit
@no_type_check
def _ring(memory, constants: tl.constexpr, scale: tl.constexpr):
    """Return a ring buffer for the output of a coarse scale: with one row more than a tile, so that writing a tile keeps the
    last row of the previous one."""
    return memory + (3 * constants.rows + constants.starts[scale] + scale - 1) * constants.width, constants.width


@triton.jit
@no_type_check
def _attend_scale(memory, tile, length, seed, head, constants: tl.constexpr, scale: tl.constexpr):
    """Compute a coarse scale's output for one tile."""
    factor: tl.constexpr = constants.factor
    block: tl.constexpr = constants.blocks[scale]
    frames: tl.constexpr = constants.tile // factor**scale
    windows: tl.constexpr = frames // factor
    first, count = tile * frames, length // factor**scale
    query, key, value = coarse_streams(memory, 0, constants, scale)
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        real = window < windows
        limit = tl.where(real, count, 0)
        keys = load_windows(key, window, first, limit, constants)
        values = load_windows(value, window, first, limit, constants)
        for place in tl.static_range(factor):
            row = window * factor + place
            weights = softmax(load(query, row, first + row < limit, constants), keys, window, first, count, constants)
            weights = apply_dropout(weights, seed, head, scale, tile * windows + window, place, constants)
            output = gelu(weighted_sum(weights, values, constants))
            store(_ring(memory, constants, scale), (first + row) % (frames + 1), real, output, constants)


@triton.jit
@no_type_check
def _upsample(memory, frame, length, constants: tl.constexpr, scale: tl.constexpr):
    """Load the frames of a coarse scale for these frames: frame floor(i * count / length), or floor(i / size) if repeated.

    The former is the latter or one less: with i = coarse * size + within and length = count * size + rest it is less where
    within * count < coarse * rest, and neither product is larger than length.
    """
    size: tl.constexpr = constants.factor**scale
    ring: tl.constexpr = constants.tile // size + 1
    count = length // size
    coarse = frame // size
    if constants.repeat:
        source = tl.minimum(coarse, count - 1)
    else:
        late = (frame - coarse * size) * count < coarse * (length - count * size)
        source = tl.where(late, coarse - 1, coarse)
    return load(_ring(memory, constants, scale), source % ring, (frame < length) & (count > 0), constants)


@triton.jit
@no_type_check
def _attend_tile(streams, output, memory, tile, length, end, seed, head, constants: tl.constexpr):
    """Compute the finest scale's output for one tile and add the coarse ones; write zeros behind an utterance's length."""
    factor: tl.constexpr = constants.factor
    scales: tl.constexpr = constants.scales
    block: tl.constexpr = constants.blocks[0]
    windows: tl.constexpr = constants.tile // factor
    first = tile * constants.tile
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        limit = tl.where(window < windows, length, 0)
        keys = load_windows(streams[1], window, first, limit, constants)
        values = load_windows(streams[2], window, first, limit, constants)
        for place in tl.static_range(factor):
            row = window * factor + place
            frame = first + row
            real = frame < limit
            weights = softmax(load(streams[0], row, real, constants), keys, window, first, length, constants)
            weights = apply_dropout(weights, seed, head, 0, tile * windows + window, place, constants)
            total = gelu(weighted_sum(weights, values, constants))
            for scale in tl.static_range(1, scales):
                total += _upsample(memory, frame, limit, constants, scale)
            total = tl.where(real[:, None], total, 0.0)
            store(output, row, (window < windows) & (frame < end), total, constants)


@triton.jit(do_not_specialize=["seed", "heads", "frames", "tiles", "items", "items_per_program"])
@no_type_check
def attend_kernel(
    inputs,
    strides,
    output,
    output_strides,
    lengths,
    memory,
    seed,
    heads,
    frames,
    tiles,
    items,
    items_per_program,
    constants: tl.constexpr,
):
    """The forward pass. `inputs` are query, key and value; `strides` are their strides of utterances and frames.

    An item is one tile of one head of one utterance. A program processes `items_per_program` consecutive items, after the
    coarse scales of the previous tile, whose last coarse frames its first frames may need.
    """
    scales: tl.constexpr = constants.scales
    program = tl.program_id(0)
    memory += program.to(tl.int64) * ((4 * constants.rows + scales - 1) * constants.width)
    begin = program * items_per_program
    lead = tl.where((begin % tiles > 0) & (scales > 1), 1, 0)
    for number in range(begin - lead, tl.minimum(begin + items_per_program, items)):
        tile, chain, head, utterance, length = locate_item(number, tiles, heads, lengths, frames, constants)
        frame = tile * constants.tile
        streams = (
            stream(inputs[0], strides[0], utterance, frame, head, constants),
            stream(inputs[1], strides[1], utterance, frame, head, constants),
            stream(inputs[2], strides[2], utterance, frame, head, constants),
        )
        if scales > 1:
            pool(streams, memory, tile, length, constants, 0)
            tl.debug_barrier()
            for scale in tl.static_range(1, scales):
                if scale + 1 < scales:
                    pool(coarse_streams(memory, 0, constants, scale), memory, tile, length, constants, scale)
                _attend_scale(memory, tile, length, seed, chain, constants, scale)
                tl.debug_barrier()
        if number >= begin:
            target = stream(output, output_strides, utterance, frame, head, constants)
            _attend_tile(streams, target, memory, tile, length, frames, seed, chain, constants)


@triton.jit
@no_type_check
def _output_gradient(gradient, row, tile, length, real, constants: tl.constexpr, scale: tl.constexpr):
    """Return the gradient of a scale's output: the sum of the gradient over the frames that each of its frames is
    up-sampled to."""
    size: tl.constexpr = constants.factor**scale
    ahead: tl.constexpr = AHEAD if size >= AHEAD else size + 1
    block: tl.constexpr = constants.blocks[scale]
    lanes: tl.constexpr = constants.lanes
    count = length // size
    rest = length - count * size
    coarse = tile * (constants.tile // size) + row
    begin, end = coarse * size, (coarse + 1) * size
    if constants.repeat:
        end = tl.where(coarse + 1 == count, length, end)
        longest = size + rest
    else:
        some = tl.maximum(count, 1)
        begin += (coarse * rest + some - 1) // some
        end += ((coarse + 1) * rest + some - 1) // some
        longest = size + (rest + some - 1) // some
    end = tl.where(real & (coarse < count), end, begin)
    total = tl.zeros((block, lanes), tl.float64 if constants.double else tl.float32)
    for start in range(0, longest, ahead):
        for step in tl.static_range(ahead):
            frame = begin + start + step
            total += load(gradient, frame - tile * constants.tile, frame < end, constants)
    return total


@triton.jit
@no_type_check
def _differentiate(
    streams, gradient, targets, memory, tile, length, end, seed, head, constants: tl.constexpr, scale: tl.constexpr
):
    """Compute the gradients of a scale's query, key and value for one tile: from its own attention, and from the next scale,
    whose frames are means of its own. Write zeros from its count to `end`."""
    factor: tl.constexpr = constants.factor
    block: tl.constexpr = constants.blocks[scale]
    frames: tl.constexpr = constants.tile // factor**scale
    windows: tl.constexpr = frames // factor
    weight: tl.constexpr = 1.0 / factor
    first, count = tile * frames, length // factor**scale
    for start in range(0, windows, block):
        window = start + tl.arange(0, block)
        real = window < windows
        limit = tl.where(real, count, 0)
        queries = load_windows(streams[0], window, first, limit, constants)
        keys = load_windows(streams[1], window, first, limit, constants)
        values = load_windows(streams[2], window, first, limit, constants)
        none = tl.zeros_like(queries[0])
        above = (none, none, none)
        if scale + 1 < constants.scales:
            coarser = coarse_streams(memory, 3, constants, scale + 1)
            within = real & (tile * windows + window < count // factor)
            above = (
                load(coarser[0], window, within, constants) * weight,
                load(coarser[1], window, within, constants) * weight,
                load(coarser[2], window, within, constants) * weight,
            )
        by_keys, by_values = (), ()
        for _ in tl.static_range(factor):
            by_keys, by_values = by_keys + (above[1],), by_values + (above[2],)  # noqa: RUF005
        for place in tl.static_range(factor):
            row = window * factor + place
            inside = first + row < limit
            weights = softmax(queries[place], keys, window, first, count, constants)
            kept = apply_dropout(weights, seed, head, scale, tile * windows + window, place, constants)
            output = weighted_sum(kept, values, constants)
            if scale == 0:
                slope = load(gradient, row, inside, constants)
            else:
                slope = _output_gradient(gradient, row, tile, length, real, constants, scale)
            slope *= gelu_slope(output)
            mean = tl.sum(slope * output, axis=1)
            own = above[0]
            new_keys, new_values = (), ()
            for other in tl.static_range(factor):
                # The gradient of a score, whose weight w becomes d by dropout, is d * (slope . value) - w * (slope . output).
                change = kept[other] * tl.sum(slope * values[other], axis=1) - weights[other] * mean
                change = (change * constants.score_scale)[:, None]
                own += change * keys[other]
                new_keys = new_keys + (by_keys[other] + change * queries[place],)  # noqa: RUF005
                new_values = new_values + (by_values[other] + kept[other][:, None] * slope,)  # noqa: RUF005
            by_keys, by_values = new_keys, new_values
            store(targets[0], row, real & (first + row < end), tl.where(inside[:, None], own, 0.0), constants)
        for place in tl.static_range(factor):
            row = window * factor + place
            inside, stored = (first + row < limit)[:, None], real & (first + row < end)
            store(targets[1], row, stored, tl.where(inside, by_keys[place], 0.0), constants)
            store(targets[2], row, stored, tl.where(inside, by_values[place], 0.0), constants)


@triton.jit(do_not_specialize=["seed", "heads", "frames", "tiles", "items", "items_per_program"])
@no_type_check
def differentiate_kernel(
    inputs,
    strides,
    gradient,
    gradient_strides,
    outputs,
    output_strides,
    lengths,
    memory,
    seed,
    heads,
    frames,
    tiles,
    items,
    items_per_program,
    constants: tl.constexpr,
):
    """The backward pass: pool the scales again, finest first, and differentiate them, coarsest first; each scale passes the
    gradient of its means on to the next finer one. No tile needs another's gradients. `outputs` are the gradients of query,
    key and value."""
    scales: tl.constexpr = constants.scales
    program = tl.program_id(0)
    memory += program.to(tl.int64) * (6 * constants.rows * constants.width)
    for number in range(
        program * items_per_program, tl.minimum(program * items_per_program + items_per_program, items)
    ):
        tile, chain, head, utterance, length = locate_item(number, tiles, heads, lengths, frames, constants)
        frame = tile * constants.tile
        streams = (
            stream(inputs[0], strides[0], utterance, frame, head, constants),
            stream(inputs[1], strides[1], utterance, frame, head, constants),
            stream(inputs[2], strides[2], utterance, frame, head, constants),
        )
        slopes = stream(gradient, gradient_strides, utterance, frame, head, constants)
        if scales > 1:
            pool(streams, memory, tile, length, constants, 0)
            tl.debug_barrier()
            for scale in tl.static_range(1, scales - 1):
                pool(coarse_streams(memory, 0, constants, scale), memory, tile, length, constants, scale)
                tl.debug_barrier()
            for finer in tl.static_range(1, scales):
                scale_streams, target = (
                    coarse_streams(memory, 0, constants, scales - finer),
                    coarse_streams(memory, 3, constants, scales - finer),
                )
                _differentiate(
                    scale_streams, slopes, target, memory, tile, length, length, seed, chain, constants, scales - finer
                )
                tl.debug_barrier()
        targets = (
            stream(outputs[0], output_strides, utterance, frame, head, constants),
            stream(outputs[1], output_strides, utterance, frame, head, constants),
            stream(outputs[2], output_strides, utterance, frame, head, constants),
        )
        _differentiate(streams, slopes, targets, memory, tile, length, frames, seed, chain, constants, 0)
