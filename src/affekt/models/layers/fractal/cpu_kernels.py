"""Fractal attention compiled by numba: the work of one thread, for some heads of some utterances.

An utterance is processed in tiles of `factor**scales` frames, so that intermediate results stay in the CPU's cache: every
element of query, key and value is read from memory once, and every element of the output is written once (the backward pass
reads the inputs twice, the second time from the cache). Sums may be reordered, so that they can be vectorized; NaN stays NaN.

Arrays are rows of frames, (batch * frames, row); a stream's features begin at its first column, so the thirds of one fused
projection need no copy. Windows are (factor, row) slices. Everything is in one file, because numba's cache on disk only
notices changes of the file that contains the compiled function.
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
    """Compile a function on its first call and cache it on disk, beside this file or in the user's cache folder. If neither
    is writable, compile it in every process."""
    try:
        return njit(function, nogil=True, cache=True)
    except RuntimeError:
        return njit(function, nogil=True)


# The normal distribution function and the derivative of GELU, each minus one half and divided by x, as minimax polynomials in
# t = 2 (x / limit)**2 - 1, constant term first. Beyond the limit both are constant within 1e-7.
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
E0, E1, E2, E3, E4, E5, E6 = (
    np.float32(math.log(2) ** i / math.factorial(i)) for i in range(7)
)  # Taylor series of 2**x
TO_BINARY = np.float32(1 / math.log(2))
ZERO, ONE, HALF, SMALLEST = np.float32(0), np.float32(1), np.float32(0.5), np.float32(-126)
NORMAL_SCALE, SLOPE_SCALE = np.float32(2 / 5.25**2), np.float32(2 / 5.5**2)
ROOT_HALF, ROOT_CIRCLE = math.sqrt(0.5), math.sqrt(0.5 / math.pi)


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
    return lambda x: 0.5 * (1.0 + math.erf(ROOT_HALF * x)) + x * ROOT_CIRCLE * math.exp(-0.5 * x * x)


@overload(exponential, jit_options=COMPILED)
@no_type_check
def _exponential(x):
    if x == types.float32:

        @no_type_check
        def single(x):
            y = max(x * TO_BINARY, SMALLEST)
            whole = np.floor(y + HALF)
            power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)
            f = y - whole
            return power * ((((((E6 * f + E5) * f + E4) * f + E3) * f + E2) * f + E1) * f + E0)

        return single
    return lambda x: math.exp(x)


class KernelOptions(NamedTuple):
    """`FractalOptions` as the kernels take them."""

    heads: int
    factor: int
    scales: int
    masked: bool  # whether a softmax ignores zero frames
    repeat: bool  # up-sampling by repetition
    scale: Any  # factor of the scores
    growth: Any  # factor of the weights that dropout keeps; 1 without dropout
    threshold: Any  # random numbers of 32 bits below this are dropped
    seed: Any


class Layout(NamedTuple):
    """The arrangement of an utterance at each scale, in the buffers of a tile."""

    counts: Any  # frames of the utterance
    first: (
        Any  # first row of a tile, after one row for the last frame of the previous tile; the finest scale has no rows
    )
    rows: Any  # rows of a tile
    size: Any  # rows of all scales
    numbers: Any  # number of the first window


@njit(**COMPILED)
@no_type_check
def _random(position, seed):
    """Return a uniform 32-bit number for a position, like MurmurHash3's final steps with the seed's halves mixed in."""
    h = np.uint32(np.uint32(position * np.uint32(0x9E3779B1)) + np.uint32(seed))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32(np.uint32(h ^ np.uint32(seed >> np.uint64(32))) * np.uint32(0x2C1B3C6D))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


# Scores and weights of a window are (keys, queries * heads): a softmax sums over a column.


@njit(**COMPILED)
@no_type_check
def _products(a, a_column, b, b_column, width, scores):
    """Multiply every row of one window with every row of another: scores[j, i * heads + h] is for a's row i, b's row j."""
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
    """Apply a softmax over the first `keys` keys, in place; the others get zero."""
    one = scores.dtype.type(1)
    if keys == 3:
        s0, s1, s2 = scores[0], scores[1], scores[2]
        for x in range(scores.shape[1]):
            largest = max(max(s0[x], s1[x]), s2[x])
            e0, e1 = exponential((s0[x] - largest) * scale), exponential((s1[x] - largest) * scale)
            e2 = exponential((s2[x] - largest) * scale)
            inverse = one / (e0 + e1 + e2)
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
                scores[key, x] *= one / total
    scores[keys:] = 0


@njit(**COMPILED)
@no_type_check
def _drop(weights, dropped, heads, options, position):
    """Apply dropout. Its random numbers depend on the seed and the position only, so the backward pass draws the same."""
    factor = weights.shape[0]
    for key in range(factor):
        for query in range(factor):
            for head in range(heads):
                x = query * heads + head
                keep = _random(np.uint32(position + head), options.seed) >= options.threshold
                dropped[key, x] = weights[key, x] * options.growth if keep else weights.dtype.type(0)
            position += options.heads


@njit(**COMPILED)
@no_type_check
def _weigh(streams, columns, width, keys, options, position, weights, dropped):
    """Compute a window's attention weights; return them after dropout."""
    _products(streams[0], columns[0], streams[1], columns[1], width, weights)
    _softmax(weights, keys, options.scale)
    if options.growth == 1:
        return weights
    _drop(weights, dropped, weights.shape[1] // weights.shape[0], options, position)
    return dropped


@njit(**COMPILED)
@no_type_check
def _mix(v, v_column, weights, width, out, out_column):
    """Compute the GELU of the weighted values."""
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
    """Return which of `count` frames is up-sampled to this one of `frames` frames."""
    return min(frame // size, count - 1) if repeat else frame * count // frames


@njit(**COMPILED)
@no_type_check
def _layout(length, longest, utterance, factor, scales):
    counts, rows = np.empty(scales, np.int64), np.empty(scales, np.int64)
    first, numbers = np.empty(scales, np.int64), np.empty(scales, np.int64)
    size = number = 0
    for scale in range(scales):
        span = factor**scale
        counts[scale] = length // span
        rows[scale] = min(factor ** (scales - scale), factor * ((counts[scale] + factor - 1) // factor))
        first[scale] = size + 1
        size += rows[scale] + 1 if scale else 0
        numbers[scale] = number
        number += longest // span // factor + 1
    return Layout(counts, first, rows, size, numbers + utterance * number)


@compile_cached
@no_type_check
def forward(q, k, v, columns, out, frames, tasks, lengths, options):
    """Compute the tasks, (utterance, first head, last head + 1) each, into `out`, (batch * frames, features)."""
    for utterance, head, end in tasks:
        _forward(q, k, v, columns, out, frames, utterance, head, end, lengths[utterance], options)


@njit(**COMPILED)
@no_type_check
def _forward(q, k, v, columns, out, frames, utterance, head, end, length, options):
    factor, scales, heads = options.factor, options.scales, end - head
    width = out.shape[1] // options.heads
    low, features, begin = head * width, heads * width, utterance * frames
    layout = _layout(length, frames, utterance, factor, scales)
    gathered = np.zeros(
        (scales, 3, factor, features), out.dtype
    )  # the current window of each scale; at 0 an incomplete one
    outputs = np.zeros((layout.size, features), out.dtype)
    scores = np.zeros((2, factor, factor * heads), out.dtype)
    for start in range(0, length, factor**scales):
        stop = min(length, start + factor**scales)
        windows = (stop - start + factor - 1) // factor
        # All windows of the finest scale; at the end, the incomplete window of every coarser scale, if there is one.
        for step in range(windows + (scales - 1 if stop == length else 0)):
            scale = max(0, step - windows + 1)
            window = start // factor + step if scale == 0 else layout.counts[scale] // factor
            num_real = min(factor, layout.counts[scale] - window * factor)
            row, at = begin + window * factor, layout.first[scale] + window * factor - start // factor**scale
            streams, firsts = (gathered[scale, 0], gathered[scale, 1], gathered[scale, 2]), (0, 0, 0)
            target, first = outputs[at : at + factor], 0
            if num_real == 0:
                continue
            if scale == 0 and num_real == factor:
                streams = (q[row : row + factor], k[row : row + factor], v[row : row + factor])
                firsts = (columns[0] + low, columns[1] + low, columns[2] + low)
                target, first = out[row : row + factor], low
            elif scale == 0:
                _copy(q[row : row + num_real], columns[0] + low, streams[0], 0, features, num_real)
                _copy(k[row : row + num_real], columns[1] + low, streams[1], 0, features, num_real)
                _copy(v[row : row + num_real], columns[2] + low, streams[2], 0, features, num_real)
                target = streams[0]
            else:
                gathered[scale, :, num_real:] = 0
            while True:
                position = (layout.numbers[scale] + window) * factor * factor * options.heads + head
                keys = num_real if options.masked else factor
                kept_weights = _weigh(streams, firsts, width, keys, options, position, scores[0], scores[1])
                _mix(streams[2], firsts[2], kept_weights, width, target, first)
                slot, scale = window % factor, scale + 1
                if num_real < factor or scale == scales:
                    break
                for stream in range(3):
                    _average(streams[stream], firsts[stream], gathered[scale, stream, slot])
                if slot != factor - 1:
                    break
                # A complete window is a frame of the next scale, which has now completed a window there.
                window //= factor
                streams, firsts = (gathered[scale, 0], gathered[scale, 1], gathered[scale, 2]), (0, 0, 0)
                at = layout.first[scale] + window * factor - start // factor**scale
                target, first = outputs[at : at + factor], 0
            if num_real < factor and scale == 1:
                _copy(target, 0, out[row : row + num_real], low, features, num_real)
        _add_scales(out, low, features, begin, start, stop, length, outputs, layout, options)
        for scale in range(1, scales):
            outputs[layout.first[scale] - 1] = outputs[layout.first[scale] + layout.rows[scale] - 1]
    for row in range(begin + length, begin + frames):
        out[row, low : low + features] = 0


@njit(**COMPILED)
@no_type_check
def _add_scales(out, column, features, begin, start, stop, length, outputs, layout, options):
    """Up-sample the coarser scales of a tile and add them to its frames."""
    first = np.uint64(column)
    for frame in range(start, stop):
        row, size = out[begin + frame], 1
        for scale in range(1, options.scales):
            size *= options.factor
            if layout.counts[scale]:
                source = _source(frame, layout.counts[scale], length, size, options.repeat)
                other = outputs[layout.first[scale] + source - start // size]
                for feature in range(features):
                    row[first + np.uint64(feature)] += other[feature]


# The backward pass. Weights and mixed values are recomputed, from the coarsest scale to the finest: the gradient that a
# frame's query, key and value get from the next scale is a fraction of the gradient of that scale's frame.


@njit(**COMPILED)
@no_type_check
def _mix_backward(v, v_column, weights, grad, grad_column, coarse, ratio, width, dv, dv_column, products):
    """Differentiate `_mix`, given the gradient `grad` of its output. Write the gradient of the values, plus
    `ratio * coarse`, into dv, and that of the weights into `products`."""
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
    """Differentiate softmax and dropout in place: from the gradient of the weights after dropout to that of the products."""
    if options.growth != 1:
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
    """Differentiate `_products` by one side: the other side's rows, weighted by the gradient `grad` of the products, (keys,
    queries * heads), plus `ratio * coarse`. for_keys: by the keys instead of the queries."""
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
def _output_gradient(gradient, column, begin, length, count, scale, first, out, options):
    """Compute the gradient of a window's output before up-sampling, the sum over all frames that take it. The window's frames
    begin at `first`."""
    size = options.factor**scale
    for row in range(out.shape[0]):
        source, out_row = first + row, out[row]
        out_row[:] = 0
        if source >= count:
            continue
        if options.repeat:
            start, stop = source * size, length if source == count - 1 else (source + 1) * size
        else:
            start, stop = -(-source * length // count), -(-(source + 1) * length // count)
        at = np.uint64(column)
        for frame in range(start, stop):
            other = gradient[begin + frame]
            for feature in range(out_row.shape[0]):
                out_row[feature] += other[at + np.uint64(feature)]


@compile_cached
@no_type_check
def backward(q, k, v, columns, gradient, dq, dk, dv, frames, tasks, lengths, options):
    """Compute the gradients of query, key and value for some tasks, as in `forward`. `gradient` and all results are
    contiguous, (batch * frames, features)."""
    for utterance, head, end in tasks:
        _backward(q, k, v, columns, gradient, dq, dk, dv, frames, utterance, head, end, lengths[utterance], options)


@njit(**COMPILED)
@no_type_check
def _window_backward(streams, columns, grad, grad_column, coarse, width, keys, options, position, scores, outs, column):
    """Differentiate one window. `streams` and `outs` are three (factor, row) arrays; `coarse` has the gradients of the next
    scale's frame."""
    q, k, v = streams
    weights, products = scores[0], scores[2]
    kept_weights = _weigh(streams, columns, width, keys, options, position, weights, scores[1])
    ratio = weights.dtype.type(1) / weights.dtype.type(options.factor)
    _mix_backward(v, columns[2], kept_weights, grad, grad_column, coarse[2], ratio, width, outs[2], column, products)
    _weigh_backward(weights, weights.shape[1] // weights.shape[0], keys, options, position, products)
    _products_backward(products, False, k, columns[1], coarse[0], ratio, width, outs[0], column)
    _products_backward(products, True, q, columns[0], coarse[1], ratio, width, outs[1], column)


@njit(**COMPILED)
@no_type_check
def _backward(q, k, v, columns, gradient, dq, dk, dv, frames, utterance, head, end, length, options):
    factor, scales, heads = options.factor, options.scales, end - head
    width = gradient.shape[1] // options.heads
    low, features, begin = head * width, heads * width, utterance * frames
    layout = _layout(length, frames, utterance, factor, scales)
    pooled = np.zeros((3, layout.size + 1, features), gradient.dtype)
    grads = np.zeros(
        (3, layout.size + 1, features), gradient.dtype
    )  # of a tile, like `pooled`; the first row stays zero
    partial = np.zeros(
        (7, factor, features), gradient.dtype
    )  # an incomplete window, its gradients, and the gradient of a window's output
    scores = np.zeros((3, factor, factor * heads), gradient.dtype)
    for start in range(0, length, factor**scales):
        stop = min(length, start + factor**scales)
        _pool_tile(q, k, v, columns, low, begin, start, stop, pooled, layout, options)
        for scale in range(scales - 1, -1, -1):
            count, size = min(layout.counts[scale], (start + factor**scales) // factor**scale), factor**scale
            for window in range(start // size // factor, (count + factor - 1) // factor):
                num_real, row = min(factor, count - window * factor), begin + window * factor
                at = layout.first[scale] + window * factor - start // size
                streams, firsts = (partial[0], partial[1], partial[2]), (0, 0, 0)
                outs, column, grad, grad_column = (partial[3], partial[4], partial[5]), 0, partial[6], 0
                if scale:
                    streams = (pooled[0, at : at + factor], pooled[1, at : at + factor], pooled[2, at : at + factor])
                    outs = (
                        grads[0, at : at + factor],
                        grads[1, at : at + factor],
                        grads[2, at : at + factor],
                    )
                    _output_gradient(
                        gradient, low, begin, length, layout.counts[scale], scale, window * factor, grad, options
                    )
                elif num_real == factor:
                    streams = (q[row : row + factor], k[row : row + factor], v[row : row + factor])
                    firsts = (columns[0] + low, columns[1] + low, columns[2] + low)
                    outs, column = (dq[row : row + factor], dk[row : row + factor], dv[row : row + factor]), low
                    grad, grad_column = gradient[row : row + factor], low
                else:
                    _copy(q[row : row + num_real], columns[0] + low, partial[0], 0, features, num_real)
                    _copy(k[row : row + num_real], columns[1] + low, partial[1], 0, features, num_real)
                    _copy(v[row : row + num_real], columns[2] + low, partial[2], 0, features, num_real)
                    _copy(gradient[row : row + num_real], low, grad, 0, features, num_real)
                above = 0
                if num_real == factor and scale + 1 < scales:
                    above = layout.first[scale + 1] + window - start // size // factor
                coarse = (grads[0, above], grads[1, above], grads[2, above])
                position = (layout.numbers[scale] + window) * factor * factor * options.heads + head
                keys = num_real if options.masked else factor
                _window_backward(
                    streams,
                    firsts,
                    grad,
                    grad_column,
                    coarse,
                    width,
                    keys,
                    options,
                    position,
                    scores,
                    outs,
                    column,
                )
                if scale == 0 and num_real < factor:
                    _copy(partial[3], 0, dq[row : row + num_real], low, features, num_real)
                    _copy(partial[4], 0, dk[row : row + num_real], low, features, num_real)
                    _copy(partial[5], 0, dv[row : row + num_real], low, features, num_real)
    for row in range(begin + length, begin + frames):
        dq[row, low : low + features] = 0
        dk[row, low : low + features] = 0
        dv[row, low : low + features] = 0


@njit(**COMPILED)
@no_type_check
def _pool_tile(q, k, v, columns, low, begin, start, stop, pooled, layout, options):
    """Average queries, keys and values of a tile for all scales except the finest; zero frames complete a window."""
    factor = options.factor
    for scale in range(1, options.scales):
        size = factor**scale
        first = start // size
        last = min(layout.counts[scale], -(-stop // size))
        for frame in range(first, last):
            at = layout.first[scale] + frame - first
            if scale == 1:
                row = begin + frame * factor
                _average(q[row : row + factor], columns[0] + low, pooled[0, at])
                _average(k[row : row + factor], columns[1] + low, pooled[1, at])
                _average(v[row : row + factor], columns[2] + low, pooled[2, at])
            else:
                below = layout.first[scale - 1] + (frame - first) * factor
                for stream in range(3):
                    _average(pooled[stream, below : below + factor], 0, pooled[stream, at])
        for at in range(layout.first[scale] + last - first, layout.first[scale] + layout.rows[scale]):
            pooled[:, at] = 0
