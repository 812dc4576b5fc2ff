"""Correct the size of the audio in a CAF file that was cut off or whose size is unknown, which libsndfile refuses."""

from __future__ import annotations

import struct
from typing import IO, NamedTuple

HEADER = 12
"""Bytes of a chunk's header: its name and its size."""


class SizePatch(NamedTuple):
    """A correction of the size of the audio."""

    reason: str
    """Why audio is missing; "" if none is."""
    fraction: float
    """Missing fraction of the audio, 0 to 1."""
    patches: dict[int, bytes]
    """Position in the file -> the bytes to put there."""


def correct_size(stream: IO[bytes], size: int) -> SizePatch | None:
    """Return the correction of a file's size; None if the declared audio ends within the file, or it is not a CAF.

    Args:
        stream: The file.
        size: Size of the file, in bytes.
    """
    stream.seek(0)
    start = 8 if stream.read(4) == b"caff" else size
    while start + HEADER <= size:
        stream.seek(start)
        name, length = struct.unpack(">4sq", stream.read(HEADER))
        present = size - start - HEADER
        if name == b"data":
            if length == -1:  # "up to the end of the file", which libsndfile does not support
                return SizePatch("", 0.0, {start + 4: struct.pack(">q", present)})
            if length <= present:
                return None
            reason = f"its header declares {length} bytes of audio, but only {present} exist"
            return SizePatch(reason, (length - present) / length, {start + 4: struct.pack(">q", present)})
        if length < 0:
            return None
        start += HEADER + length
    return None
