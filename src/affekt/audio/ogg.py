"""Links of an Ogg file: streams that follow one another (RFC 3533, 4), as in recordings of radio and in joined files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple

HEADER = 27
"""Bytes of a page's header before its table of segments."""
CAPTURE = b"OggS\x00"
FIRST_PAGE = 2
"""Flag of the first page of a stream."""
CHUNK = 1 << 16


class Page(NamedTuple):
    """The position of a page, in bytes, and its flags."""

    start: int
    end: int
    flags: int
    complete: bool


def find_links(stream: IO[bytes], size: int) -> tuple[list[tuple[int, int]], int | None]:
    """Return the start and the end of each link, and the position of the first page that is incomplete, if there is one.

    Bytes between pages, and an incomplete last page of a link, belong to none.
    """
    links: list[tuple[int, int]] = []
    opening, broken = False, None  # opening: whether only first pages of the link were read so far
    for page in _pages(stream, size):
        if not page.complete:
            broken = page.start if broken is None else broken
            continue
        first = bool(page.flags & FIRST_PAGE)
        if first and not opening:
            links.append((page.start, page.end))
        elif links:
            links[-1] = links[-1][0], page.end
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
    end = position + HEADER + header[26] + sum(segments)
    return Page(position, end, header[5], complete=len(segments) == header[26] and end <= size)


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
