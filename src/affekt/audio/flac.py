"""Frames and metadata of a FLAC file (RFC 9639), which show its length where its header states a smaller one."""

from __future__ import annotations

import os
from typing import IO

STREAM_INFO = 8
"""Position of the content of the first metadata block."""
TOTAL = STREAM_INFO + 13
"""Position of the 36 bits of the number of samples, which follow 4 other bits."""
TAIL = 1 << 18
"""Number of bytes at the end of a file in which the last frame is searched."""
BLOCK_SIZES = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}
"""Samples of a frame for the codes of its header; 6 and 7 mean that they follow in 1 and 2 bytes."""


def skip_metadata(stream: IO[bytes], start: int) -> int:
    """Return the position after the metadata blocks of the FLAC that begins at a position."""
    position, last = start + 4, False
    while not last:
        stream.seek(position)
        header = stream.read(4)
        if len(header) < 4:
            break
        last = bool(header[0] & 0x80)
        position += 4 + int.from_bytes(header[1:], "big")
    return position


def correct_total(stream: IO[bytes]) -> dict[int, bytes]:
    """Return position -> bytes that declare the number of samples as unknown; {} if the declared number is not too small."""
    stream.seek(0)
    head = stream.read(TOTAL + 5)
    if len(head) < TOTAL + 5:
        return {}
    declared = int.from_bytes(head[TOTAL:], "big") & 0xF_FFFF_FFFF
    first = skip_metadata(stream, 0)
    stream.seek(first)
    opening = stream.read(4)
    size = stream.seek(0, os.SEEK_END)
    start = max(first, size - TAIL)
    stream.seek(start)
    tail = stream.read(TAIL)
    index = tail.rfind(opening[:2]) if len(opening) == 4 else -1
    while index >= 0:
        end = _frame_end(tail[index : index + 16], opening, int.from_bytes(head[STREAM_INFO : STREAM_INFO + 2], "big"))
        if end is not None:
            return {TOTAL: bytes([head[TOTAL] & 0xF0, 0, 0, 0, 0])} if 0 < declared < end else {}
        index = tail.rfind(opening[:2], 0, index)
    return {}


def _frame_end(header: bytes, opening: bytes, block_size: int) -> int | None:
    """Return the number of the sample after a frame, if this is the header of a frame like the first one."""
    if len(header) < 16 or (header[2] ^ opening[2]) & 0x0F or header[3] & 0x0F != opening[3] & 0x0F:
        return None
    length = max(1, 8 - (header[4] ^ 0xFF).bit_length())  # the number is coded as in UTF-8
    number = header[4] & (0x7F if length == 1 else 0xFF >> length + 1)
    for byte in header[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    position = 4 + length
    size_code, rate_code = header[2] >> 4, header[2] & 0x0F
    count = BLOCK_SIZES.get(size_code, 0)
    if size_code in (6, 7):
        width = size_code - 5
        count = int.from_bytes(header[position : position + width], "big") + 1
        position += width
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if not count or _checksum(header[:position]) != header[position]:
        return None
    return count + number * (1 if header[1] & 1 else block_size)


def _checksum(data: bytes) -> int:
    """Return the CRC-8 of a frame's header, with the polynomial x^8 + x^2 + x + 1 (0x107)."""
    checksum = 0
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = (checksum << 1 ^ 0x107 if checksum & 0x80 else checksum << 1) & 0xFF
    return checksum
