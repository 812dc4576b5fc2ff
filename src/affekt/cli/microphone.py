"""Read live audio in chunks, from standard input or from a microphone."""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from affekt.errors import BadAudio, MissingExtra
from affekt.extras import need
from affekt.timeline.stream import Chunk

BLOCK = 0.05
"""Seconds of audio that are read at a time."""
MAX_WAITING = 200
"""Blocks that may wait to be recognized: 10 s. If more arrive, they are lost, which the stream reports as a gap."""


def read_input(rate: int, channels: int) -> Iterator[bytes]:
    """Yield standard input, interleaved 16-bit samples, as it arrives."""
    size = 2 * channels * round(BLOCK * rate)
    while data := os.read(sys.stdin.fileno(), size):  # returns what has arrived, without waiting for more
        yield data


def read_microphone(device: str | int | None, rate: int, channels: int) -> Iterator[Chunk]:
    """Yield the sound of a microphone until the program is interrupted.

    Args:
        device: The name or number of the device; None for the default.
        rate: The sample rate in Hz.
        channels: The number of channels.

    Raises:
        BadAudio: The device cannot be opened.
        MissingExtra: sounddevice or PortAudio, which it needs, is not installed.
    """
    try:
        library = need("sounddevice", extra="mic", purpose="listening to a microphone")
    except OSError as error:  # sounddevice does not bring PortAudio on Linux
        raise MissingExtra(
            f"listening to a microphone needs the library PortAudio ({error}): install it, on Debian and Ubuntu by "
            "apt install libportaudio2"
        ) from error
    blocks: queue.Queue[Chunk] = queue.Queue(MAX_WAITING)
    is_lost = False

    def receive(data: Any, _: int, time: Any, status: Any) -> None:
        nonlocal is_lost
        chunk = Chunk(np.array(data), time.inputBufferAdcTime, is_lost or bool(status.input_overflow))
        try:
            blocks.put_nowait(chunk)
            is_lost = False
        except queue.Full:
            is_lost = True

    try:
        source = library.InputStream(
            samplerate=rate,
            blocksize=round(BLOCK * rate),
            device=device,
            channels=channels,
            dtype="float32",
            callback=receive,
        )
    except (library.PortAudioError, ValueError) as error:
        raise BadAudio(
            f"the microphone {'' if device is None else device!r} cannot be opened: {error}; see `python -m sounddevice` for "
            "the devices",
            code="unreadable",
        ) from error
    with source:
        while True:
            yield blocks.get()
