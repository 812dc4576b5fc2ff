"""A piece of a recording, as segmentation cuts it: what becomes one segment of a timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadAudio
from affekt.interval import Interval

NO_AUDIO: Waveform = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Piece:
    """A piece of a recording, with the audio that is needed to recognize it."""

    start: int
    """First sample at 16 kHz."""
    end: int
    """The sample after the last one."""
    waveform: Waveform
    """(end - start,); (0,) for a piece without speech or with an error, which is not recognized."""
    speech: float
    """Seconds of speech, by voice activity detection."""
    is_silent: bool = False
    """Whether it is digital silence."""
    interval: Interval | None = None
    """The interval that it belongs to, if intervals are given."""
    error: BadAudio | None = None
    """Why it cannot be recognized."""

    @property
    def start_seconds(self) -> float:
        return self.start / SAMPLE_RATE

    @property
    def end_seconds(self) -> float:
        return self.end / SAMPLE_RATE


class Segmenter(Protocol):
    """Cuts a waveform, which is pushed block by block, into pieces.

    The pieces do not depend on how the waveform is divided into blocks, and memory does not grow with its length.
    """

    def add(self, block: Waveform) -> list[Piece]:
        """Add samples, and return the pieces that they complete."""
        raise NotImplementedError

    def finish(self) -> list[Piece]:
        """Return the remaining pieces."""
        raise NotImplementedError

    def current(self) -> Piece | None:
        """Return the piece that has begun and is not complete, as far as its audio is known; None if there is none."""
        raise NotImplementedError
