"""The two kernels of fractal attention on a GPU, in Triton; `gpu` describes and launches them.

`gpu_functions` explains the terms. A barrier (`tl.debug_barrier`) between writing to a program's buffer and reading it makes
the threads of a program wait for one another.
"""

# mypy: ignore-errors
# For the reason stated in `gpu_functions`.

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

AHEAD = tl.constexpr(4)  # number of consecutive frames of the gradient that an unrolled loop loads and adds


@triton.jit
@no_type_check
def _ring(memory, constants: tl.constexpr, scale: tl.constexpr):
    """Return a ring buffer for the output of a coarse scale. It has one row more than a tile, so that writing a tile
    preserves the last row of the previous tile, which up-sampling may need."""
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
        for slot in tl.static_range(factor):
            row = window * factor + slot
            weights = softmax(load(query, row, first + row < limit, constants), keys, window, first, count, constants)
            weights = apply_dropout(weights, seed, head, scale, tile * windows + window, slot, constants)
            output = gelu(weighted_sum(weights, values, constants))
            store(_ring(memory, constants, scale), (first + row) % (frames + 1), real, output, constants)


@triton.jit
@no_type_check
def _upsample(memory, frame, length, constants: tl.constexpr, scale: tl.constexpr):
    """Load the up-sampled output of a coarse scale for some frames of an utterance: for frame i, that of the coarse frame
    floor(i * count / length), or floor(i / size) if up-sampling repeats frames.

    The first index is equal to the second, or less by one. With i = coarse * size + offset and length = count * size +
    remainder, it is less if offset * count < coarse * remainder. Neither product exceeds length, so they fit in 32 bits,
    unlike i * count.
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
    """Compute the finest scale's output for one tile, add the up-sampled coarse ones, and store the sum; store zeros from the
    utterance's length to `end`."""
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
        for slot in tl.static_range(factor):
            row = window * factor + slot
            frame = first + row
            real = frame < limit
            weights = softmax(load(streams[0], row, real, constants), keys, window, first, length, constants)
            weights = apply_dropout(weights, seed, head, 0, tile * windows + window, slot, constants)
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
    """Compute the forward pass. `inputs` are query, key and value; `strides` are their strides of utterances and frames.

    An item is one tile of one head of one utterance. A program processes `items_per_program` consecutive items. Before
    them it computes the coarse scales of the previous tile (`lead`), whose last coarse frames its first frames may
    need.
    """
    scales: tl.constexpr = constants.scales
    program = tl.program_id(0)
    memory += program.to(tl.int64) * ((4 * constants.rows + scales - 1) * constants.width)
    begin = program * items_per_program
    lead = tl.where((begin % tiles > 0) & (scales > 1), 1, 0)
    for number in range(begin - lead, tl.minimum(begin + items_per_program, items)):
        tile, batch_head, head, utterance, length = locate_item(number, tiles, heads, lengths, frames, constants)
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
                _attend_scale(memory, tile, length, seed, batch_head, constants, scale)
                tl.debug_barrier()
        if number >= begin:
            target = stream(output, output_strides, utterance, frame, head, constants)
            _attend_tile(streams, target, memory, tile, length, frames, seed, batch_head, constants)


@triton.jit
@no_type_check
def _output_gradient(gradient, row, tile, length, real, constants: tl.constexpr, scale: tl.constexpr):
    """Return the gradient of a coarse scale's output: for each of its frames, the sum of `gradient` over the frames to
    which up-sampling copies it."""
    size: tl.constexpr = constants.factor**scale
    ahead: tl.constexpr = AHEAD if size >= AHEAD else size + 1
    block: tl.constexpr = constants.blocks[scale]
    lanes: tl.constexpr = constants.lanes
    count = length // size
    remainder = length - count * size
    coarse = tile * (constants.tile // size) + row
    begin, end = coarse * size, (coarse + 1) * size
    if constants.repeat:
        end = tl.where(coarse + 1 == count, length, end)
        longest = size + remainder
    else:
        divisor = tl.maximum(count, 1)
        begin += (coarse * remainder + divisor - 1) // divisor
        end += ((coarse + 1) * remainder + divisor - 1) // divisor
        longest = size + (remainder + divisor - 1) // divisor
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
    """Compute the gradients of a scale's query, key and value for one tile, and store them in `targets`, with zeros from
    `count`, the scale's number of frames, to `end`. They are the sum of two parts: the gradient through the attention of
    this scale, and 1 / `factor` of the gradient of the next scale's frames, which are means of this scale's windows."""
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
        zeros = tl.zeros_like(queries[0])
        from_next_scale = (zeros, zeros, zeros)
        if scale + 1 < constants.scales:
            coarser = coarse_streams(memory, 3, constants, scale + 1)
            within = real & (tile * windows + window < count // factor)
            from_next_scale = (
                load(coarser[0], window, within, constants) * weight,
                load(coarser[1], window, within, constants) * weight,
                load(coarser[2], window, within, constants) * weight,
            )
        key_gradients, value_gradients = (), ()
        for _ in tl.static_range(factor):
            key_gradients = key_gradients + (from_next_scale[1],)  # noqa: RUF005
            value_gradients = value_gradients + (from_next_scale[2],)  # noqa: RUF005
        for slot in tl.static_range(factor):
            row = window * factor + slot
            inside = first + row < limit
            weights = softmax(queries[slot], keys, window, first, count, constants)
            after_dropout = apply_dropout(weights, seed, head, scale, tile * windows + window, slot, constants)
            output = weighted_sum(after_dropout, values, constants)
            if scale == 0:
                slope = load(gradient, row, inside, constants)
            else:
                slope = _output_gradient(gradient, row, tile, length, real, constants, scale)
            slope *= gelu_slope(output)  # the gradient of `output`, before GELU
            mean = tl.sum(slope * output, axis=1)
            query_gradient = from_next_scale[0]
            new_keys, new_values = (), ()
            for other in tl.static_range(factor):
                # A weight w becomes d after dropout. The gradient of its score is d * (slope . value) - w * (slope . output).
                change = after_dropout[other] * tl.sum(slope * values[other], axis=1) - weights[other] * mean
                change = (change * constants.score_scale)[:, None]
                query_gradient += change * keys[other]
                new_keys = new_keys + (key_gradients[other] + change * queries[slot],)  # noqa: RUF005
                new_values = new_values + (value_gradients[other] + after_dropout[other][:, None] * slope,)  # noqa: RUF005
            key_gradients, value_gradients = new_keys, new_values
            store(
                targets[0], row, real & (first + row < end), tl.where(inside[:, None], query_gradient, 0.0), constants
            )
        for slot in tl.static_range(factor):
            row = window * factor + slot
            inside, stored = (first + row < limit)[:, None], real & (first + row < end)
            store(targets[1], row, stored, tl.where(inside, key_gradients[slot], 0.0), constants)
            store(targets[2], row, stored, tl.where(inside, value_gradients[slot], 0.0), constants)


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
    """Compute the backward pass: first the means of all scales again, finest first, then the gradients of the scales,
    coarsest first. The frames of a coarse scale are means of frames of the next finer scale, to which their gradients are
    passed. No tile needs the gradients of another one. `outputs` are the gradients of query, key and value."""
    scales: tl.constexpr = constants.scales
    program = tl.program_id(0)
    memory += program.to(tl.int64) * (6 * constants.rows * constants.width)
    for number in range(
        program * items_per_program, tl.minimum(program * items_per_program + items_per_program, items)
    ):
        tile, batch_head, head, utterance, length = locate_item(number, tiles, heads, lengths, frames, constants)
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
                    scale_streams,
                    slopes,
                    target,
                    memory,
                    tile,
                    length,
                    length,
                    seed,
                    batch_head,
                    constants,
                    scales - finer,
                )
                tl.debug_barrier()
        targets = (
            stream(outputs[0], output_strides, utterance, frame, head, constants),
            stream(outputs[1], output_strides, utterance, frame, head, constants),
            stream(outputs[2], output_strides, utterance, frame, head, constants),
        )
        _differentiate(streams, slopes, targets, memory, tile, length, frames, seed, batch_head, constants, 0)
