"""Mend the size of the audio in a CAF file that was cut off, which libsndfile otherwise refuses or does not report."""

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
    """Return how a file is mended; None if its audio does not go beyond its end."""
    start = 8
    while start + HEADER <= size:
        stream.seek(start)
        name, length = struct.unpack(">4sq", stream.read(HEADER))
        present = size - start - HEADER
        if name == b"data":
            if length <= present:  # a size of -1 means "to the end"
                return None
            reason = f"its header declares {length} bytes of audio, but only {present} exist"
            return Mended(reason, (length - present) / length, {start + 4: struct.pack(">q", present)})
        if length < 0:
            return None
        start += HEADER + length
    return None
