"""From the binary messages of a stream to samples, by format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadAudio
from affekt.extras import need

OPUS_RATE = 48_000
"""Hz at which packets of Opus are decoded."""
Decode = Callable[[bytes], bytes | NDArray[Any]]


def make_decoder(name: str) -> Decode:
    """Return the decoder of a format, "s16le" or "opus".

    Raises:
        MissingExtra: The format needs an extra.
    """
    return OpusDecoder() if name == "opus" else bytes


class OpusDecoder:
    """Decodes packets of Opus, one per call, to mono samples at 48 kHz."""

    def __init__(self) -> None:
        self._av = need("av", extra="media", purpose="a stream of Opus")
        self._codec = self._av.CodecContext.create("opus", "r")
        self._resampler = self._av.AudioResampler(format="flt", layout="mono", rate=OPUS_RATE)

    def __call__(self, packet: bytes) -> NDArray[Any]:
        """Return the samples of a packet, (samples,). Raises `BadAudio` if it is no packet of Opus."""
        try:
            frames = [part for frame in self._codec.decode(self._av.Packet(packet)) for part in self._resample(frame)]
        except (self._av.FFmpegError, ValueError) as error:
            raise BadAudio(
                f"a message of {len(packet)} bytes is no packet of Opus: {error}", code="undecodable"
            ) from error
        return np.concatenate([np.zeros(0, np.float32), *frames])

    def _resample(self, frame: Any) -> list[NDArray[Any]]:
        return [part.to_ndarray().reshape(-1) for part in self._resampler.resample(frame)]
