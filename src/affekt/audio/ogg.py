"""Links of an Ogg file: streams that follow one another (RFC 3533, 4), as in recordings of radio and in joined files."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, NamedTuple

HEADER = 27
"""Bytes of a page's header before its table of segments."""
CAPTURE = b"OggS\x00"
FIRST_PAGE = 2
"""Flag of the first page of a stream."""
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""The bytes with their bits in the opposite order."""
CHUNK = 1 << 16
"""Number of bytes that are read at a time."""


class Page(NamedTuple):
    """The position of a page, in bytes, and its flags."""

    start: int
    end: int
    flags: int
    complete: bool
    remainder: bytes = b""
    """The packets that exist of a page that was cut off, as a complete page."""


@dataclass
class Link:
    """The position of a link, in bytes, and position in the link -> bytes that complete a page which was cut off."""

    start: int
    end: int
    patches: dict[int, bytes] = field(default_factory=dict)


def find_links(stream: IO[bytes], size: int) -> tuple[list[Link], int | None]:
    """Return the links, and the position of the first page that is incomplete or damaged.

    Bytes between pages belong to no link. The decoder skips damaged pages inside a link.
    """
    links: list[Link] = []
    opening, broken = False, None  # opening: whether only first pages of the link were read so far
    for page in _pages(stream, size):
        if not page.complete:
            broken = page.start if broken is None else broken
            if links and page.remainder:
                links[-1].end = page.start + len(page.remainder)
                links[-1].patches[page.start - links[-1].start] = page.remainder
            continue
        first = bool(page.flags & FIRST_PAGE)
        if first and not opening:
            links.append(Link(page.start, page.end))
        elif links:
            links[-1].end = page.end
        opening = first
    return links, broken


def _pages(stream: IO[bytes], size: int) -> Iterator[Page]:
    position = _find_capture(stream, 0, size)
    while position is not None:
        page = _read_page(stream, position, size)
        stream.seek(page.end)
        following: int | None = page.end
        if page.end > size or stream.read(len(CAPTURE)) != CAPTURE:
            # A page begins inside this one if this one was cut off; otherwise, other bytes follow it.
            following = _find_capture(stream, position + HEADER, min(page.end, size))
            if following is not None:
                page = page._replace(end=following, complete=False)
            elif page.end <= size:
                following = _find_capture(stream, page.end, size)
        yield page
        position = following


def _read_page(stream: IO[bytes], position: int, size: int) -> Page:
    stream.seek(position)
    header = stream.read(HEADER)
    if len(header) < HEADER:
        return Page(position, size + 1, 0, complete=False)
    segments = stream.read(header[26])
    content = stream.read(sum(segments))
    end = position + HEADER + header[26] + sum(segments)
    if len(segments) < header[26] or end > size:
        return Page(position, end, header[5], complete=False, remainder=_complete(header, segments, content))
    intact = header == _with_checksum(header + segments + content)[:HEADER]
    return Page(position, end, header[5], complete=intact)


def _complete(header: bytes, segments: bytes, content: bytes) -> bytes:
    """Return a page with the packets that exist of a page that was cut off; b"" if there are none."""
    size = count = whole_size = 0
    for index, length in enumerate(segments, start=1):
        size += length
        if size > len(content):
            break
        if length < 255:  # a packet ends here
            count, whole_size = index, size
    if not count:
        return b""
    return _with_checksum(header[:26] + bytes([count]) + segments[:count] + content[:whole_size])


def _with_checksum(page: bytes) -> bytes:
    return page[:22] + _checksum(page[:22] + bytes(4) + page[26:]) + page[26:]


def _checksum(page: bytes) -> bytes:
    """Return the checksum of a page. It is zlib's CRC with the bits in the opposite order, starting from zero."""
    crc = zlib.crc32(page.translate(REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return crc.to_bytes(4, "big").translate(REVERSED)


def _find_capture(stream: IO[bytes], start: int, end: int) -> int | None:
    """Return the position of the next page that begins between two positions."""
    while start < end:
        stream.seek(start)
        data = stream.read(CHUNK)
        index = data.find(CAPTURE)
        if index >= 0:
            return start + index if start + index < end else None
        if len(data) < CHUNK:
            return None
        start += len(data) - len(CAPTURE) + 1
    return None
