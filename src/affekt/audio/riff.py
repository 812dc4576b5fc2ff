"""Correct the header of a WAV whose writer never completed its sizes, so that it is read to its end; find joined WAV files.

The containers are RIFF, RIFX (big-endian), and RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088), which have sizes of 64 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

BYTE_ORDERS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}
UNKNOWN = 0x7FFF_0000
"""Sizes of this or more mean "unknown"."""
MAX_CHUNKS = 10_000
"""Largest number of chunks that are read from a file."""
DS64_SIZES = 16
"""Bytes of an RF64's sizes of file and data, at the beginning of its ds64 chunk."""


class Chunk(NamedTuple):
    """The name of a chunk, the position of its content, and its declared size."""

    name: bytes
    start: int
    size: int


def find_joined(stream: IO[bytes]) -> list[int]:
    """Return the start of each WAV: the first, and those that follow directly after the end of another."""
    start, starts = 0, list[int]()
    while len(starts) < MAX_CHUNKS:
        starts.append(start)
        stream.seek(start)
        head = stream.read(8)
        length = int.from_bytes(head[4:], "big" if BYTE_ORDERS[head[:4]] == ">" else "little")
        for end in (start + 8 + length, start + 8 + length + length % 2):
            stream.seek(end)
            following = stream.read(12)
            if following[:4] in BYTE_ORDERS and following[8:] == b"WAVE":
                start = end
                break
        else:
            break
    return starts


def correct_header(stream: IO[bytes], size: int) -> dict[int, bytes]:
    """Return position -> bytes that replace a part of the header; {} if it is plausible, or the stream is not a WAV.

    libsndfile does not know the name BW64 for RF64.
    """
    stream.seek(0)
    name = {0: b"RF64"} if stream.read(4) == b"BW64" else {}
    return name | _correct_sizes(stream, size)


def _correct_sizes(stream: IO[bytes], size: int) -> dict[int, bytes]:
    """Return position -> bytes that replace wrong size fields.

    A size is wrong if it is 0 although audio follows, or if it goes beyond the end of the file and the size of the
    container does not. If both go beyond the end, the file was cut off.
    """
    stream.seek(0)
    head = stream.read(12)
    if head[:4] not in BYTE_ORDERS or head[8:] != b"WAVE":
        return {}
    order = BYTE_ORDERS[head[:4]]
    (container,) = struct.unpack(f"{order}I", head[4:8])
    ds64: int | None = None
    for chunk in _chunks(stream, order, 12, size):
        if chunk.name == b"ds64":
            ds64 = chunk.start
        if chunk.name == b"data":
            if ds64 is not None:
                return _correct_ds64(stream, size, chunk, ds64)
            present = size - chunk.start
            if chunk.size < UNKNOWN and _is_wrong(stream, order, chunk, size, container + 8):
                return {4: struct.pack(f"{order}I", size - 8), chunk.start - 4: struct.pack(f"{order}I", present)}
            return {}
    return {}


def _correct_ds64(stream: IO[bytes], size: int, data: Chunk, ds64: int) -> dict[int, bytes]:
    stream.seek(ds64)
    container, length = struct.unpack("<QQ", stream.read(DS64_SIZES))
    declared = length if data.size == 0xFFFF_FFFF else data.size
    if not _is_wrong(stream, "<", data._replace(size=declared), size, container + 8):
        return {}
    present = size - data.start
    return {ds64: struct.pack("<QQ", size - 8, present), data.start - 4: b"\xff" * 4}


def _is_wrong(stream: IO[bytes], order: str, data: Chunk, size: int, container_end: int) -> bool:
    """Return whether the declared size of the audio is wrong rather than the file cut off."""
    present = size - data.start
    if data.size == 0:
        return present > 0 and not _is_chunk_list(stream, order, data.start, size)
    return data.size > present and (container_end <= size or container_end - 8 >= UNKNOWN)


def _is_chunk_list(stream: IO[bytes], order: str, start: int, size: int) -> bool:
    """Return whether everything from a position to the end of the file is further chunks."""
    end = start
    for chunk in _chunks(stream, order, start, size):
        if not chunk.name.isascii() or not chunk.name.decode("ascii").isprintable():
            return False
        end = chunk.start + chunk.size
    return end in (size, size - 1)


def _chunks(stream: IO[bytes], order: str, start: int, size: int) -> Iterator[Chunk]:
    for _ in range(MAX_CHUNKS):
        stream.seek(start)
        header = stream.read(8)
        if len(header) < 8:
            return
        name, length = struct.unpack(f"{order}4sI", header)
        yield Chunk(name, start + 8, length)
        start += 8 + length + length % 2
        if start >= size:
            return
