"""Fractal attention compiled by numba: the work of one thread, for some heads of some utterances.

An utterance is processed in tiles of `factor**scales` frames, one window of the coarsest scale, so that intermediate
results stay in the CPU's cache: every element of query, key and value is read from memory once, and every element of the
output is written once (the backward pass reads the inputs twice, the second time from the cache).

Forward (`_forward`), for each tile:
1. Attention is computed in the windows of the finest scale, one after another, and written to the output. The mean of a
   complete window is a frame of the next scale. As soon as `factor` such frames are gathered, they are a window of that
   scale: its attention is computed, and its mean is a frame of the scale after it, and so on, like the carries of a counter
   with base `factor`.
2. At the end of the utterance, the incomplete windows of the coarse scales are filled with zeros, and their attention is
   computed.
3. The outputs of the coarse scales are up-sampled and added to the output of the tile.

Backward (`_backward`), for each tile:
1. The means of queries, keys and values are computed for all coarse scales.
2. From the coarsest to the finest scale, the weights of each window are computed again and differentiated. A frame's query,
   key and value get the gradient from its own window, plus 1 / `factor` of the gradient of the coarser frame that contains
   it.

Arrays have a row for each frame, (batch * frames, row). A stream's features begin at its first column, so the thirds of one
fused projection need no copy. Windows are (factor, row) slices. The code for windows of three frames, the paper's factor, is
unrolled. Indices in inner loops are unsigned, because numba would check at each step whether a signed index is negative. The
compiler may reorder sums, so that it can vectorize them; NaN stays NaN. Everything is in one file, because numba's cache on
disk only notices changes of the file that contains the compiled function.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload

FAST = {"reassoc", "contract", "nsz", "arcp"}
COMPILED: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy", "nogil": True}


def compile_cached(function: Any) -> Any:
    """Compile a function on its first call and cache it on disk.

    The cache is beside this file or in the user's cache folder. If neither is writable, every process compiles again.
    The function's arguments must be arrays, numbers and plain tuples: the cache's index names the classes of all argument
    types, and numba fails to read an index that names a class which a later version has renamed.
    """
    try:
        return njit(function, nogil=True, cache=True)
    except RuntimeError:
        return njit(function, nogil=True)


# The normal distribution function (NORMAL) and the derivative of GELU (SLOPE), each minus one half and divided by x, as
# minimax polynomials in t = 2 (x / limit)**2 - 1, constant term first. Beyond the limit both functions are constant within
# 1e-7.
# tests/models/test_fractal_kernels.py measures their errors.
LIMIT, SLOPE_LIMIT = np.float32(5.25), np.float32(5.5)
NORMAL = [0.1346593498554103, -0.06712659297749193, 0.04964519420754171, -0.039771219474829825, 0.03204525805735329]
NORMAL += [-0.024965417753283075, 0.018425452785702987, -0.013090537856843823, 0.008839669025471994]
NORMAL += [
    -0.004827018382902858,
    0.0021121568404295975,
    -0.0016197355845247513,
    0.001362146485378358,
    -0.0004506306912372855,
]
SLOPE = [0.12875916482844502, -0.06574012496195145, 0.053671285501997845, -0.05372668048977482, 0.060179117448197525]
SLOPE += [-0.06884420736658985, 0.07539382438109521, -0.07300139171269943, 0.06045770734629449, -0.05282990292160193]
SLOPE += [
    0.049907562338443345,
    -0.02824084677657064,
    0.0038136233229659105,
    -0.006086519306040839,
    0.012214244199783215,
]
SLOPE += [-0.005017696723311764]
A0, A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12, A13 = map(np.float32, NORMAL)
B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15 = map(np.float32, SLOPE)
# Taylor series of 2**x.
E0, E1, E2, E3, E4, E5, E6 = (np.float32(math.log(2) ** i / math.factorial(i)) for i in range(7))
LOG2_E = np.float32(1 / math.log(2))
ZERO, ONE, HALF, SMALLEST = np.float32(0), np.float32(1), np.float32(0.5), np.float32(-126)
NORMAL_SCALE, SLOPE_SCALE = np.float32(2 / 5.25**2), np.float32(2 / 5.5**2)
ROOT_HALF = math.sqrt(0.5)
DENSITY_AT_ZERO = math.sqrt(0.5 / math.pi)  # of the normal distribution


@no_type_check
def gelu(x):
    """Return x times the normal distribution function; in 32 bits with an error of up to 3e-7 max(x, 1)."""


@no_type_check
def gelu_slope(x):
    """Return the derivative of `gelu`."""


@no_type_check
def exponential(x):
    """Return e to the power of x, for x up to zero."""


@overload(gelu, jit_options=COMPILED)
@no_type_check
def _gelu(x):
    if x == types.float32:

        @no_type_check
        def single(x):
            inside = min(max(x, -LIMIT), LIMIT)
            t = inside * inside * NORMAL_SCALE - ONE
            r = ((((((A13 * t + A12) * t + A11) * t + A10) * t + A9) * t + A8) * t + A7) * t + A6
            r = (((((r * t + A5) * t + A4) * t + A3) * t + A2) * t + A1) * t + A0
            y = x * (inside * r + HALF)
            return ZERO if x < -LIMIT else y

        return single
    return lambda x: 0.5 * x * (1.0 + math.erf(ROOT_HALF * x))


@overload(gelu_slope, jit_options=COMPILED)
@no_type_check
def _gelu_slope(x):
    if x == types.float32:

        @no_type_check
        def single(x):
            inside = min(max(x, -SLOPE_LIMIT), SLOPE_LIMIT)
            t = inside * inside * SLOPE_SCALE - ONE
            r = (((((((B15 * t + B14) * t + B13) * t + B12) * t + B11) * t + B10) * t + B9) * t + B8) * t + B7
            r = ((((((r * t + B6) * t + B5) * t + B4) * t + B3) * t + B2) * t + B1) * t + B0
            return inside * r + HALF

        return single
    return lambda x: 0.5 * (1.0 + math.erf(ROOT_HALF * x)) + x * DENSITY_AT_ZERO * math.exp(-0.5 * x * x)


@overload(exponential, jit_options=COMPILED)
@no_type_check
def _exponential(x):
    if x == types.float32:

        @no_type_check
        def single(x):
            # e**x = 2**y = 2**whole * 2**f. A float whose exponent bits are whole + 127, all others zero, is 2**whole.
            y = max(x * LOG2_E, SMALLEST)
            whole = np.floor(y + HALF)
            power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
            f = y - whole
            return power * ((((((E6 * f + E5) * f + E4) * f + E3) * f + E2) * f + E1) * f + E0)

        return single
    return lambda x: math.exp(x)


class KernelOptions(NamedTuple):
    """`FractalOptions` in the form in which the kernels take them."""

    heads: int
    factor: int
    scales: int
    mask_window_padding: bool
    """Whether a softmax ignores zero frames."""
    repeat: bool
    """Whether up-sampling repeats frames."""
    scale: Any
    """Number by which the scores are multiplied."""
    dropout_gain: Any
    """Number by which the weights that are not dropped are multiplied; 1 without dropout."""
    threshold: Any
    """A weight is dropped if its random 32-bit number is below this number."""
    seed: Any


class TileLayout(NamedTuple):
    """The number of an utterance's frames at each scale, and the scale's rows in the buffers for one tile.

    The buffers have rows for the coarse scales only. The rows of a scale follow a row for the last frame of the
    previous tile. Fields are arrays with an element for each scale, except `num_rows`.
    """

    counts: Any
    """Number of the utterance's frames."""
    first_row: Any
    """Row of the tile's first frame."""
    tile_rows: Any
    """Number of rows for a tile."""
    num_rows: Any
    """Number of rows of all scales together."""
    first_window: Any
    """Index of the utterance's first window among all windows of all scales and utterances."""


@njit(**COMPILED)
@no_type_check
def _random(position, seed):
    """Return a uniform random 32-bit number for a position: the final steps of MurmurHash3, with both halves of the seed
    mixed in."""
    h = np.uint32(np.uint32(position * np.uint32(0x9E3779B1)) + np.uint32(seed))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32(np.uint32(h ^ np.uint32(seed >> np.uint64(32))) * np.uint32(0x2C1B3C6D))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


# Scores and weights of a window have the shape (keys, queries * heads): a softmax is over the keys, which are rows, and its
# loops over the columns can be vectorized.


@njit(**COMPILED)
@no_type_check
def _products(a, a_column, b, b_column, width, scores):
    """Compute the scores of all pairs of rows of two windows: scores[j, i * heads + h] is the product of row i of a and
    row j of b, summed over the features of head h. `width` is the width of a head."""
    factor = a.shape[0]
    heads = scores.shape[1] // factor
    if factor == 3:
        _products_of_three(a, a_column, b, b_column, heads, width, scores)
        return
    for i in range(factor):
        for j in range(factor):
            a_row, b_row, row = a[i], b[j], scores[j]
            for head in range(heads):
                total = scores.dtype.type(0)
                p, r = np.uint64(a_column + head * width), np.uint64(b_column + head * width)
                for feature in range(width):
                    x = np.uint64(feature)
                    total += a_row[p + x] * b_row[r + x]
                row[i * heads + head] = total


@njit(**COMPILED)
@no_type_check
def _products_of_three(a, a_column, b, b_column, heads, width, scores):
    a0, a1, a2, b0, b1, b2 = a[0], a[1], a[2], b[0], b[1], b[2]
    r0, r1, r2 = scores[0], scores[1], scores[2]
    for head in range(heads):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = scores.dtype.type(0)
        p, r = np.uint64(a_column + head * width), np.uint64(b_column + head * width)
        for feature in range(width):
            x, y = p + np.uint64(feature), r + np.uint64(feature)
            c0, c1, c2, d0, d1, d2 = a0[x], a1[x], a2[x], b0[y], b1[y], b2[y]
            s0 += c0 * d0
            s1 += c0 * d1
            s2 += c0 * d2
            s3 += c1 * d0
            s4 += c1 * d1
            s5 += c1 * d2
            s6 += c2 * d0
            s7 += c2 * d1
            s8 += c2 * d2
        r0[head], r1[head], r2[head] = s0, s1, s2
        r0[heads + head], r1[heads + head], r2[heads + head] = s3, s4, s5
        r0[2 * heads + head], r1[2 * heads + head], r2[2 * heads + head] = s6, s7, s8


@njit(**COMPILED)
@no_type_check
def _softmax(scores, keys, scale):
    """Apply a softmax to `scale` times the scores of the first `keys` keys, in place. The other keys get weight zero."""
    unit = scores.dtype.type(1)
    if keys == 3:
        s0, s1, s2 = scores[0], scores[1], scores[2]
        for x in range(scores.shape[1]):
            largest = max(max(s0[x], s1[x]), s2[x])
            e0, e1 = exponential((s0[x] - largest) * scale), exponential((s1[x] - largest) * scale)
            e2 = exponential((s2[x] - largest) * scale)
            inverse = unit / (e0 + e1 + e2)
            s0[x], s1[x], s2[x] = e0 * inverse, e1 * inverse, e2 * inverse
    else:
        for x in range(scores.shape[1]):
            largest = scores[0, x]
            for key in range(1, keys):
                largest = max(largest, scores[key, x])
            total = scores.dtype.type(0)
            for key in range(keys):
                scores[key, x] = exponential((scores[key, x] - largest) * scale)
                total += scores[key, x]
            for key in range(keys):
                scores[key, x] *= unit / total
    scores[keys:] = 0


@njit(**COMPILED)
@no_type_check
def _drop(weights, dropped, heads, options, position):
    """Write the weights after dropout into `dropped`. The random numbers depend only on the seed and the position, so
    the backward pass draws the same ones. `position` counts all weights of all windows, by window, key, query and
    head."""
    factor = weights.shape[0]
    for key in range(factor):
        for query in range(factor):
            for head in range(heads):
                x = query * heads + head
                keep = _random(np.uint32(position + head), options.seed) >= options.threshold
                dropped[key, x] = weights[key, x] * options.dropout_gain if keep else weights.dtype.type(0)
            position += options.heads


@njit(**COMPILED)
@no_type_check
def _weigh(streams, columns, width, keys, options, position, weights, dropped):
    """Compute a window's attention weights; return them after dropout."""
    _products(streams[0], columns[0], streams[1], columns[1], width, weights)
    _softmax(weights, keys, options.scale)
    if options.dropout_gain == 1:
        return weights
    _drop(weights, dropped, weights.shape[1] // weights.shape[0], options, position)
    return dropped


@njit(**COMPILED)
@no_type_check
def _mix(v, v_column, weights, width, out, out_column):
    """Compute a window's output: the GELU of the weighted sums of its values."""
    factor = v.shape[0]
    heads = weights.shape[1] // factor
    if factor == 3:
        _mix_three(v, v_column, weights, heads, width, out, out_column)
        return
    for i in range(factor):
        row = out[i]
        for head in range(heads):
            p, r = np.uint64(v_column + head * width), np.uint64(out_column + head * width)
            for j in range(factor):
                value, weight = v[j], weights[j, i * heads + head]
                for feature in range(width):
                    x = np.uint64(feature)
                    before = row[r + x] if j else weights.dtype.type(0)
                    row[r + x] = before + weight * value[p + x]
            for feature in range(width):
                x = np.uint64(feature)
                row[r + x] = gelu(row[r + x])


@njit(**COMPILED)
@no_type_check
def _mix_three(v, v_column, weights, heads, width, out, out_column):
    v0, v1, v2, o0, o1, o2 = v[0], v[1], v[2], out[0], out[1], out[2]
    r0, r1, r2 = weights[0], weights[1], weights[2]
    for head in range(heads):
        w0, w1, w2 = r0[head], r1[head], r2[head]
        w3, w4, w5 = r0[heads + head], r1[heads + head], r2[heads + head]
        w6, w7, w8 = r0[2 * heads + head], r1[2 * heads + head], r2[2 * heads + head]
        p, r = np.uint64(v_column + head * width), np.uint64(out_column + head * width)
        for feature in range(width):
            x, y = p + np.uint64(feature), r + np.uint64(feature)
            a, b, c = v0[x], v1[x], v2[x]
            o0[y] = gelu(w0 * a + w1 * b + w2 * c)
            o1[y] = gelu(w3 * a + w4 * b + w5 * c)
            o2[y] = gelu(w6 * a + w7 * b + w8 * c)


@njit(**COMPILED)
@no_type_check
def _average(window, column, out):
    """Compute the mean of a window's frames."""
    factor, first = window.shape[0], np.uint64(column)
    weight = out.dtype.type(1) / out.dtype.type(factor)
    if factor == 3:
        a, b, c = window[0], window[1], window[2]
        for feature in range(out.shape[0]):
            x = first + np.uint64(feature)
            out[feature] = (a[x] + b[x] + c[x]) * weight
        return
    out[:] = 0
    for index in range(factor):
        row = window[index]
        for feature in range(out.shape[0]):
            out[feature] += row[first + np.uint64(feature)] * weight


@njit(**COMPILED)
@no_type_check
def _copy(rows, column, out, out_column, features, num_rows):
    """Copy the first `num_rows` rows, and set the remaining rows of `out` to zero."""
    for row in range(num_rows):
        out[row, out_column : out_column + features] = rows[row, column : column + features]
    for row in range(num_rows, out.shape[0]):
        out[row, out_column : out_column + features] = 0


@njit(**COMPILED)
@no_type_check
def _source(frame, count, frames, size, repeat):
    """Return which of the `count` frames of a scale up-sampling copies to this frame of the utterance. `size` is
    factor**scale."""
    return min(frame // size, count - 1) if repeat else frame * count // frames


@njit(**COMPILED)
@no_type_check
def _layout(length, longest, utterance, factor, scales):
    """Return the layout of an utterance of `length` frames; `longest` is the length of the longest in the batch."""
    counts, tile_rows = np.empty(scales, np.int64), np.empty(scales, np.int64)
    first_row, first_window = np.empty(scales, np.int64), np.empty(scales, np.int64)
    num_rows = num_windows = 0
    for scale in range(scales):
        size = factor**scale
        counts[scale] = length // size
        tile_rows[scale] = min(factor ** (scales - scale), factor * ((counts[scale] + factor - 1) // factor))
        first_row[scale] = num_rows + 1
        num_rows += tile_rows[scale] + 1 if scale else 0
        first_window[scale] = num_windows
        num_windows += longest // size // factor + 1
    return TileLayout(counts, first_row, tile_rows, num_rows, first_window + utterance * num_windows)


@compile_cached
@no_type_check
def forward(q, k, v, columns, out, frames, tasks, lengths, options):
    """Compute the outputs of some tasks, rows (utterance, first head, last head + 1), and write them to `out`, (batch *
    frames, features)."""
    named = KernelOptions(*options)
    for utterance, head, end in tasks:
        _forward(q, k, v, columns, out, frames, utterance, head, end, lengths[utterance], named)


@njit(**COMPILED)
@no_type_check
def _forward(q, k, v, columns, out, frames, utterance, head, end, length, options):
    """Compute the output of the heads from `head` to before `end` of one utterance of `length` frames."""
    factor, scales, heads = options.factor, options.scales, end - head
    width = out.shape[1] // options.heads
    # First column and number of columns of these heads in `out`, and first row of the utterance.
    column, features, base = head * width, heads * width, utterance * frames
    layout = _layout(length, frames, utterance, factor, scales)
    # Query, key and value of the window that is being gathered at each coarse scale; at index 0, those of an incomplete
    # window of the finest scale.
    gathered = np.zeros((scales, 3, factor, features), out.dtype)
    outputs = np.zeros((layout.num_rows, features), out.dtype)  # of the coarse scales, for one tile
    scores = np.zeros((2, factor, factor * heads), out.dtype)  # a window's weights, before and after dropout
    for start in range(0, length, factor**scales):
        stop = min(length, start + factor**scales)
        windows = (stop - start + factor - 1) // factor
        # A step for each window of the finest scale; at the end of the utterance, also one for each coarse scale, which may
        # have an incomplete window.
        for step in range(windows + (scales - 1 if stop == length else 0)):
            scale = max(0, step - windows + 1)
            window = start // factor + step if scale == 0 else layout.counts[scale] // factor
            num_real = min(factor, layout.counts[scale] - window * factor)
            if num_real == 0:
                continue
            row = base + window * factor
            output_row = layout.first_row[scale] + window * factor - start // factor**scale
            streams, first_columns = (gathered[scale, 0], gathered[scale, 1], gathered[scale, 2]), (0, 0, 0)
            target, target_column = outputs[output_row : output_row + factor], 0
            if scale == 0 and num_real == factor:
                streams = (q[row : row + factor], k[row : row + factor], v[row : row + factor])
                first_columns = (columns[0] + column, columns[1] + column, columns[2] + column)
                target, target_column = out[row : row + factor], column
            elif scale == 0:
                _copy(q[row : row + num_real], columns[0] + column, streams[0], 0, features, num_real)
                _copy(k[row : row + num_real], columns[1] + column, streams[1], 0, features, num_real)
                _copy(v[row : row + num_real], columns[2] + column, streams[2], 0, features, num_real)
                target = streams[0]
            else:
                gathered[scale, :, num_real:] = 0
            # Attend inside this window, and inside each coarser window that it completes.
            while True:
                position = (layout.first_window[scale] + window) * factor * factor * options.heads + head
                keys = num_real if options.mask_window_padding else factor
                weights = _weigh(streams, first_columns, width, keys, options, position, scores[0], scores[1])
                _mix(streams[2], first_columns[2], weights, width, target, target_column)
                slot, scale = window % factor, scale + 1
                if num_real < factor or scale == scales:
                    break
                for stream in range(3):
                    _average(streams[stream], first_columns[stream], gathered[scale, stream, slot])
                if slot != factor - 1:
                    break
                window //= factor
                streams, first_columns = (gathered[scale, 0], gathered[scale, 1], gathered[scale, 2]), (0, 0, 0)
                output_row = layout.first_row[scale] + window * factor - start // factor**scale
                target, target_column = outputs[output_row : output_row + factor], 0
            if num_real < factor and scale == 1:  # the window was an incomplete one of the finest scale
                _copy(target, 0, out[row : row + num_real], column, features, num_real)
        _add_scales(out, column, features, base, start, stop, length, outputs, layout, options)
        # Up-sampling lags: the first frames of the next tile may need the last coarse frame of this tile.
        for scale in range(1, scales):
            outputs[layout.first_row[scale] - 1] = outputs[layout.first_row[scale] + layout.tile_rows[scale] - 1]
    for row in range(base + length, base + frames):
        out[row, column : column + features] = 0


@njit(**COMPILED)
@no_type_check
def _add_scales(out, column, features, base, start, stop, length, outputs, layout, options):
    """Up-sample the outputs of the coarse scales and add them to the frames `start` to `stop` of a tile."""
    first = np.uint64(column)
    for frame in range(start, stop):
        row, size = out[base + frame], 1
        for scale in range(1, options.scales):
            size *= options.factor
            if layout.counts[scale]:
                source = _source(frame, layout.counts[scale], length, size, options.repeat)
                other = outputs[layout.first_row[scale] + source - start // size]
                for feature in range(features):
                    row[first + np.uint64(feature)] += other[feature]


# The backward pass. `coarse` is the gradient of the frame of the next scale that is the mean of a window; `ratio * coarse`,
# with ratio = 1 / factor, is its part in the gradient of each frame of the window.


@njit(**COMPILED)
@no_type_check
def _mix_backward(v, v_column, weights, grad, grad_column, coarse, ratio, width, dv, dv_column, products):
    """Differentiate `_mix`, given the gradient `grad` of its output. Write the gradient of the values, plus
    `ratio * coarse`, into `dv`, and the gradient of the weights into `products`."""
    factor = v.shape[0]
    heads = weights.shape[1] // factor
    if factor == 3:
        _mix_backward_three(
            v, v_column, weights, heads, grad, grad_column, coarse, ratio, width, dv, dv_column, products
        )
        return
    products[:] = 0
    for head in range(heads):
        p, o, d = v_column + head * width, grad_column + head * width, dv_column + head * width
        for feature in range(width):
            for j in range(factor):
                dv[j, d + feature] = coarse[head * width + feature] * ratio
            for i in range(factor):
                x = i * heads + head
                mixed = weights.dtype.type(0)
                for j in range(factor):
                    mixed += weights[j, x] * v[j, p + feature]
                slope = grad[i, o + feature] * gelu_slope(mixed)
                for j in range(factor):
                    dv[j, d + feature] += weights[j, x] * slope
                    products[j, x] += slope * v[j, p + feature]


@njit(**COMPILED)
@no_type_check
def _mix_backward_three(v, v_column, weights, heads, grad, grad_column, coarse, ratio, width, dv, dv_column, products):
    v0, v1, v2, g0, g1, g2, d0, d1, d2 = v[0], v[1], v[2], grad[0], grad[1], grad[2], dv[0], dv[1], dv[2]
    r0, r1, r2, p0, p1, p2 = weights[0], weights[1], weights[2], products[0], products[1], products[2]
    for head in range(heads):
        w0, w1, w2 = r0[head], r1[head], r2[head]
        w3, w4, w5 = r0[heads + head], r1[heads + head], r2[heads + head]
        w6, w7, w8 = r0[2 * heads + head], r1[2 * heads + head], r2[2 * heads + head]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = weights.dtype.type(0)
        p, o = np.uint64(v_column + head * width), np.uint64(grad_column + head * width)
        d, m = np.uint64(dv_column + head * width), np.uint64(head * width)
        for feature in range(width):
            at = np.uint64(feature)
            a, b, c = v0[p + at], v1[p + at], v2[p + at]
            f = g0[o + at] * gelu_slope(w0 * a + w1 * b + w2 * c)
            g = g1[o + at] * gelu_slope(w3 * a + w4 * b + w5 * c)
            h = g2[o + at] * gelu_slope(w6 * a + w7 * b + w8 * c)
            extra = coarse[m + at] * ratio
            d0[d + at] = w0 * f + w3 * g + w6 * h + extra
            d1[d + at] = w1 * f + w4 * g + w7 * h + extra
            d2[d + at] = w2 * f + w5 * g + w8 * h + extra
            s0 += f * a
            s1 += f * b
            s2 += f * c
            s3 += g * a
            s4 += g * b
            s5 += g * c
            s6 += h * a
            s7 += h * b
            s8 += h * c
        p0[head], p1[head], p2[head] = s0, s1, s2
        p0[heads + head], p1[heads + head], p2[heads + head] = s3, s4, s5
        p0[2 * heads + head], p1[2 * heads + head], p2[2 * heads + head] = s6, s7, s8


@njit(**COMPILED)
@no_type_check
def _weigh_backward(weights, heads, keys, options, position, grad):
    """Differentiate dropout and softmax in place: replace the gradient of the weights after dropout by that of the scores
    before `options.scale`."""
    if options.dropout_gain != 1:
        _drop(grad, grad, heads, options, position)
    for x in range(grad.shape[1]):
        total = grad.dtype.type(0)
        for key in range(keys):
            total += weights[key, x] * grad[key, x]
        for key in range(keys):
            grad[key, x] = weights[key, x] * (grad[key, x] - total) * options.scale
    grad[keys:] = 0


@njit(**COMPILED)
@no_type_check
def _products_backward(grad, for_keys, other, other_column, coarse, ratio, width, out, out_column):
    """Compute the gradient of the queries, or with `for_keys` of the keys, of `_products`.

    It is the sum of the rows of `other` (the keys, or the queries), weighted by the gradient `grad` of the products, (keys,
    queries * heads), plus `ratio * coarse`.
    """
    factor = other.shape[0]
    heads = grad.shape[1] // factor
    for i in range(factor):
        row = out[i]
        for head in range(heads):
            p, o, m = other_column + head * width, out_column + head * width, head * width
            if factor == 3:
                if for_keys:
                    w0, w1, w2 = grad[i, head], grad[i, heads + head], grad[i, 2 * heads + head]
                else:
                    w0, w1, w2 = grad[0, i * heads + head], grad[1, i * heads + head], grad[2, i * heads + head]
                a, b, c = other[0], other[1], other[2]
                first, begin, start = np.uint64(p), np.uint64(o), np.uint64(m)
                for feature in range(width):
                    x = np.uint64(feature)
                    row[begin + x] = (
                        w0 * a[first + x] + w1 * b[first + x] + w2 * c[first + x] + coarse[start + x] * ratio
                    )
            else:
                for feature in range(width):
                    total = coarse[m + feature] * ratio
                    for j in range(factor):
                        weight = grad[i, j * heads + head] if for_keys else grad[j, i * heads + head]
                        total += weight * other[j, p + feature]
                    row[o + feature] = total


@njit(**COMPILED)
@no_type_check
def _output_gradient(gradient, column, base, length, count, scale, window_start, out, options):
    """Compute the gradient of a window's output before up-sampling: for each of its frames, the sum of the gradients of all
    frames of the utterance to which it is copied. `window_start` is the window's first frame at this scale."""
    size = options.factor**scale
    for row in range(out.shape[0]):
        source, out_row = window_start + row, out[row]
        out_row[:] = 0
        if source >= count:
            continue
        if options.repeat:
            start, stop = source * size, length if source == count - 1 else (source + 1) * size
        else:
            start, stop = -(-source * length // count), -(-(source + 1) * length // count)
        first = np.uint64(column)
        for frame in range(start, stop):
            other = gradient[base + frame]
            for feature in range(out_row.shape[0]):
                out_row[feature] += other[first + np.uint64(feature)]


@compile_cached
@no_type_check
def backward(q, k, v, columns, gradient, dq, dk, dv, frames, tasks, lengths, options):
    """Compute the gradients of query, key and value for some tasks (see `forward`). `gradient`, the gradient of the output,
    and all results are contiguous, (batch * frames, features)."""
    named = KernelOptions(*options)
    for utterance, head, end in tasks:
        _backward(q, k, v, columns, gradient, dq, dk, dv, frames, utterance, head, end, lengths[utterance], named)


@njit(**COMPILED)
@no_type_check
def _window_backward(streams, columns, grad, grad_column, coarse, width, keys, options, position, scores, outs, column):
    """Differentiate one window. `streams` are its query, key and value, and `outs` their gradients, (factor, row) each;
    `grad` is the gradient of its output."""
    q, k, v = streams
    weights, products = scores[0], scores[2]
    weights_after_dropout = _weigh(streams, columns, width, keys, options, position, weights, scores[1])
    ratio = weights.dtype.type(1) / weights.dtype.type(options.factor)
    _mix_backward(
        v, columns[2], weights_after_dropout, grad, grad_column, coarse[2], ratio, width, outs[2], column, products
    )
    _weigh_backward(weights, weights.shape[1] // weights.shape[0], keys, options, position, products)
    _products_backward(products, False, k, columns[1], coarse[0], ratio, width, outs[0], column)
    _products_backward(products, True, q, columns[0], coarse[1], ratio, width, outs[1], column)


@njit(**COMPILED)
@no_type_check
def _backward(q, k, v, columns, gradient, dq, dk, dv, frames, utterance, head, end, length, options):
    """Compute the gradients for the heads from `head` to before `end` of one utterance of `length` frames."""
    factor, scales, heads = options.factor, options.scales, end - head
    width = gradient.shape[1] // options.heads
    # First column and number of columns of these heads in the gradients, and first row of the utterance.
    column, features, base = head * width, heads * width, utterance * frames
    layout = _layout(length, frames, utterance, factor, scales)
    # Means of query, key and value for one tile, and their gradients; row 0 of the gradients stays zero.
    pooled = np.zeros((3, layout.num_rows + 1, features), gradient.dtype)
    grads = np.zeros((3, layout.num_rows + 1, features), gradient.dtype)
    # An incomplete window's query, key and value (0 to 2) and their gradients (3 to 5); the gradient of a window's
    # output (6).
    partial = np.zeros((7, factor, features), gradient.dtype)
    # A window's weights before and after dropout, and the gradient of its weights and scores.
    scores = np.zeros((3, factor, factor * heads), gradient.dtype)
    for start in range(0, length, factor**scales):
        stop = min(length, start + factor**scales)
        _pool_tile(q, k, v, columns, column, base, start, stop, pooled, layout, options)
        for scale in range(scales - 1, -1, -1):
            count, size = min(layout.counts[scale], (start + factor**scales) // factor**scale), factor**scale
            for window in range(start // size // factor, (count + factor - 1) // factor):
                num_real, row = min(factor, count - window * factor), base + window * factor
                tile_row = layout.first_row[scale] + window * factor - start // size
                streams, first_columns = (partial[0], partial[1], partial[2]), (0, 0, 0)
                outs, out_column, grad, grad_column = (partial[3], partial[4], partial[5]), 0, partial[6], 0
                if scale:
                    rows = slice(tile_row, tile_row + factor)
                    streams = (pooled[0, rows], pooled[1, rows], pooled[2, rows])
                    outs = (grads[0, rows], grads[1, rows], grads[2, rows])
                    _output_gradient(
                        gradient, column, base, length, layout.counts[scale], scale, window * factor, grad, options
                    )
                elif num_real == factor:
                    streams = (q[row : row + factor], k[row : row + factor], v[row : row + factor])
                    first_columns = (columns[0] + column, columns[1] + column, columns[2] + column)
                    outs, out_column = (dq[row : row + factor], dk[row : row + factor], dv[row : row + factor]), column
                    grad, grad_column = gradient[row : row + factor], column
                else:
                    _copy(q[row : row + num_real], columns[0] + column, partial[0], 0, features, num_real)
                    _copy(k[row : row + num_real], columns[1] + column, partial[1], 0, features, num_real)
                    _copy(v[row : row + num_real], columns[2] + column, partial[2], 0, features, num_real)
                    _copy(gradient[row : row + num_real], column, grad, 0, features, num_real)
                # Row of the coarser frame that is the mean of this window; the row of zeros if there is none.
                coarse_row = 0
                if num_real == factor and scale + 1 < scales:
                    coarse_row = layout.first_row[scale + 1] + window - start // size // factor
                coarse = (grads[0, coarse_row], grads[1, coarse_row], grads[2, coarse_row])
                position = (layout.first_window[scale] + window) * factor * factor * options.heads + head
                keys = num_real if options.mask_window_padding else factor
                _window_backward(
                    streams,
                    first_columns,
                    grad,
                    grad_column,
                    coarse,
                    width,
                    keys,
                    options,
                    position,
                    scores,
                    outs,
                    out_column,
                )
                if scale == 0 and num_real < factor:
                    _copy(partial[3], 0, dq[row : row + num_real], column, features, num_real)
                    _copy(partial[4], 0, dk[row : row + num_real], column, features, num_real)
                    _copy(partial[5], 0, dv[row : row + num_real], column, features, num_real)
    for row in range(base + length, base + frames):
        dq[row, column : column + features] = 0
        dk[row, column : column + features] = 0
        dv[row, column : column + features] = 0


@njit(**COMPILED)
@no_type_check
def _pool_tile(q, k, v, columns, column, base, start, stop, pooled, layout, options):
    """Compute the means of queries, keys and values of a tile for all coarse scales; zero frames complete a window."""
    factor = options.factor
    for scale in range(1, options.scales):
        size = factor**scale
        first = start // size
        last = min(layout.counts[scale], -(-stop // size))
        for frame in range(first, last):
            tile_row = layout.first_row[scale] + frame - first
            if scale == 1:
                row = base + frame * factor
                _average(q[row : row + factor], columns[0] + column, pooled[0, tile_row])
                _average(k[row : row + factor], columns[1] + column, pooled[1, tile_row])
                _average(v[row : row + factor], columns[2] + column, pooled[2, tile_row])
            else:
                finer_row = layout.first_row[scale - 1] + (frame - first) * factor
                for stream in range(3):
                    _average(pooled[stream, finer_row : finer_row + factor], 0, pooled[stream, tile_row])
        for tile_row in range(
            layout.first_row[scale] + last - first, layout.first_row[scale] + layout.tile_rows[scale]
        ):
            pooled[:, tile_row] = 0
