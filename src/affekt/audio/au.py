"""Correct the size of the audio in an AU file that was written to a pipe."""

from __future__ import annotations

from typing import IO, Literal

BYTE_ORDERS: dict[bytes, Literal["big", "little"]] = {b".snd": "big", b"dns.": "little"}
SIZE_POSITION = 8
"""Position of the field with the size of the audio, in bytes."""
UNKNOWN = 0x7FFF_0000
"""Sizes of this or more mean "unknown"."""


def correct_size(stream: IO[bytes], size: int) -> dict[int, bytes]:
    """Return position -> bytes that replace the declared size; {} if the size is plausible, or the stream is not an AU file.

    `size` is the size of the file, in bytes.
    """
    stream.seek(0)
    head = stream.read(12)
    order = BYTE_ORDERS.get(head[:4])
    if order is None or len(head) < 12:
        return {}
    start, declared = int.from_bytes(head[4:8], order), int.from_bytes(head[8:], order)
    if (declared == 0 or declared >= UNKNOWN) and start < size:
        return {SIZE_POSITION: (size - start).to_bytes(4, order)}
    return {}
