"""Mend the size of the audio in a CAF file that was cut off or whose size is unknown, which libsndfile refuses."""

from __future__ import annotations

import struct
from typing import IO, NamedTuple

HEADER = 12
"""Bytes of a chunk's header: its name and its size."""


class Mended(NamedTuple):
    """The reason why a file is truncated, the missing fraction of its audio, and position -> bytes that replace its size."""

    reason: str
    fraction: float
    patches: dict[int, bytes]


def mend_size(stream: IO[bytes], size: int) -> Mended | None:
    """Return how a file is mended; None if its audio does not go beyond its end, or it is no CAF."""
    stream.seek(0)
    start = 8 if stream.read(4) == b"caff" else size
    while start + HEADER <= size:
        stream.seek(start)
        name, length = struct.unpack(">4sq", stream.read(HEADER))
        present = size - start - HEADER
        if name == b"data":
            if length == -1:  # up to the end, which libsndfile does not know
                return Mended("", 0.0, {start + 4: struct.pack(">q", present)})
            if length <= present:
                return None
            reason = f"its header declares {length} bytes of audio, but only {present} exist"
            return Mended(reason, (length - present) / length, {start + 4: struct.pack(">q", present)})
        if length < 0:
            return None
        start += HEADER + length
    return None
