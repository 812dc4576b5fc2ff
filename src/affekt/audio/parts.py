"""Divide a file into parts that a decoder decodes to their ends: links of an Ogg file, joined files of other formats.

libsndfile reads only the first part, stops at a tag after a FLAC, and stops in an MP3 where it estimates its end to be.
What an ordinary WAV does not need is imported inside functions, so that recognition starts fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from affekt.audio import riff
from affekt.audio.byte_range import ByteRange
from affekt.audio.containers import find_joined_boxes
from affekt.audio.notes import Reading
from affekt.audio.sndfile import is_unknown
from affekt.audio.tags import find_audio_end

FLAC = b"fLaC\x00\x00\x00\x22"
"""A FLAC's signature, with the beginning of its first metadata block, which always has 34 bytes."""
SIGNATURES = {b"FLV\x01": 13, b"TTA1": 14, b".snd": 8}
"""Beginning of a format -> the number of bytes that are the same in joined files of one kind, and not found in audio."""
SLACK_FRAMES = 1
"""Number of frames that may be missing at the end of an MP3 without being refused as cut off."""
CHUNK = 1 << 20
"""Number of bytes that are searched at a time."""


@dataclass
class Part:
    """A stream that is decoded on its own."""

    stream: IO[bytes]
    seconds: float | None = None
    """The duration, if the decoder can only estimate it."""


def divide(stream: IO[bytes], reading: Reading, *, media: bool) -> list[Part]:
    """Return the parts of a file. A file whose parts cannot be told apart is a single part.

    Args:
        stream: The file, without tags at its beginning.
        reading: The reading that the file belongs to.
        media: Whether PyAV decodes the file, not libsndfile.

    Raises:
        BadAudio: A part is cut off, and reading is not lenient.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    parts: list[Part] = []
    if head.startswith(b"OggS"):
        parts = _divide_ogg(stream, size, reading)
    elif head.startswith(FLAC):
        parts = _divide_flac(stream, size)
    elif len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        parts = divide_mpeg(stream, size, reading)
    elif head[:4] in riff.BYTE_ORDERS and head[8:12] == b"WAVE":
        parts = _divide_riff(stream, size)
    elif head[4:8] == b"ftyp":
        parts = _parts(_byte_ranges(stream, find_joined_boxes(stream, size), size))
    elif length := SIGNATURES.get(head[:4]):
        starts = _find_all(stream, head[:length], 0)
        parts = _parts(
            [_correct_header(byte_range, reading) for byte_range in _byte_ranges(stream, list(starts), size)]
        )
    elif head[:4] in (b"dns.", b"caff"):
        parts = _parts([_correct_header(ByteRange(stream, 0, size), reading)])
    elif not media and is_unknown(stream, reading.name):
        parts = divide_mpeg(stream, size, reading)  # other bytes may precede the first frame
    return parts or _parts([ByteRange(stream, 0, size)])


def _correct_header(whole: ByteRange, reading: Reading) -> ByteRange:
    """Correct the size of the audio in the header of an AU or CAF, and return the file."""
    from affekt.audio import au, caf

    stream, size = cast(IO[bytes], whole), whole.seek(0, os.SEEK_END)
    whole.patch(au.correct_size(stream, size))
    if correction := caf.correct_size(stream, size):
        reading.expect_loss(correction.reason, correction.fraction)
        whole.patch(correction.patches)
    whole.seek(0)
    return whole


def _divide_ogg(stream: IO[bytes], size: int, reading: Reading) -> list[Part]:
    from affekt.audio.ogg import find_links

    links, broken = find_links(stream, size)
    if broken is not None:
        reading.report_loss(f"its Ogg page at byte {broken} is incomplete or damaged")
    return _parts([ByteRange(stream, link.start, link.end, patches=link.patches) for link in links])


def _divide_flac(stream: IO[bytes], size: int) -> list[Part]:
    from affekt.audio import flac

    starts: list[int] = []
    position: int | None = 0
    while position is not None:
        starts.append(position)
        position = _find(stream, FLAC, flac.skip_metadata(stream, position))
    byte_ranges = _byte_ranges(stream, starts, find_audio_end(stream, size))
    for byte_range in byte_ranges:
        byte_range.patch(flac.correct_total(cast(IO[bytes], byte_range)))
        byte_range.seek(0)
    return _parts(byte_ranges)


def _divide_riff(stream: IO[bytes], size: int) -> list[Part]:
    byte_ranges = _byte_ranges(stream, riff.find_joined(stream), size)
    for byte_range in byte_ranges:
        length = byte_range.seek(0, os.SEEK_END)
        byte_range.patch(riff.correct_header(cast(IO[bytes], byte_range), length))
        byte_range.seek(0)
    return _parts(byte_ranges)


def _parts(byte_ranges: list[ByteRange]) -> list[Part]:
    return [Part(cast(IO[bytes], byte_range)) for byte_range in byte_ranges]


def _byte_ranges(stream: IO[bytes], starts: list[int], end: int) -> list[ByteRange]:
    """Return the ranges that begin at these positions; the last one ends at `end`."""
    return [ByteRange(stream, *span) for span in zip(starts, [*starts[1:], end], strict=True)]


def divide_mpeg(stream: IO[bytes], size: int, reading: Reading) -> list[Part]:
    """Return the parts of an MP3; [] if the stream is not an MP3.

    Raises:
        BadAudio: A part has fewer frames than its header declares, and reading is not lenient.
    """
    from affekt.audio.mpeg import find_parts

    parts = find_parts(stream, size)
    for part in parts:
        if part.seconds_missing:
            total = part.seconds + part.seconds_missing
            reason = f"its header declares {total:.2f} s, but only {part.seconds:.2f} s exist"
            slack = SLACK_FRAMES * part.kind.samples / part.kind.rate
            reading.report_loss(reason, part.seconds_missing, total, slack=slack)
    byte_ranges = [ByteRange(stream, part.start, part.end, endless=not part.has_length) for part in parts]
    return [
        Part(cast(IO[bytes], byte_range), part.seconds) for byte_range, part in zip(byte_ranges, parts, strict=True)
    ]


def _find_all(stream: IO[bytes], pattern: bytes, start: int) -> Iterator[int]:
    """Yield each position of a pattern from `start` on."""
    position = _find(stream, pattern, start)
    while position is not None:
        yield position
        position = _find(stream, pattern, position + len(pattern))


def _find(stream: IO[bytes], pattern: bytes, start: int) -> int | None:
    """Return the first position of a pattern from `start` on; None if there is none."""
    while True:
        stream.seek(start)
        data = stream.read(CHUNK)
        index = data.find(pattern)
        if index >= 0:
            return start + index
        if len(data) < CHUNK:
            return None
        start += len(data) - len(pattern) + 1
