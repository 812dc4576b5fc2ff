"""Cutting a recording into the windows that are recognized one by one: a few seconds of speech each, cut at pauses.

A recording of up to 8 s is one window. A longer one is cut in bounded memory, by the rule of the speech gate
(`affekt.audio.loudness`): a window has 2 to 6 s of speech if possible, and long pauses are windows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.audio.loudness import HOP, WINDOW, GateConfig, Power, find_speech, frame_power, is_steady
from affekt.audio.read import SAMPLE_RATE, Waveform

LONGEST = 8 * SAMPLE_RATE
"""Maximum length of a recording that is recognized as a whole, in samples. Models are trained on clips of a few seconds, and
worse on longer ones."""
MAX_BLOCK = 30 * SAMPLE_RATE
"""Largest number of samples that are processed at a time."""
FRAME_RATE = SAMPLE_RATE // HOP
"""Frames per second."""
CONTEXT = 20 * FRAME_RATE
"""Frames before and after a frame that decide whether there is speech in it. No window is much longer."""
MIN_SPEECH = 2 * FRAME_RATE
"""Frames of speech that a window should have at least."""
MAX_SPEECH = 6 * FRAME_RATE
"""Frames of speech that a window should have at most."""
LONG_PAUSE = 2 * FRAME_RATE
"""Frames from which a pause is a window of its own. Shorter pauses belong to the windows around them."""
SHORTEST_SPEECH = FRAME_RATE // 10
"""Frames of speech below which a window counts as a pause."""
MIN_WINDOW = FRAME_RATE // 5
"""Minimum length of a window, in frames. A shorter remainder of a recording belongs to the last window."""


@dataclass(frozen=True)
class Segment:
    """One of the consecutive windows of a recording."""

    waveform: Waveform
    speech: float
    """Seconds of speech, by its energy; 0 for a pause. The whole duration of a recording that is a single window."""


def cut_segments(blocks: Iterable[Waveform]) -> Iterator[Segment]:
    """Join blocks of a waveform and cut them into consecutive windows.

    The windows do not depend on how the waveform is divided into blocks, and memory holds at most 50 s and one block.
    """
    pending, cutter = list[Waveform](), None
    size = 0
    for block in blocks:
        if cutter is None:
            pending.append(block)
            size += block.size
            if size <= LONGEST:
                continue
            cutter, block = _Cutter(), np.concatenate(pending)
        yield from cutter.add(block)
    if cutter is None:
        waveform = np.concatenate(pending) if pending else np.zeros(0, np.float32)
        yield Segment(waveform, waveform.size / SAMPLE_RATE)
    else:
        yield from cutter.finish()


class _Cutter:
    """Cuts a long recording into windows. Each begins at a frame, and all but the last have a whole number of frames."""

    def __init__(self) -> None:
        self.config = GateConfig()
        self.samples: Waveform = np.zeros(0, np.float32)
        """The samples that are not yet cut."""
        self.unframed: Waveform = np.zeros(WINDOW // 2, np.float32)
        """The samples from the start of the next frame on; frames are centered, as in Whisper's log-mel."""
        self.past: Power = np.zeros(0)
        """The power of the last frames before `samples`, which are already cut: at most CONTEXT frames."""
        self.power: Power = np.zeros(0)
        """The power of the frames of `samples`, as far as it is known."""

    def add(self, block: Waveform) -> Iterator[Segment]:
        """Add samples, and yield the windows that they complete."""
        # Piece by piece, so that a block of hours is not copied with every window.
        for start in range(0, block.size, MAX_BLOCK):
            self._append(block[start : start + MAX_BLOCK])
            while self.power.size >= CONTEXT:
                yield self._cut(finished=False)

    def finish(self) -> Iterator[Segment]:
        """Yield the remaining windows."""
        self._frame(np.zeros(WINDOW, np.float32))
        self.power = self.power[: self.samples.size // HOP]
        while self.samples.size:
            yield self._cut(finished=self.power.size <= CONTEXT)

    def _append(self, block: Waveform) -> None:
        self.samples = np.concatenate([self.samples, block])
        self._frame(block)

    def _frame(self, block: Waveform) -> None:
        self.unframed = np.concatenate([self.unframed, block])
        power = frame_power(self.unframed)
        self.unframed = self.unframed[power.size * HOP :]
        self.power = np.concatenate([self.power, power])

    def _cut(self, *, finished: bool) -> Segment:
        """Cut the next window. If `finished`, no further frames will follow."""
        future = self.power[:CONTEXT]
        power = np.concatenate([self.past, future])
        speech = find_speech(power, self.config)[self.past.size :]
        # The gate would keep steady noise. A short remainder may be a vowel, so it is judged together with what precedes it.
        if is_steady(future if future.size >= LONG_PAUSE else power):
            speech[:] = False
        length = find_cut(speech, finished=finished)
        if not finished:
            length = min(length, CONTEXT - MIN_WINDOW)  # so that the end of the recording is not too short for a window
        length = min(max(length, MIN_WINDOW), speech.size)
        is_last = finished and self.power.size - length < MIN_WINDOW
        size = self.samples.size if is_last else length * HOP
        spoken = int(speech[:length].sum())
        segment = Segment(self.samples[:size], spoken / FRAME_RATE if spoken >= SHORTEST_SPEECH else 0.0)
        self.past = np.concatenate([self.past, self.power[:length]])[-CONTEXT:]
        self.samples, self.power = self.samples[size:], self.power[length:]
        return segment


def find_cut(speech: NDArray[np.bool_], *, finished: bool) -> int:
    """Return the number of frames of the first window.

    Args:
        speech: Which of the next frames may contain speech.
        finished: Whether the recording ends after these frames.
    """
    if not speech.any():
        return speech.size
    first = int(speech.argmax())
    if first >= LONG_PAUSE:
        return first
    pauses = _find_pauses(speech, first)
    total = int(speech.sum())
    spoken = np.cumsum(speech)  # frames of speech up to each frame
    longest = next((start for start, end in pauses if end - start >= LONG_PAUSE), speech.size)
    if longest < MIN_WINDOW and longest < speech.size:  # the end of what was cut before, or a click
        return next((end for start, end in pauses if start == longest), longest)
    if spoken[min(longest, speech.size) - 1] <= MAX_SPEECH and (longest < speech.size or finished):
        return longest
    # The last two windows should have enough speech too.
    limit = max(MIN_SPEECH, min(MAX_SPEECH, total - MIN_SPEECH)) if finished else MAX_SPEECH
    middles = [(end - start, (start + end) // 2) for start, end in pauses if start < longest]
    candidates = [(length, middle) for length, middle in middles if MIN_SPEECH <= spoken[middle] <= limit]
    if candidates:
        return max(candidates)[1]
    if total < MAX_SPEECH:
        return middles[-1][1] if middles else speech.size
    return int(np.searchsorted(spoken, limit)) + 1


def _find_pauses(speech: NDArray[np.bool_], first: int) -> list[tuple[int, int]]:
    """Return the start and end of each pause after the first frame of speech."""
    edges = np.flatnonzero(np.diff(np.concatenate([speech[first:], [True]]).astype(np.int8))) + 1 + first
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]
