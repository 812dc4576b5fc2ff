"""A range of bytes of a file, presented to a decoder as a file of its own."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

ENDLESS = 1 << 40
"""Size that an endless range declares, in bytes."""
TAIL = 128
"""Number of bytes at the end of a file in which a decoder looks for an ID3v1 tag. In an endless range they are zeros."""


class ByteRange(io.RawIOBase):
    """The bytes from `start` to `end` of a seekable stream.

    No method raises an error: the decoders, which are C libraries, would print it and behave as at the end of the file.
    `raise_failures` raises it afterwards.

    Args:
        stream: The stream; its position is moved.
        start: Position of the first byte.
        end: Position after the last byte.
        patches: Position in the range -> bytes that are read there instead of the stream's.
        endless: Declare a size that no file has. A decoder that estimates the length from the size (mpg123) then expects
            more than there is, and reads to the end.
    """

    def __init__(
        self,
        stream: IO[bytes],
        start: int,
        end: int,
        *,
        patches: Mapping[int, bytes] | None = None,
        endless: bool = False,
    ) -> None:
        self._stream, self._start, self._length = stream, start, end - start
        self._patches = dict(patches or {})
        self._size = ENDLESS if endless else self._length
        self._position = 0
        self._failure: Exception | None = None

    @contextmanager
    def raise_failures(self) -> Iterator[None]:
        """Raise the error with which reading the stream failed, if it did, at the end of this block or instead of another
        error in it."""
        try:
            yield
        except Exception:
            if self._failure is None:
                raise
        if self._failure is not None:
            raise self._failure

    def patch(self, patches: Mapping[int, bytes]) -> None:
        """Add patches."""
        self._patches |= patches

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in the range."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a position in the range and return it; return -1 for a position before the beginning."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            return -1
        self._position = origin + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Read into a buffer and return the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, count: int) -> bytes:
        at = self._position
        if at >= self._length:
            return bytes(min(count, self._size - at)) if at >= self._size - TAIL and at < self._size else b""
        try:
            self._stream.seek(self._start + at)
            data = self._stream.read(min(count, self._length - at))
        except Exception as error:
            self._failure = self._failure or error
            return b""
        for position, patch in self._patches.items():
            first, last = max(position, at), min(position + len(patch), at + len(data))
            if first < last:
                data = data[: first - at] + patch[first - position : last - position] + data[last - at :]
        return data
