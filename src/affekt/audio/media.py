"""Decode with PyAV, from the extra `media`: m4a, mp4, webm and similar formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.containers import DEMUXERS
from affekt.audio.notes import Reading
from affekt.audio.sndfile import block_frames, reason_of
from affekt.errors import BadAudio
from affekt.extras import need


@contextmanager
def open_media(stream: IO[bytes], name: str) -> Iterator[tuple[Any, int]]:
    """Yield an open container with an audio track, and the track's sample rate.

    Raises:
        BadAudio: The stream is no such container, or has no audio.
        MissingExtra: PyAV is not installed.
    """
    av = need("av", extra="media", purpose=f"reading {name}")
    try:
        # PyAV would open a stream whose `mode` allows writing (a temporary file) for writing.
        # Tags in another encoding than UTF-8 are common, and have nothing to do with the audio.
        options = {"format_whitelist": DEMUXERS}
        container = av.open(stream, mode="r", options=options, metadata_errors="backslashreplace")
    except av.FFmpegError as error:
        raise BadAudio(f"{name} is not readable audio: {reason_of(error)}", code="not_audio") from error
    with container:
        context = container.streams.audio[0].codec_context if container.streams.audio else None
        if context is None or not context.sample_rate:
            raise BadAudio(f"{name} has no readable audio track", code="not_audio")
        yield container, int(context.sample_rate)


def media_duration(container: Any, rate: int, name: str) -> float:
    """Return the duration of an open container in seconds; a container that does not state it is decoded."""
    import av

    if container.duration:
        return float(container.duration / av.time_base)
    return sum(map(len, decode_media(container, rate, Reading(name, lenient=True)))) / rate


def decode_media(container: Any, rate: int, reading: Reading) -> Iterator[NDArray[np.float32]]:
    """Yield blocks (frames, channels) of a container's first audio track.

    Raises:
        BadAudio: The audio is damaged or cut off.
    """
    pieces: list[NDArray[np.float32]] = []
    size = 0
    for piece in _decode_packets(container, rate, reading):
        if pieces and piece.shape[1] != pieces[0].shape[1]:  # in a damaged file, the number of channels may change
            yield np.concatenate(pieces)
            pieces, size = [], 0
        pieces.append(piece)
        size += len(piece)
        if size >= block_frames(rate, piece.shape[1]):
            yield np.concatenate(pieces)
            pieces, size = [], 0
    if size:
        yield np.concatenate(pieces)


def _decode_packets(container: Any, rate: int, reading: Reading) -> Iterator[NDArray[np.float32]]:
    import av

    # Interleaved samples: PyAV crashes on planar frames with 8 or more channels, which it reads beyond their end.
    resampler = av.AudioResampler(format="flt", rate=rate)
    packets = container.demux(audio=0)
    read, ended = 0, False
    while not ended:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet else [None]
            ended = packet is None
            for frame in frames:
                for block in resampler.resample(frame):
                    read += block.samples
                    yield block.to_ndarray().reshape(block.samples, -1).astype(np.float32, copy=False)
        except (av.FFmpegError, ValueError) as error:  # ValueError: the number of channels changes
            reading.report_loss(f"{reason_of(error)}, after {read / rate:.2f} s", cut=False, cause=error)
