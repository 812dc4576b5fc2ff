"""Divide a file into parts that libsndfile decodes to their ends: links of an Ogg file, joined MP3 and FLAC files.

libsndfile reads only the first part, stops at a tag after a FLAC, and stops in an MP3 where it estimates its end to be.
What an ordinary WAV does not need is imported inside functions, so that recognition starts fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from affekt.audio.notes import Reading
from affekt.audio.riff import mend_sizes
from affekt.audio.tags import find_audio_end, skip_leading_tags

FLAC = b"fLaC\x00\x00\x00\x22"
"""A FLAC's signature, with the beginning of its first metadata block, which always has 34 bytes."""
SLACK_FRAMES = 1
"""Number of frames that may be missing at the end of any MP3."""
CHUNK = 1 << 20


@dataclass
class Part:
    """A stream that is decoded on its own."""

    stream: IO[bytes]
    seconds: float | None = None
    """The duration, if the decoder can only estimate it."""


def divide(stream: IO[bytes], reading: Reading) -> list[Part]:
    """Return the parts of a file. A file of another format, or a damaged one, is a single part.

    Raises:
        BadAudio: A part is cut off, and reading is not lenient.
    """
    size = stream.seek(0, os.SEEK_END)
    size = stream.tell() if size is None else size
    start = skip_leading_tags(stream)
    stream.seek(start)
    head = stream.read(len(FLAC))
    parts: list[Part] = []
    if head.startswith(b"OggS"):
        parts = _divide_ogg(stream, size, reading)
    elif head == FLAC:
        parts = _divide_flac(stream, start, size)
    elif len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        parts = divide_mpeg(stream, size, reading)
    elif head[:4] in (b"RIFF", b"RIFX", b"RF64") and (patches := mend_sizes(stream, size)):
        parts = [_part(stream, 0, size, patches=patches)]
    elif head.startswith(b"caff"):
        parts = _mend_caf(stream, size, reading)
    stream.seek(0)
    return parts or [Part(stream)]


def _mend_caf(stream: IO[bytes], size: int, reading: Reading) -> list[Part]:
    from affekt.audio.caf import mend_size

    mended = mend_size(stream, size)
    if mended is None:
        return []
    reading.expect_loss(mended.reason, mended.fraction)
    return [_part(stream, 0, size, patches=mended.patches)]


def _divide_ogg(stream: IO[bytes], size: int, reading: Reading) -> list[Part]:
    from affekt.audio.ogg import find_links

    links, broken = find_links(stream, size)
    if broken is not None:
        reading.report_loss(f"its Ogg page at byte {broken} is incomplete or damaged")
    return [_part(stream, link.start, link.end, patches=link.patches) for link in links]


def _divide_flac(stream: IO[bytes], start: int, size: int) -> list[Part]:
    starts = list(_find_all(stream, FLAC, start))
    ends = [*starts[1:], find_audio_end(stream, size)]
    return [_part(stream, *span) for span in zip(starts, ends, strict=True)]


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
    return [_part(stream, part.start, part.end, part.seconds, endless=not part.has_length) for part in parts]


def _part(stream: IO[bytes], start: int, end: int, seconds: float | None = None, **options: Any) -> Part:
    from affekt.audio.stretch import Stretch

    return Part(cast(IO[bytes], Stretch(stream, start, end, **options)), seconds)


def _find_all(stream: IO[bytes], pattern: bytes, start: int) -> Iterator[int]:
    """Yield each position of a pattern from `start` on."""
    while True:
        stream.seek(start)
        data = stream.read(CHUNK)
        index = data.find(pattern)
        while index >= 0:
            yield start + index
            index = data.find(pattern, index + 1)
        if len(data) < CHUNK:
            return
        start += len(data) - len(pattern) + 1
