"""Inspect a file's container: which library decodes it, and whether it was cut off where the decoder would not notice.

MP4, m4a, mov: boxes (ISO/IEC 14496-12, 4.2). WebM, Matroska: EBML elements (RFC 8794). Ogg: pages (RFC 3533, 6).
MP3: the Xing header, in which an encoder records the number of bytes written. NIST SPHERE: the sample count in the header.
WavPack: the sample counts of its blocks (WavPack 5 file format, 2). TTA: the sizes of its frames.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import IO

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


def find_truncation(stream: IO[bytes], head: bytes) -> str | None:
    """Return the reason why a file is truncated, for a message; None if it is complete or its container does not show it."""
    stream.seek(0, os.SEEK_END)
    size = stream.tell()
    for offset, signature, check in CHECKS:
        if head.startswith(signature, offset):
            return check(stream, size)
    return None


def _check_boxes(stream: IO[bytes], size: int) -> str | None:
    kinds, start = set(), 0
    while start + 8 <= size:
        stream.seek(start)
        header = stream.read(16)
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            (length,) = struct.unpack(">Q", header[8:])
        elif length == 0:
            length = size - start  # up to the end of the file
        if kind in (b"moov", b"mdat", b"moof") and start + length > size:
            return f"its box {kind.decode()!r} declares {length} bytes, but only {size - start} exist"
        kinds.add(kind)
        start += max(length, 8)
    return None if b"moov" in kinds else "its table of contents ('moov') is missing"


def _check_elements(stream: IO[bytes], size: int) -> str | None:
    stream.seek(4)
    stream.seek(_read_element_size(stream) or 0, os.SEEK_CUR)
    if stream.read(4) != b"\x18\x53\x80\x67":
        return "it ends before its first segment"
    declared = _read_element_size(stream)  # None in a live recording
    present = size - stream.tell()
    if declared is None or declared <= present:
        return None
    return f"its segment declares {declared} bytes, but only {present} exist"


def _read_element_size(stream: IO[bytes]) -> int | None:
    """Read a variable-size integer (RFC 8794, 4): the leading zeros encode its length, and all ones mean "unknown" (None)."""
    first = stream.read(1)
    if first in (b"", b"\x00"):
        return None
    width = 9 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + stream.read(width - 1), "big")
    return None if value == (1 << 7 * width) - 1 else value


def _check_last_page(stream: IO[bytes], size: int) -> str | None:
    # The last page need not have the end-of-stream flag (4), which Android's voice messages and live recordings lack.
    # An incomplete page, however, shows that the file was cut off.
    stream.seek(max(0, size - 65_307))  # the maximum length of a page
    tail = stream.read()
    start = tail.rfind(b"OggS\x00")
    if start < 0:
        return None
    header, count = tail[start : start + 27], tail[start + 26 : start + 27]
    segments = tail[start + 27 : start + 27 + sum(count)]
    complete = (
        len(header) == 27 and len(segments) == sum(count) and len(tail) - start >= 27 + len(segments) + sum(segments)
    )
    return None if complete else "its last Ogg page is incomplete"


def _check_xing(stream: IO[bytes], size: int) -> str | None:
    stream.seek(0)
    tag = stream.read(10)
    # An ID3 tag comes first; its length is in four bytes of seven bits.
    stream.seek(10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(tag[6:])) if tag[:3] == b"ID3" else 0)
    frame = stream.read(64)
    position = max(frame.find(b"Xing"), frame.find(b"Info"))
    if position < 0 or len(frame) < position + 16 or not frame[position + 7] & 2:
        return None
    start = position + (12 if frame[position + 7] & 1 else 8)  # the number of frames comes first, if it is recorded
    declared = int.from_bytes(frame[start : start + 4], "big")
    # A difference of up to 1 % is tolerated, as in mpg123: programs that trim silence leave this header unchanged.
    return f"its header declares {declared} bytes, but only {size} exist" if size < 0.99 * declared else None


def _check_sphere(stream: IO[bytes], size: int) -> str | None:
    stream.seek(0)
    head = stream.read(HEAD)
    fields = dict(re.findall(rb"^(\w+) -\w+ (\S+)", head, re.MULTILINE))
    counts = [fields.get(name, b"") for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    if not all(count.isdigit() for count in counts) or b"," in fields.get(b"sample_coding", b""):  # compressed
        return None
    samples, channels, width = map(int, counts)
    declared, present = samples * channels * width, max(0, size - HEAD)
    return f"its header declares {declared} bytes of audio, but only {present} exist" if present < declared else None


def _check_wavpack(stream: IO[bytes], size: int) -> str | None:
    start, declared, present = 0, None, 0
    while True:
        stream.seek(start)
        header = stream.read(32)
        if len(header) < 32 or header[:4] != b"wvpk":  # a tag may follow the last block
            break
        length, total, index, samples = struct.unpack("<4xI4xIII", header[:24])
        if start + 8 + length > size:
            return "its last WavPack block is incomplete"
        if declared is None:
            declared = total
        present = max(present, index + samples)
        start += 8 + length
    if declared is None or declared == 0xFFFF_FFFF or present >= declared:  # all ones mean "unknown"
        return None
    return f"its header declares {declared} samples, but only {present} exist"


def _check_tta(stream: IO[bytes], size: int) -> str | None:
    stream.seek(0)
    header = stream.read(22)
    if len(header) < 22:
        return "it ends in its header"
    rate, samples = struct.unpack("<10xII4x", header)
    frame = max(1, 256 * rate // 245)
    frames = -(-samples // frame)
    if 22 + 4 * (frames + 1) > size:
        return "it ends in its table of frames"
    lengths = struct.unpack(f"<{frames}I", stream.read(4 * frames))
    declared = 22 + 4 * (frames + 1) + sum(lengths)
    return f"its frames need {declared} bytes, but only {size} exist" if declared > size else None


CHECKS: tuple[tuple[int, bytes, Callable[[IO[bytes], int], str | None]], ...] = (
    (4, b"ftyp", _check_boxes),
    (0, b"\x1a\x45\xdf\xa3", _check_elements),
    (0, b"OggS", _check_last_page),
    (0, b"ID3", _check_xing),
    (0, b"\xff", _check_xing),
    (0, b"NIST_1A", _check_sphere),
    (0, b"wvpk", _check_wavpack),
    (0, b"TTA1", _check_tta),
)
