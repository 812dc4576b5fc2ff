"""Windows of a fixed length, which may overlap."""

from __future__ import annotations

from dataclasses import dataclass

from affekt.audio.read import SAMPLE_RATE, SHORTEST, Waveform
from affekt.errors import BadConfig
from affekt.inference.segments import LONGEST
from affekt.inference.voice_activity import FRAME
from affekt.timeline.piece import Piece
from affekt.timeline.voice_track import VoiceTrack


@dataclass(frozen=True)
class FixedWindows:
    """Segmentation into windows of `window` seconds, one of which begins every `hop` seconds.

    The last window is the first one that reaches the end of the recording; it is shorter, unless it ends there exactly. If it
    lasts less than `shortest`, it gets the error `too_short`.
    """

    window: float = 5.0
    """Seconds."""
    hop: float = 2.5
    """Seconds; at most `window`, so that no audio is left out."""
    shortest: float = 0.5
    """Seconds."""

    def __post_init__(self) -> None:
        longest = LONGEST / SAMPLE_RATE
        if not 0.5 <= self.window <= longest:
            raise BadConfig(
                f"window {self.window:g}: expected 0.5 to {longest:g} s, the lengths that the model can judge"
            )
        if not 0.1 <= self.hop <= self.window:
            raise BadConfig(f"hop {self.hop:g}: expected 0.1 s to the length of a window, {self.window:g} s")
        if not SHORTEST <= self.shortest <= self.window:
            raise BadConfig(f"shortest {self.shortest:g}: expected {SHORTEST} s to the length of a window")

    def __str__(self) -> str:
        return f"windows of {self.window:g} s every {self.hop:g} s"

    def segmenter(self) -> WindowSegmenter:
        """Return the segmenter of one waveform."""
        return WindowSegmenter(self)


class WindowSegmenter:
    """Cuts one waveform into windows (`affekt.timeline.piece.Segmenter`)."""

    def __init__(self, settings: FixedWindows) -> None:
        self._settings, self._track = settings, VoiceTrack()
        self._length = round(settings.window * SAMPLE_RATE)
        self._index = 0
        """The number of windows so far."""
        self._end = 0
        """The end of the last window, in samples."""

    @property
    def _start(self) -> int:
        return round(self._index * self._settings.hop * SAMPLE_RATE)

    def add(self, block: Waveform) -> list[Piece]:
        """Add samples, and return the windows that they complete."""
        return [piece for _ in self._track.add(block) for piece in self._step()]

    def finish(self) -> list[Piece]:
        """Return the remaining windows."""
        pieces = [piece for _ in self._track.finish() for piece in self._step()]
        return [*pieces, self._take()] if self._end < self._track.size else pieces

    def current(self) -> Piece | None:
        """Return the window that has begun first, as far as its voice activity is known."""
        end = min(self._track.now * FRAME, self._track.size)
        return self._track.piece(self._start, end) if end > self._start else None

    def _step(self) -> list[Piece]:
        """Consider the frame that the track has just reached."""
        pieces = []
        while self._start + self._length <= min(self._track.now * FRAME, self._track.size):
            pieces.append(self._take())
        return pieces

    def _take(self) -> Piece:
        self._end = min(self._start + self._length, self._track.size)
        piece = self._track.piece(self._start, self._end, shortest=self._settings.shortest)
        self._index += 1
        self._track.discard(min(self._start // FRAME, self._track.now))
        return piece
