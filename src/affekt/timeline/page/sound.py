"""The sound of a page: the recording in a compressed form that browsers play, if that is short enough."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE

MAX_LOSSLESS = 1 << 20
"""Bytes up to which a recording is embedded as FLAC, which every browser plays: about a minute."""
MAX_BYTES = 10 << 20
"""Bytes up to which it is embedded as Ogg Vorbis: about half an hour."""
SMALLEST_RATIO = 0.06
"""Size of Ogg Vorbis relative to 16-bit samples that speech does not go below. Longer recordings are not even
encoded."""


class Encoder:
    """A file in memory, to which blocks at 16 kHz are written until it is too large.

    Args:
        file_format: "FLAC" or "OGG".
        channels: The number of channels.
        limit: The largest size in bytes.
    """

    def __init__(self, file_format: str, channels: int, limit: int) -> None:
        import soundfile

        self._buffer, self._limit = io.BytesIO(), limit
        self._file: Any = soundfile.SoundFile(self._buffer, "w", SAMPLE_RATE, channels, format=file_format)

    def write(self, block: NDArray[np.float32]) -> None:
        """Write the next block, unless the file is too large already."""
        if self._file is None:
            return
        for start in range(0, len(block), SAMPLE_RATE):  # the encoder of Vorbis overflows its stack with long blocks
            self._file.write(block[start : start + SAMPLE_RATE])
        if self._buffer.tell() > self._limit:
            self._close()

    def _close(self) -> None:
        self._file.close()
        self._file = None

    def data(self) -> bytes | None:
        """Complete the file and return it; None if it is too large."""
        if self._file is None:
            return None
        self._close()
        return self._buffer.getvalue() if self._buffer.tell() <= self._limit else None


class Sound:
    """The sound of a recording, from its consecutive blocks: (samples,), or (samples, channels).

    Two channels stay two; more are mixed to their mean.

    Args:
        duration: Seconds of the recording.
    """

    def __init__(self, duration: float) -> None:
        self._duration = duration
        self._encoders: dict[str, Encoder] | None = None

    def write(self, block: NDArray[np.float32]) -> None:
        """Write the next block."""
        if block.ndim > 1 and block.shape[1] != 2:
            block = block.mean(axis=1)
        if self._encoders is None:
            self._encoders = self._start(block.ndim)
        for encoder in self._encoders.values():
            encoder.write(block)

    def _start(self, channels: int) -> dict[str, Encoder]:
        encoders = {"audio/flac": Encoder("FLAC", channels, MAX_LOSSLESS)}
        if self._duration * SAMPLE_RATE * 2 * SMALLEST_RATIO <= MAX_BYTES:
            encoders["audio/ogg"] = Encoder("OGG", channels, MAX_BYTES)
        return encoders

    def url(self) -> str | None:
        """Return the sound as a data URL, without loss if it is short; None if it is too long."""
        for kind, encoder in (self._encoders or {}).items():
            if data := encoder.data():
                return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
        return None
