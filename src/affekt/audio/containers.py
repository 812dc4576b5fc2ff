"""Inspect a file's container: which library decodes it, and whether it was cut off where the decoder would not notice.

MP4, m4a, mov: boxes (ISO/IEC 14496-12, 4.2). WebM, Matroska: EBML elements (RFC 8794). NIST SPHERE: the sample count in the
header. Ogg and MP3 are inspected while they are divided into parts (`affekt.audio.ogg`, `affekt.audio.mpeg`).
WavPack: the sample counts of its blocks (WavPack 5 file format, 2). TTA: the sizes of its frames.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import IO, NamedTuple

HEAD = 1024
"""Bytes needed to identify a container, including a SPHERE header."""

MEDIA = (
    (4, b"ftyp"),  # mp4, m4a, mov, 3gp
    (0, b"\x1a\x45\xdf\xa3"),  # webm, mkv
    (0, b"\x30\x26\xb2\x75"),  # wma, wmv
    (0, b"#!AMR"),
    (0, b"FLV"),
    (0, b"\x00\x00\x01\xba"),  # mpeg
    (8, b"AVI "),
    (28, b"\x7fFLAC"),  # FLAC in Ogg: the first packet follows a page header of 28 bytes
    (28, b"Speex   "),
    (0, b"\x0bw"),  # AC-3, E-AC-3
    (0, b"wvpk"),  # WavPack
    (0, b"TTA1"),
)
"""Offset and signature of containers that PyAV reads and libsndfile does not."""
DEMUXERS = "mov,matroska,asf,amr,flv,mpeg,avi,aac,ogg,ac3,eac3,wv,tta"
"""PyAV's demuxers for these containers. No others are allowed: with a disguised playlist, ffmpeg would open any file that is
listed in it."""


def is_media(head: bytes) -> bool:
    """Return whether a file with this beginning is read by PyAV rather than by libsndfile."""
    adts = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0  # bare AAC
    return adts or any(head.startswith(signature, offset) for offset, signature in MEDIA)


class Truncation(NamedTuple):
    """A container that is shorter than it declares."""

    reason: str
    """The reason, for a message."""
    fraction: float | None
    """The fraction of the declared bytes that is missing; None if nothing can be decoded."""


def find_truncation(stream: IO[bytes], head: bytes) -> Truncation | None:
    """Return how a file is truncated; None if it is complete or its container does not show it."""
    stream.seek(0, os.SEEK_END)
    size = stream.tell()
    for offset, signature, check in CHECKS:
        if head.startswith(signature, offset):
            return check(stream, size)
    return None


def find_joined_boxes(stream: IO[bytes], size: int) -> list[int]:
    """Return the start of each MP4 in a file of one or several: each begins with `ftyp`, and has a `moov` of its own."""
    start, starts, kinds = 0, [0], set[bytes]()
    while start + 8 <= size:
        length, kind = _read_box(stream, start, size)
        if kind == b"ftyp" and b"moov" in kinds:
            starts.append(start)
            kinds = set()
        kinds.add(kind)
        start += max(length, 8)
    return starts if b"moov" in kinds or len(starts) == 1 else starts[:-1]


def _read_box(stream: IO[bytes], start: int, size: int) -> tuple[int, bytes]:
    """Return the length and the name of the box that begins at a position."""
    stream.seek(start)
    header = stream.read(16)
    length, kind = struct.unpack(">I4s", header[:8])
    if length == 1 and len(header) == 16:
        (length,) = struct.unpack(">Q", header[8:])
    return size - start if length == 0 else length, kind  # 0: up to the end of the file


def _check_boxes(stream: IO[bytes], size: int) -> Truncation | None:
    kinds, start = set(), 0
    while start + 8 <= size:
        length, kind = _read_box(stream, start, size)
        if kind in (b"moov", b"mdat", b"moof") and start + length > size:
            reason = f"its box {kind.decode()!r} declares {length} bytes, but only {size - start} exist"
            if kind == b"mdat" and b"moov" not in kinds:  # the table of contents should follow
                return Truncation(reason, None)
            return Truncation(reason, (start + length - size) / (start + length))
        kinds.add(kind)
        start += max(length, 8)
    return None if b"moov" in kinds else Truncation("its table of contents ('moov') is missing", None)


def _check_elements(stream: IO[bytes], size: int) -> Truncation | None:
    stream.seek(4)
    stream.seek(_read_element_size(stream) or 0, os.SEEK_CUR)
    if stream.read(4) != b"\x18\x53\x80\x67":
        return Truncation("it ends before its first segment", None)
    declared = _read_element_size(stream)  # None in a live recording
    present = size - stream.tell()
    if declared is None or declared <= present:
        return None
    return Truncation(
        f"its segment declares {declared} bytes, but only {present} exist", (declared - present) / declared
    )


def _read_element_size(stream: IO[bytes]) -> int | None:
    """Read a variable-size integer (RFC 8794, 4): the leading zeros encode its length, and all ones mean "unknown" (None)."""
    first = stream.read(1)
    if first in (b"", b"\x00"):
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + stream.read(width - 1), "big")
    return None if value == (1 << 7 * width) - 1 else value


def _check_sphere(stream: IO[bytes], size: int) -> Truncation | None:
    stream.seek(0)
    head = stream.read(HEAD)
    fields = dict(re.findall(rb"^(\w+) -\w+ (\S+)", head, re.MULTILINE))
    counts = [fields.get(name, b"") for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    if not all(count.isdigit() for count in counts) or b"," in fields.get(b"sample_coding", b""):  # compressed
        return None
    samples, channels, width = map(int, counts)
    declared, present = samples * channels * width, max(0, size - HEAD)
    if present >= declared:
        return None
    reason = f"its header declares {declared} bytes of audio, but only {present} exist"
    return Truncation(reason, (declared - present) / declared)


def _check_wavpack(stream: IO[bytes], size: int) -> Truncation | None:
    start, declared, present, incomplete = 0, None, 0, False
    while True:
        stream.seek(start)
        header = stream.read(32)
        if len(header) < 32 or header[:4] != b"wvpk":  # a tag may follow the last block
            break
        length, total, index, samples = struct.unpack("<4xI4xIII", header[:24])
        if declared is None:
            declared = total
        if start + 8 + length > size:
            incomplete = True
            break
        present = max(present, index + samples)
        start += 8 + length
    if declared is None or declared == 0xFFFF_FFFF:  # all ones mean "unknown"
        return Truncation("its last WavPack block is incomplete", 1.0) if incomplete else None
    if present >= declared:
        return None
    reason = f"its header declares {declared} samples, but only {present} exist"
    return Truncation(reason, (declared - present) / declared)


def _check_tta(stream: IO[bytes], size: int) -> Truncation | None:
    stream.seek(0)
    header = stream.read(22)
    if len(header) < 22:
        return Truncation("it ends in its header", None)
    rate, samples = struct.unpack("<10xII4x", header)
    frame = max(1, 256 * rate // 245)
    frames = -(-samples // frame)
    if 22 + 4 * (frames + 1) > size:
        return Truncation("it ends in its table of frames", None)
    lengths = struct.unpack(f"<{frames}I", stream.read(4 * frames))
    declared = 22 + 4 * (frames + 1) + sum(lengths)
    if declared <= size:
        return None
    return Truncation(f"its frames need {declared} bytes, but only {size} exist", (declared - size) / declared)


CHECKS: tuple[tuple[int, bytes, Callable[[IO[bytes], int], Truncation | None]], ...] = (
    (4, b"ftyp", _check_boxes),
    (0, b"\x1a\x45\xdf\xa3", _check_elements),
    (0, b"NIST_1A", _check_sphere),
    (0, b"wvpk", _check_wavpack),
    (0, b"TTA1", _check_tta),
)
