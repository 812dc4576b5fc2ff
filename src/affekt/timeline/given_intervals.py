"""Segments that are given: the sentences of a transcript, the turns of a diarization, the rows of a table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from affekt.audio.read import SAMPLE_RATE, SHORTEST, Waveform
from affekt.errors import BadAudio, BadConfig
from affekt.inference.segments import LONGEST
from affekt.inference.transcript import GIVEN
from affekt.inference.voice_activity import FRAME, FRAME_SECONDS
from affekt.interval import Interval
from affekt.timeline.piece import NO_AUDIO, Piece
from affekt.timeline.voice_track import VoiceTrack


@dataclass(frozen=True)
class GivenIntervals:
    """Segmentation into intervals that are given, which may overlap. Audio outside of them is not recognized.

    - An interval longer than `max_length` is cut where speech is least probable, and each part is a segment. A part has the
      words whose middle is in it; without times of words, each part has the whole text.
    - An interval that lasts less than `shortest` gets the error `too_short`, as does one after the end of the recording; one
      that ends after it is cut off there.
    """

    intervals: tuple[Interval, ...]
    max_length: float = 8.0
    """Seconds."""
    shortest: float = 0.5
    """Seconds."""
    name: str = "given intervals"
    """A description of the intervals."""
    text_by: str = GIVEN
    """Where their words come from."""

    def __post_init__(self) -> None:
        longest = LONGEST / SAMPLE_RATE
        if not 1 <= self.max_length <= longest or not SHORTEST <= self.shortest <= self.max_length:
            raise BadConfig(
                f"intervals with max_length {self.max_length:g} and shortest {self.shortest:g}: expected a maximum of 1 to "
                f"{longest:g} s, and a minimum of {SHORTEST} s to the maximum"
            )
        for interval in self.intervals:
            if not 0 <= interval.start < interval.end:
                raise BadConfig(
                    f"interval from {interval.start:g} to {interval.end:g} s: expected a start of 0 or more, and a later end"
                )

    def __str__(self) -> str:
        return self.name

    def segmenter(self) -> IntervalSegmenter:
        """Return the segmenter of one waveform."""
        return IntervalSegmenter(self)


@dataclass
class _Active:
    """An interval that has begun."""

    interval: Interval
    start: int
    """The first sample of the part that has begun."""
    end: int
    """The sample at which the interval ends."""
    is_cut: bool = False


class IntervalSegmenter:
    """Cuts one waveform into intervals (`affekt.timeline.piece.Segmenter`)."""

    def __init__(self, settings: GivenIntervals) -> None:
        self._settings, self._track = settings, VoiceTrack()
        self._waiting = sorted(settings.intervals, key=lambda interval: (-interval.start, -interval.end))
        """The intervals that have not begun; the next one is last."""
        self._active: list[_Active] = []
        self._max = int(settings.max_length / FRAME_SECONDS)

    def add(self, block: Waveform) -> list[Piece]:
        """Add samples, and return the pieces that they complete."""
        return [piece for _ in self._track.add(block) for piece in self._step()]

    def finish(self) -> list[Piece]:
        """Return the remaining pieces."""
        pieces = [piece for _ in self._track.finish() for piece in self._step()]
        pieces += [self._take(active, self._track.size) for active in self._active]
        return pieces + [self._after_end(interval) for interval in reversed(self._waiting)]

    def current(self) -> Piece | None:
        """Return the part of the interval that has begun last, as far as its voice activity is known."""
        end = min(self._track.now * FRAME, self._track.size)
        begun = [active for active in self._active if active.start < end]
        return self._track.piece(begun[-1].start, end, interval=begun[-1].interval) if begun else None

    def _step(self) -> list[Piece]:
        """Consider the frame that the track has just reached."""
        track, pieces = self._track, list[Piece]()
        known = min(track.now * FRAME, track.size)
        while self._waiting and self._waiting[-1].start * SAMPLE_RATE < known:
            interval = self._waiting.pop()
            samples = round(interval.start * SAMPLE_RATE), round(interval.end * SAMPLE_RATE)
            self._active.append(_Active(interval, *samples))
        for active in [*self._active]:
            first = -(-active.start // FRAME)
            if active.end <= known:
                pieces.append(self._take(active, active.end))
                self._active.remove(active)
            elif track.now - first >= self._max:
                cut = self._find_cut(first, active.end // FRAME) * FRAME
                active.is_cut = True
                pieces.append(self._take(active, cut))
                active.start = cut
        track.discard(min([known // FRAME - 1, *(active.start // FRAME for active in self._active)]))
        return pieces

    def _find_cut(self, start: int, end: int) -> int:
        """Return the frame at which the rest of an interval, from `start` to `end`, is cut, so that it has few parts."""
        longest = self._max
        parts = max(2, -(-(end - start) // longest))
        least = max(longest // 3, end - start - (parts - 1) * longest)
        return self._track.least_speech(start + least, start + max(least, longest * 5 // 6))

    def _take(self, active: _Active, end: int) -> Piece:
        """Return the part of an interval that ends at a sample."""
        interval = active.interval
        if active.is_cut and interval.words:
            start, stop = active.start / SAMPLE_RATE, end / SAMPLE_RATE
            if end >= active.end:
                stop = interval.end
            words = tuple(word for word in interval.words if start <= min((word.start + word.end) / 2, stop) < stop)
            interval = replace(interval, words=words, text=" ".join(word.text.strip() for word in words))
        return self._track.piece(active.start, end, shortest=self._settings.shortest, interval=interval)

    def _after_end(self, interval: Interval) -> Piece:
        size = self._track.size
        error = BadAudio(
            f"the segment from {interval.start:.2f} to {interval.end:.2f} s begins after the end of the recording, "
            f"{size / SAMPLE_RATE:.2f} s",
            code="too_short",
        )
        samples = round(interval.start * SAMPLE_RATE), round(interval.end * SAMPLE_RATE)
        return Piece(*samples, NO_AUDIO, 0.0, interval=interval, error=error)
