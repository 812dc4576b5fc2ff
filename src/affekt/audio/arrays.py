"""Read an array as blocks of floats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.sndfile import block_frames
from affekt.errors import BadAudio


def array_rate(array: NDArray[Any], sample_rate: float | None, name: str) -> int:
    """Return the sample rate of an array, after checking that it can be audio.

    Raises:
        BadAudio: The array cannot be audio, or has no sample rate.
    """
    if sample_rate is None:
        raise BadAudio(f"{name} has no sample rate: pass sample_rate=, in Hz", code="not_audio")
    is_number = isinstance(sample_rate, int | float | np.integer | np.floating) and not isinstance(sample_rate, bool)
    if not is_number or not 0 < sample_rate < np.inf or sample_rate != int(sample_rate):
        raise BadAudio(f"sample_rate {sample_rate!r}: expected a positive whole number of Hz", code="not_audio")
    if array.ndim not in (1, 2):
        raise BadAudio(f"{name} has {array.ndim} axes; expected (samples,) or (samples, channels)", code="not_audio")
    if array.size == 0:
        raise BadAudio(f"{name} is empty (0 samples)", code="empty")
    if array.dtype.kind not in "fiu":
        raise BadAudio(f"{name} has dtype {array.dtype}; expected floats or integers", code="not_audio")
    if array.dtype.itemsize > 4 and array.dtype.kind in "iu":
        raise BadAudio(
            f"{name} has dtype {array.dtype}, but audio has at most 32 bits per integer; pass int16, int32 or floats",
            code="not_audio",
        )
    if array.dtype == np.int32 and 0 < np.abs(array).max() <= 1 << 15:
        raise BadAudio(
            f"{name} has 16-bit values in int32, which would be almost silent; convert them to int16 or floats",
            code="not_audio",
        )
    return int(sample_rate)


def array_blocks(array: NDArray[Any], rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield an array as blocks (frames, channels) of floats. Integers are scaled by the range of their type."""
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # (channels, samples), as in torch: the longer axis is time
    frames = array.reshape(len(array), -1)
    step = block_frames(rate, frames.shape[1])
    for start in range(0, len(frames), step):
        block = frames[start : start + step]
        if block.dtype.kind == "f":
            with np.errstate(over="ignore"):  # values too large for float32 become infinite, which is checked later
                block = block.astype(np.float32)
            yield block
        else:
            info = np.iinfo(block.dtype)
            half = (int(info.max) - int(info.min) + 1) / 2
            yield ((block.astype(np.float64) - (half + int(info.min))) / half).astype(np.float32)
