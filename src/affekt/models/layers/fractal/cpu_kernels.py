"""Fractal attention compiled by numba: what one thread does, for some heads of some utterances.

An utterance is followed in tiles of `factor**scales` frames, so that what the scales hand to each other stays in the
processor's cache: every element of query, key and value is read from memory once, and every element of the output written
once (on the way back the inputs are read twice, the second time from the cache). Sums may be reordered, and so run in
vectors; NaN stays NaN.

Arrays are rows of frames, (batch * frames, row), of which a stream has the features from its first column on: the thirds of
one fused projection need no copy. Windows are (factor, row) slices. All is in one file, because numba's cache on disk only
notices a change of the file that the compiled function stands in.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, no_type_check

import numpy as np
from numba import njit, types
from numba.extending import overload

FAST = {"reassoc", "contract", "nsz", "arcp"}
COMPILED: dict[str, Any] = {"fastmath": FAST, "error_model": "numpy", "nogil": True}


def kept(function: Any) -> Any:
    """Compiled when it is first called, and kept on disk, beside this file or else in the user's folder for caches. Where
    neither can be written, it is compiled in every process."""
    try:
        return njit(function, nogil=True, cache=True)
    except RuntimeError:
        return njit(function, nogil=True)


# The normal distribution's function, and the derivative of GELU, each less a half and over x: polynomials in
# t = 2 (x / limit)**2 - 1 of least largest error, the constant first. Beyond the limit both are constant within 1e-7.
# tests/models/test_fractal_kernels.py measures them.
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
E0, E1, E2, E3, E4, E5, E6 = (np.float32(math.log(2) ** i / math.factorial(i)) for i in range(7))  # Taylor's, of 2**x
TO_BINARY = np.float32(1 / math.log(2))
ZERO, ONE, HALF, SMALLEST = np.float32(0), np.float32(1), np.float32(0.5), np.float32(-126)
NORMAL_SCALE, SLOPE_SCALE = np.float32(2 / 5.25**2), np.float32(2 / 5.5**2)
ROOT_HALF, ROOT_CIRCLE = math.sqrt(0.5), math.sqrt(0.5 / math.pi)


@no_type_check
def gelu(x):
    """x times the normal distribution's function; in 32 bits to 3e-7 of the larger of x and 1."""


@no_type_check
def gelu_slope(x):
    """The derivative of `gelu`."""


@no_type_check
def exponential(x):
    """e to the x, for x up to zero."""


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
    """scale: what scores are multiplied by. growth: of weights that dropout leaves, 1 without dropout; threshold: of 2**32,
    what it drops. masked: whether zero frames are kept out of the softmax. repeat: the other up-sampling."""

    heads: int
    factor: int
    scales: int
    masked: bool
    repeat: bool
    scale: Any
    growth: Any
    threshold: Any
    seed: Any


class Layout(NamedTuple):
    """Of an utterance at each scale: its frames; their rows in the buffers of a tile; and the numbering of its windows."""

    counts: Any
    first: Any  # of a tile's rows, behind a row for the last of the tile before; nothing is kept of the finest scale
    rows: Any
    size: Any  # rows in all
    numbers: Any


@njit(**COMPILED)
@no_type_check
def _random(place, seed):
    """A uniform 32-bit number for a place, in the manner of MurmurHash3's last steps, the seed's halves mixed in."""
    h = np.uint32(np.uint32(place * np.uint32(0x9E3779B1)) + np.uint32(seed))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    h = np.uint32(np.uint32(h ^ np.uint32(seed >> np.uint64(32))) * np.uint32(0x2C1B3C6D))
    h = np.uint32(np.uint32(h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


# Scores and weights of a window are (keys, queries * heads): what a softmax adds up lies one below the other.


@njit(**COMPILED)
@no_type_check
def _products(a, a_column, b, b_column, width, scores):
    """Of every row of one window with every row of another: scores[j, i * heads + h] is of a's row i and b's row j."""
    factor = a.shape[0]
    heads = scores.shape[1] // factor
    if factor == 3:
        _products_of_three(a, a_column, b, b_column, heads, width, scores)
        return
    for i in range(factor):
        for j in range(factor):
            one, other, row = a[i], b[j], scores[j]
            for head in range(heads):
                total = scores.dtype.type(0)
                p, r = np.uint64(a_column + head * width), np.uint64(b_column + head * width)
                for place in range(width):
                    x = np.uint64(place)
                    total += one[p + x] * other[r + x]
                row[i * heads + head] = total


@njit(**COMPILED)
@no_type_check
def _products_of_three(a, a_column, b, b_column, heads, width, scores):
    a0, a1, a2, b0, b1, b2 = a[0], a[1], a[2], b[0], b[1], b[2]
    r0, r1, r2 = scores[0], scores[1], scores[2]
    for head in range(heads):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = scores.dtype.type(0)
        p, r = np.uint64(a_column + head * width), np.uint64(b_column + head * width)
        for place in range(width):
            x, y = p + np.uint64(place), r + np.uint64(place)
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
    """In place, over the first `keys` keys; the others get nothing."""
    one = scores.dtype.type(1)
    if keys == 3:
        s0, s1, s2 = scores[0], scores[1], scores[2]
        for x in range(scores.shape[1]):
            largest = max(max(s0[x], s1[x]), s2[x])
            e0, e1 = exponential((s0[x] - largest) * scale), exponential((s1[x] - largest) * scale)
            e2 = exponential((s2[x] - largest) * scale)
            share = one / (e0 + e1 + e2)
            s0[x], s1[x], s2[x] = e0 * share, e1 * share, e2 * share
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
def _drop(weights, dropped, heads, options, place):
    """The weights that dropout leaves. Its numbers depend on seed and place alone: the way back draws the same."""
    factor = weights.shape[0]
    for key in range(factor):
        for query in range(factor):
            for head in range(heads):
                x = query * heads + head
                stays = _random(np.uint32(place + head), options.seed) >= options.threshold
                dropped[key, x] = weights[key, x] * options.growth if stays else weights.dtype.type(0)
            place += options.heads


@njit(**COMPILED)
@no_type_check
def _weigh(streams, columns, width, keys, options, place, weights, dropped):
    """A window's attention weights, and those that dropout leaves: the same without it."""
    _products(streams[0], columns[0], streams[1], columns[1], width, weights)
    _softmax(weights, keys, options.scale)
    if options.growth == 1:
        return weights
    _drop(weights, dropped, weights.shape[1] // weights.shape[0], options, place)
    return dropped


@njit(**COMPILED)
@no_type_check
def _mix(v, v_column, weights, width, out, out_column):
    """GELU of the weighted values."""
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
                for place in range(width):
                    x = np.uint64(place)
                    before = row[r + x] if j else weights.dtype.type(0)
                    row[r + x] = before + weight * value[p + x]
            for place in range(width):
                x = np.uint64(place)
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
        for place in range(width):
            x, y = p + np.uint64(place), r + np.uint64(place)
            a, b, c = v0[x], v1[x], v2[x]
            o0[y] = gelu(w0 * a + w1 * b + w2 * c)
            o1[y] = gelu(w3 * a + w4 * b + w5 * c)
            o2[y] = gelu(w6 * a + w7 * b + w8 * c)


@njit(**COMPILED)
@no_type_check
def _average(window, column, out):
    """The mean of a window's frames."""
    factor, first = window.shape[0], np.uint64(column)
    share = out.dtype.type(1) / out.dtype.type(factor)
    if factor == 3:
        a, b, c = window[0], window[1], window[2]
        for place in range(out.shape[0]):
            x = first + np.uint64(place)
            out[place] = (a[x] + b[x] + c[x]) * share
        return
    out[:] = 0
    for index in range(factor):
        row = window[index]
        for place in range(out.shape[0]):
            out[place] += row[first + np.uint64(place)] * share


@njit(**COMPILED)
@no_type_check
def _copy(rows, column, out, out_column, features, given):
    """The first `given` rows; what else there is in `out` becomes zero frames."""
    for row in range(given):
        out[row, out_column : out_column + features] = rows[row, column : column + features]
    for row in range(given, out.shape[0]):
        out[row, out_column : out_column + features] = 0


@njit(**COMPILED)
@no_type_check
def _source(frame, count, frames, size, repeat):
    """The frame, of `count`, that one of `frames` takes in up-sampling."""
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


@kept
@no_type_check
def forward(q, k, v, columns, out, frames, tasks, lengths, options):
    """Fractal attention of some tasks, (utterance, first head, end) each, into `out`, (batch * frames, features)."""
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
    )  # the window that each scale fills; at 0 one cut short
    outputs = np.zeros((layout.size, features), out.dtype)
    scores = np.zeros((2, factor, factor * heads), out.dtype)
    for start in range(0, length, factor**scales):
        stop = min(length, start + factor**scales)
        windows = (stop - start + factor - 1) // factor
        # The finest windows in turn; at the end, of every coarser scale the one that is not full, if there is one.
        for turn in range(windows + (scales - 1 if stop == length else 0)):
            scale = max(0, turn - windows + 1)
            window = start // factor + turn if scale == 0 else layout.counts[scale] // factor
            given = min(factor, layout.counts[scale] - window * factor)
            row, at = begin + window * factor, layout.first[scale] + window * factor - start // factor**scale
            streams, firsts = (gathered[scale, 0], gathered[scale, 1], gathered[scale, 2]), (0, 0, 0)
            target, first = outputs[at : at + factor], 0
            if given == 0:
                continue
            if scale == 0 and given == factor:
                streams = (q[row : row + factor], k[row : row + factor], v[row : row + factor])
                firsts = (columns[0] + low, columns[1] + low, columns[2] + low)
                target, first = out[row : row + factor], low
            elif scale == 0:
                _copy(q[row : row + given], columns[0] + low, streams[0], 0, features, given)
                _copy(k[row : row + given], columns[1] + low, streams[1], 0, features, given)
                _copy(v[row : row + given], columns[2] + low, streams[2], 0, features, given)
                target = streams[0]
            else:
                gathered[scale, :, given:] = 0
            while True:
                place = (layout.numbers[scale] + window) * factor * factor * options.heads + head
                keys = given if options.masked else factor
                left = _weigh(streams, firsts, width, keys, options, place, scores[0], scores[1])
                _mix(streams[2], firsts[2], left, width, target, first)
                turn_above, scale = window % factor, scale + 1
                if given < factor or scale == scales:
                    break
                for stream in range(3):
                    _average(streams[stream], firsts[stream], gathered[scale, stream, turn_above])
                if turn_above != factor - 1:
                    break
                # A window that is full is a frame of the next scale, and has filled a window there.
                window //= factor
                streams, firsts = (gathered[scale, 0], gathered[scale, 1], gathered[scale, 2]), (0, 0, 0)
                at = layout.first[scale] + window * factor - start // factor**scale
                target, first = outputs[at : at + factor], 0
            if given < factor and scale == 1:
                _copy(target, 0, out[row : row + given], low, features, given)
        _add_scales(out, low, features, begin, start, stop, length, outputs, layout, options)
        for scale in range(1, scales):
            outputs[layout.first[scale] - 1] = outputs[layout.first[scale] + layout.rows[scale] - 1]
    for row in range(begin + length, begin + frames):
        out[row, low : low + features] = 0


@njit(**COMPILED)
@no_type_check
def _add_scales(out, column, features, begin, start, stop, length, outputs, layout, options):
    """Up-sampling of a tile: what the coarser scales hold for each of its frames is added."""
    first = np.uint64(column)
    for frame in range(start, stop):
        row, size = out[begin + frame], 1
        for scale in range(1, options.scales):
            size *= options.factor
            if layout.counts[scale]:
                source = _source(frame, layout.counts[scale], length, size, options.repeat)
                other = outputs[layout.first[scale] + source - start // size]
                for place in range(features):
                    row[first + np.uint64(place)] += other[place]


# The way back. Weights and mixed values are computed again, scale by scale from the coarsest down: what a frame's queries,
# keys and values owe to the next scale is a share of what that scale's frame owes.


@njit(**COMPILED)
@no_type_check
def _unmix(v, v_column, weights, owed, owed_column, more, share, width, dv, dv_column, products):
    """Through `_mix`: owed is the gradient of its output. Gradient of the values, with a share of `more` added to each, into
    dv; of the weights, into `products`."""
    factor = v.shape[0]
    heads = weights.shape[1] // factor
    if factor == 3:
        _unmix_three(v, v_column, weights, heads, owed, owed_column, more, share, width, dv, dv_column, products)
        return
    products[:] = 0
    for head in range(heads):
        p, o, d = v_column + head * width, owed_column + head * width, dv_column + head * width
        for place in range(width):
            for j in range(factor):
                dv[j, d + place] = more[head * width + place] * share
            for i in range(factor):
                x = i * heads + head
                mixed = weights.dtype.type(0)
                for j in range(factor):
                    mixed += weights[j, x] * v[j, p + place]
                slope = owed[i, o + place] * gelu_slope(mixed)
                for j in range(factor):
                    dv[j, d + place] += weights[j, x] * slope
                    products[j, x] += slope * v[j, p + place]


@njit(**COMPILED)
@no_type_check
def _unmix_three(v, v_column, weights, heads, owed, owed_column, more, share, width, dv, dv_column, products):
    v0, v1, v2, g0, g1, g2, d0, d1, d2 = v[0], v[1], v[2], owed[0], owed[1], owed[2], dv[0], dv[1], dv[2]
    r0, r1, r2, p0, p1, p2 = weights[0], weights[1], weights[2], products[0], products[1], products[2]
    for head in range(heads):
        w0, w1, w2 = r0[head], r1[head], r2[head]
        w3, w4, w5 = r0[heads + head], r1[heads + head], r2[heads + head]
        w6, w7, w8 = r0[2 * heads + head], r1[2 * heads + head], r2[2 * heads + head]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = s8 = weights.dtype.type(0)
        p, o = np.uint64(v_column + head * width), np.uint64(owed_column + head * width)
        d, m = np.uint64(dv_column + head * width), np.uint64(head * width)
        for place in range(width):
            at = np.uint64(place)
            a, b, c = v0[p + at], v1[p + at], v2[p + at]
            f = g0[o + at] * gelu_slope(w0 * a + w1 * b + w2 * c)
            g = g1[o + at] * gelu_slope(w3 * a + w4 * b + w5 * c)
            h = g2[o + at] * gelu_slope(w6 * a + w7 * b + w8 * c)
            extra = more[m + at] * share
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
def _unweigh(weights, heads, keys, options, place, owed):
    """Through softmax and dropout, in place: from the gradient of what dropout left to that of the products."""
    if options.growth != 1:
        _drop(owed, owed, heads, options, place)
    for x in range(owed.shape[1]):
        total = owed.dtype.type(0)
        for key in range(keys):
            total += weights[key, x] * owed[key, x]
        for key in range(keys):
            owed[key, x] = weights[key, x] * (owed[key, x] - total) * options.scale
    owed[keys:] = 0


@njit(**COMPILED)
@no_type_check
def _spread(owed, turned, other, other_column, more, share, width, out, out_column):
    """Through `_products`, for one side: the other side's rows, weighed by what their products are owed, and a share of
    `more`. turned: for the keys' side; `owed` stands as (keys, queries * heads)."""
    factor = other.shape[0]
    heads = owed.shape[1] // factor
    for i in range(factor):
        row = out[i]
        for head in range(heads):
            p, o, m = other_column + head * width, out_column + head * width, head * width
            if factor == 3:
                if turned:
                    w0, w1, w2 = owed[i, head], owed[i, heads + head], owed[i, 2 * heads + head]
                else:
                    w0, w1, w2 = owed[0, i * heads + head], owed[1, i * heads + head], owed[2, i * heads + head]
                a, b, c = other[0], other[1], other[2]
                first, begin, start = np.uint64(p), np.uint64(o), np.uint64(m)
                for place in range(width):
                    x = np.uint64(place)
                    row[begin + x] = w0 * a[first + x] + w1 * b[first + x] + w2 * c[first + x] + more[start + x] * share
            else:
                for place in range(width):
                    total = more[m + place] * share
                    for j in range(factor):
                        weight = owed[i, j * heads + head] if turned else owed[j, i * heads + head]
                        total += weight * other[j, p + place]
                    row[o + place] = total


@njit(**COMPILED)
@no_type_check
def _owed(gradient, column, begin, length, count, scale, first, out, options):
    """Gradient of a window's output before up-sampling: the sum over all frames that take it. Frames from `first` on."""
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
            for place in range(out_row.shape[0]):
                out_row[place] += other[at + np.uint64(place)]


@kept
@no_type_check
def backward(q, k, v, columns, gradient, dq, dk, dv, frames, tasks, lengths, options):
    """Gradients of query, key and value for some tasks, as `forward` has them. `gradient` and all that is written are
    contiguous, (batch * frames, features)."""
    for utterance, head, end in tasks:
        _backward(q, k, v, columns, gradient, dq, dk, dv, frames, utterance, head, end, lengths[utterance], options)


@njit(**COMPILED)
@no_type_check
def _window_back(streams, columns, owed, owed_column, more, width, keys, options, place, scores, outs, column):
    """All of a window: streams and outs are three (factor, row) arrays; more, what the next scale's frame is owed of each."""
    q, k, v = streams
    weights, products = scores[0], scores[2]
    left = _weigh(streams, columns, width, keys, options, place, weights, scores[1])
    share = weights.dtype.type(1) / weights.dtype.type(options.factor)
    _unmix(v, columns[2], left, owed, owed_column, more[2], share, width, outs[2], column, products)
    _unweigh(weights, weights.shape[1] // weights.shape[0], keys, options, place, products)
    _spread(products, False, k, columns[1], more[0], share, width, outs[0], column)
    _spread(products, True, q, columns[0], more[1], share, width, outs[1], column)


@njit(**COMPILED)
@no_type_check
def _backward(q, k, v, columns, gradient, dq, dk, dv, frames, utterance, head, end, length, options):
    factor, scales, heads = options.factor, options.scales, end - head
    width = gradient.shape[1] // options.heads
    low, features, begin = head * width, heads * width, utterance * frames
    layout = _layout(length, frames, utterance, factor, scales)
    pooled = np.zeros((3, layout.size + 1, features), gradient.dtype)
    owing = np.zeros((3, layout.size + 1, features), gradient.dtype)  # of a tile, as `pooled`; the first row stays zero
    edge = np.zeros(
        (7, factor, features), gradient.dtype
    )  # a window cut short, its gradients, and what a window is owed
    scores = np.zeros((3, factor, factor * heads), gradient.dtype)
    for start in range(0, length, factor**scales):
        stop = min(length, start + factor**scales)
        _pool_tile(q, k, v, columns, low, begin, start, stop, pooled, layout, options)
        for scale in range(scales - 1, -1, -1):
            count, size = min(layout.counts[scale], (start + factor**scales) // factor**scale), factor**scale
            for window in range(start // size // factor, (count + factor - 1) // factor):
                given, row = min(factor, count - window * factor), begin + window * factor
                at = layout.first[scale] + window * factor - start // size
                streams, firsts = (edge[0], edge[1], edge[2]), (0, 0, 0)
                outs, column, owed, owed_column = (edge[3], edge[4], edge[5]), 0, edge[6], 0
                if scale:
                    streams = (pooled[0, at : at + factor], pooled[1, at : at + factor], pooled[2, at : at + factor])
                    outs = (owing[0, at : at + factor], owing[1, at : at + factor], owing[2, at : at + factor])
                    _owed(gradient, low, begin, length, layout.counts[scale], scale, window * factor, owed, options)
                elif given == factor:
                    streams = (q[row : row + factor], k[row : row + factor], v[row : row + factor])
                    firsts = (columns[0] + low, columns[1] + low, columns[2] + low)
                    outs, column = (dq[row : row + factor], dk[row : row + factor], dv[row : row + factor]), low
                    owed, owed_column = gradient[row : row + factor], low
                else:
                    _copy(q[row : row + given], columns[0] + low, edge[0], 0, features, given)
                    _copy(k[row : row + given], columns[1] + low, edge[1], 0, features, given)
                    _copy(v[row : row + given], columns[2] + low, edge[2], 0, features, given)
                    _copy(gradient[row : row + given], low, owed, 0, features, given)
                above = 0
                if given == factor and scale + 1 < scales:
                    above = layout.first[scale + 1] + window - start // size // factor
                more = (owing[0, above], owing[1, above], owing[2, above])
                place = (layout.numbers[scale] + window) * factor * factor * options.heads + head
                keys = given if options.masked else factor
                _window_back(
                    streams, firsts, owed, owed_column, more, width, keys, options, place, scores, outs, column
                )
                if scale == 0 and given < factor:
                    _copy(edge[3], 0, dq[row : row + given], low, features, given)
                    _copy(edge[4], 0, dk[row : row + given], low, features, given)
                    _copy(edge[5], 0, dv[row : row + given], low, features, given)
    for row in range(begin + length, begin + frames):
        dq[row, low : low + features] = 0
        dk[row, low : low + features] = 0
        dv[row, low : low + features] = 0


@njit(**COMPILED)
@no_type_check
def _pool_tile(q, k, v, columns, low, begin, start, stop, pooled, layout, options):
    """Queries, keys and values of a tile at all scales but the finest; zero frames where a window is not filled."""
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
