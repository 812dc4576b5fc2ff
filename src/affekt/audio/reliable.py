"""A source's stream with complete reads, and with errors that a user understands."""

from __future__ import annotations

import os
from typing import Any

from affekt.audio.sndfile import reason_of
from affekt.errors import BadAudio


class ReliableStream:
    """A binary stream that reads as many bytes as it is asked for, as only some of the streams in Python do.

    Args:
        stream: The stream of a source, open for reading.
        name: Its name in messages.

    Raises:
        BadAudio: By every method: the stream cannot be read, or is not binary.
    """

    def __init__(self, stream: Any, name: str) -> None:
        self._stream, self._name = stream, name

    def read(self, count: int = -1) -> bytes:
        """Return this number of bytes, fewer at the end of the stream; all of them if the number is negative."""
        pieces: list[bytes] = []
        remaining = count
        while remaining:
            piece = self._check(self._call(self._stream.read, remaining))
            pieces.append(piece)
            if not piece:
                break
            remaining -= len(piece) if count > 0 else 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        position = self._call(self._stream.seek, offset, whence)
        return int(self.tell() if position is None else position)

    def tell(self) -> int:
        """Return the position."""
        return int(self._call(self._stream.tell))

    def seekable(self) -> bool:
        """Return whether the stream can be positioned."""
        return bool(hasattr(self._stream, "seekable") and self._call(self._stream.seekable))

    def _check(self, data: Any) -> bytes:
        if data is None:
            raise BadAudio(
                f"{self._name} cannot be read: it does not wait for its data; open it in blocking mode",
                code="unreadable",
            )
        if not isinstance(data, bytes):
            raise BadAudio(
                f"{self._name} returns {type(data).__name__} instead of bytes: expected a file opened in mode 'rb'; for an "
                "asynchronous upload, pass its attribute `file`",
                code="not_audio",
            )
        return data

    def _call(self, method: Any, *arguments: int) -> Any:
        try:
            return method(*arguments)
        except Exception as error:  # a stream of the caller may raise anything, as a damaged compressed file does
            raise BadAudio(f"{self._name} cannot be read: {reason_of(error)}", code="unreadable") from error
