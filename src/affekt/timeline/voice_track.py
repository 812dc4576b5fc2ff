"""The samples of a waveform that are not cut yet, with the probability of speech of each frame and the regions of speech.

Samples are counted from the start of the waveform, at 16 kHz, and frames (`FRAME` samples) from the same point.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np

from affekt.audio.mono import SILENCE_RANGE
from affekt.audio.read import SAMPLE_RATE, SHORTEST, Waveform
from affekt.errors import BadAudio
from affekt.inference.voice_activity import FRAME, FRAME_SECONDS, Region, SpeechRegions, VadConfig, VoiceActivity
from affekt.interval import Interval
from affekt.timeline.piece import NO_AUDIO, Piece

SMOOTHING = 3
"""Number of frames over which probabilities are averaged to find where speech is cut."""
DISCARDED = 1 << 14
"""Minimum number of samples that are discarded at a time, about a second, since each time copies those that are kept."""
STEP = 1 << 19
"""Samples that are added at a time, so that a block of hours is not copied with every piece."""


def count_frames(seconds: float) -> int:
    """Return the number of frames that last at least this time."""
    return ceil(round(seconds / FRAME_SECONDS, 6))


def too_short(start: float, end: float, minimum: float, name: str = "segment") -> BadAudio:
    """Return the error of a segment that is too short to be recognized; times in seconds."""
    return BadAudio(
        f"the {name} from {start:.2f} to {end:.2f} s lasts {end - start:.2f} s; at least {minimum:g} s are needed",
        code="too_short",
    )


class VoiceTrack:
    """A waveform that is pushed in blocks, with its voice activity frame by frame."""

    def __init__(self, config: VadConfig | None = None) -> None:
        self._activity, self.regions = VoiceActivity(), SpeechRegions(config)
        self._samples: Waveform = NO_AUDIO
        self._first = 0
        """The first sample of `_samples`."""
        self._probabilities: list[float] = []
        """Those of the frames from `_first_frame` on."""
        self._first_frame = 0
        self._closed: list[Region] = []
        """Regions of speech that have ended, as far as they are kept."""

    @property
    def size(self) -> int:
        """Number of samples so far."""
        return self._first + self._samples.size

    @property
    def now(self) -> int:
        """The number of frames whose voice activity is known."""
        return self.regions.frames

    def add(self, block: Waveform) -> Iterator[Region | None]:
        """Add samples, and yield once for each frame that they complete: the region of speech that ends by it, or None."""
        for start in range(0, block.size, STEP):
            part = block[start : start + STEP]
            self._samples = np.concatenate([self._samples, part])
            yield from self._step(self._activity.add(part).tolist())

    def finish(self) -> Iterator[Region | None]:
        """Yield for the last, incomplete frame, and for the region of speech that lasts to the end."""
        yield from self._step(self._activity.finish().tolist())
        if region := self.regions.finish():
            self._closed.append(region)
            yield region

    def _step(self, probabilities: list[float]) -> Iterator[Region | None]:
        for probability in probabilities:
            self._probabilities.append(probability)
            region = self.regions.add(probability)
            if region:
                self._closed.append(region)
            yield region

    def discard(self, frame: int) -> None:
        """Forget what precedes a frame."""
        if frame > self._first_frame:
            del self._probabilities[: frame - self._first_frame]
            self._first_frame = frame
            self._closed = [region for region in self._closed if region.end > frame]
        start = frame * FRAME - self._first
        if start >= DISCARDED:
            self._samples = self._samples[start:].copy()
            self._first += start

    def samples(self, start: int, end: int) -> Waveform:
        """Return the samples from `start` to `end`, which must not have been discarded."""
        return self._samples[start - self._first : end - self._first].copy()

    def count_speech(self, start: int, end: int) -> float:
        """Return the seconds of speech between two samples, as far as it is known."""
        begun = self.regions.open
        frames = sum(r.overlap(start / FRAME, end / FRAME) for r in (*self._closed, *((begun,) if begun else ())))
        return round(frames * FRAME_SECONDS, 6)

    def least_speech(self, start: int, end: int) -> int:
        """Return the frame from `start` to `end` at which speech is least probable, averaged over `SMOOTHING` frames."""
        values = self._probabilities[max(0, start - 1 - self._first_frame) : end + 2 - self._first_frame]
        smooth = np.convolve(values, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
        return start + int(smooth[: end - start + 1].argmin())

    def piece(self, start: int, end: int, *, shortest: float = SHORTEST, interval: Interval | None = None) -> Piece:
        """Return the piece between two samples; it has an error if it is shorter than `shortest` seconds."""
        end = min(end, self.size)
        begin, stop = start / SAMPLE_RATE, end / SAMPLE_RATE
        if end - start < shortest * SAMPLE_RATE:
            error = too_short(begin, stop, shortest)
            return Piece(start, end, NO_AUDIO, self.count_speech(start, end), interval=interval, error=error)
        waveform = self.samples(start, end)
        is_silent = bool(np.ptp(waveform) < SILENCE_RANGE)
        return Piece(start, end, waveform, self.count_speech(start, end), is_silent, interval)
