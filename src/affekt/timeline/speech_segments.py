"""Segments of speech: regions found by voice activity detection, joined across short pauses and cut where they are long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affekt.audio.mono import SILENCE_RANGE
from affekt.audio.read import SAMPLE_RATE, SHORTEST, Waveform
from affekt.errors import BadConfig
from affekt.inference.segments import LONGEST
from affekt.inference.voice_activity import FRAME, FRAME_SECONDS, Region
from affekt.timeline.piece import NO_AUDIO, Piece
from affekt.timeline.voice_track import VoiceTrack, count_frames

PADDING = 3
"""Frames of audio, 0.1 s, that a segment has before and after its speech."""
MIN_NON_SPEECH = 10
"""Frames, 0.3 s: shorter non-speech at the start or end of a recording belongs to the segment beside it."""

FORGETTING = 32
"""Frames without speech that are forgotten at a time."""


@dataclass(frozen=True)
class SpeechSegments:
    """Segmentation into speech and the non-speech between it; together, the segments cover the whole recording.

    - Regions of speech (`affekt.inference.voice_activity`) with a pause of at most `max_pause` between them are one segment.
    - A segment with less than `min_speech` of speech is also joined to the next region if the pause before it is at most
      `max_wait`. If it stays short, it is recognized all the same, unless it lasts less than `shortest`.
    - A segment shorter than `shortest`, with its padding of 0.1 s on both sides, gets the error `too_short`.
    - A segment that would be longer than `max_length` is cut where speech is least probable: at a pause, if there is one.
    - A segment is also cut at the times `changes`, such as those at which the speaker changes, unless what precedes the cut
      lasts less than `min_speech`.
    - The non-speech between segments of speech is a segment too, however long.
    """

    min_speech: float = 1.0
    """Seconds."""
    max_length: float = 6.0
    """Seconds. The model is trained on clips of 2 to 6 s."""
    max_pause: float = 0.5
    """Seconds."""
    max_wait: float = 1.5
    """Seconds."""
    shortest: float = 0.5
    """Seconds."""
    changes: tuple[float, ...] = ()
    """Seconds from the start of the recording."""

    def __post_init__(self) -> None:
        if not (self.max_length <= LONGEST / SAMPLE_RATE and 0 < self.min_speech <= self.max_length / 3):
            raise BadConfig(
                f"speech segments with min_speech {self.min_speech:g} and max_length {self.max_length:g}: expected at most "
                f"{LONGEST / SAMPLE_RATE:g} s, and a minimum of at most a third of the maximum"
            )
        if not (0.3 <= self.max_pause <= self.max_wait <= 10 and SHORTEST <= self.shortest <= self.max_length):
            raise BadConfig(
                f"speech segments with max_pause {self.max_pause:g}, max_wait {self.max_wait:g} and shortest "
                f"{self.shortest:g}: expected 0.3 <= max_pause <= max_wait <= 10, and {SHORTEST} <= shortest <= max_length"
            )

    def __str__(self) -> str:
        length = f"speech segments of {self.min_speech:g} to {self.max_length:g} s"
        return f"{length}, cut where the speaker changes" if self.changes else length

    def segmenter(self) -> SpeechSegmenter:
        """Return the segmenter of one waveform."""
        return SpeechSegmenter(self)


class SpeechSegmenter:
    """Cuts one waveform into segments of speech and non-speech (`affekt.timeline.piece.Segmenter`)."""

    def __init__(self, settings: SpeechSegments) -> None:
        self._settings, self._track = settings, VoiceTrack()
        self._min, self._max = count_frames(settings.min_speech), int(settings.max_length / FRAME_SECONDS) - 2 * PADDING
        self._pause, self._wait = count_frames(settings.max_pause), count_frames(settings.max_wait)
        self._changes = {round(seconds / FRAME_SECONDS) for seconds in settings.changes}
        self._done = 0
        """The frame up to which pieces are returned."""
        self._start: int | None = None
        """The frame at which the segment begins that is being built: its first region, or where the one before was cut."""
        self._end = 0
        """The frame at which the last finished region of that segment ends."""
        self._follows_cut = False
        self._non_speech = _NonSpeech()

    def add(self, block: Waveform) -> list[Piece]:
        """Add samples, and return the pieces that they complete."""
        return [piece for region in self._track.add(block) for piece in self._step(region)]

    def finish(self) -> list[Piece]:
        """Return the remaining pieces."""
        pieces = [piece for region in self._track.finish() for piece in self._step(region)]
        if self._start is not None:
            pieces += self._close(is_last=True)
        end = self._track.size
        if self._done * FRAME < end:
            self._non_speech.add(self._track.samples(self._non_speech.known * FRAME, end))
            pieces.append(self._silent_piece(end))
        return pieces

    def current(self) -> Piece | None:
        """Return the segment that has begun, as far as it is known."""
        track, start = self._track, self._start
        if start is None and track.regions.is_confirmed and track.regions.open:
            start = track.regions.open.start
        if start is None:
            end = track.now * FRAME
            return Piece(self._done * FRAME, end, NO_AUDIO, 0.0) if end > self._done * FRAME else None
        end = track.now if track.regions.open else min(track.now, self._end + PADDING)
        return track.piece(self._padded(start) * FRAME, end * FRAME, shortest=SHORTEST)

    def _step(self, region: Region | None) -> list[Piece]:
        """Consider the frame that the track has just reached."""
        track, pieces = self._track, list[Piece]()
        if region:
            self._start = region.start if self._start is None else self._start
            self._end = region.end
        begun = track.regions.open
        start = (
            self._start if self._start is not None else begun.start if begun and track.regions.is_confirmed else None
        )
        if start is None:
            self._forget(begun.start if begun else track.now)
            return []
        if self._padded(start) > self._done:
            pieces.append(self._non_speech_before(self._padded(start)))
        is_change = track.now in self._changes and track.now - start >= self._min
        if begun is None and self._start is not None and (is_change or track.now - self._end > self._limit()):
            pieces += self._close()
        elif begun and is_change:
            pieces.append(self._cut(start, track.now))
        elif begun and track.now - start > self._max:
            cut = track.least_speech(start + self._max // 3, start + self._max - self._min)
            pieces.append(self._cut(start, cut))
        return pieces

    def _cut(self, start: int, end: int) -> Piece:
        """Return the segment that ends at a frame at which another one begins."""
        piece = self._take(self._padded(start), end)
        self._start, self._end, self._follows_cut = end, max(end, self._end), True
        return piece

    def _limit(self) -> int:
        """Return the longest pause, in frames, after which the next region still belongs to the segment."""
        assert self._start is not None
        speech = self._track.count_speech(self._start * FRAME, self._end * FRAME)
        return self._pause if speech >= self._settings.min_speech else self._wait

    def _padded(self, start: int) -> int:
        """Return the frame at which a segment's audio begins, given that at which its speech begins."""
        if self._follows_cut:
            return start
        first = max(self._done, start - PADDING)
        return 0 if self._done == 0 and first < MIN_NON_SPEECH else first

    def _close(self, *, is_last: bool = False) -> list[Piece]:
        """Return the segment that has ended; `is_last` if the waveform ends too."""
        assert self._start is not None
        start, end = self._padded(self._start), self._end + PADDING
        has_speech = self._track.count_speech(self._start * FRAME, self._end * FRAME) > 0
        if is_last and self._track.now - end < MIN_NON_SPEECH:
            end = self._track.now
        self._start, self._follows_cut = None, False
        # After a cut, what followed may have been too short to be speech.
        return [self._take(start, min(end, self._track.now))] if has_speech else []

    def _take(self, start: int, end: int) -> Piece:
        piece = self._track.piece(start * FRAME, end * FRAME, shortest=self._settings.shortest)
        self._done = end
        self._non_speech = _NonSpeech(end)
        self._track.discard(end)
        return piece

    def _forget(self, frame: int) -> None:
        """Keep of the samples without speech only their range, up to those that may belong to a segment at this frame."""
        known = frame - PADDING - MIN_NON_SPEECH
        if known >= self._non_speech.known + FORGETTING:
            self._non_speech.add(self._track.samples(self._non_speech.known * FRAME, known * FRAME), known)
            self._track.discard(known)

    def _non_speech_before(self, frame: int) -> Piece:
        """Return the segment of non-speech that ends at a frame."""
        if frame > self._non_speech.known:
            self._non_speech.add(self._track.samples(self._non_speech.known * FRAME, frame * FRAME), frame)
        piece = self._silent_piece(frame * FRAME)
        self._done = frame
        self._track.discard(frame)
        return piece

    def _silent_piece(self, end: int) -> Piece:
        return Piece(self._done * FRAME, end, NO_AUDIO, 0.0, self._non_speech.is_silent)


class _NonSpeech:
    """The range of the samples of a segment of non-speech, of which nothing else is kept."""

    def __init__(self, known: int = 0) -> None:
        self.known = known
        """The frame up to which samples are known."""
        self._low, self._high = np.inf, -np.inf

    def add(self, samples: Waveform, known: int = 0) -> None:
        """Add samples, which end at the frame `known`."""
        self._low, self._high = min(self._low, samples.min()), max(self._high, samples.max())
        self.known = known

    @property
    def is_silent(self) -> bool:
        """Whether it is digital silence."""
        return bool(self._high - self._low < SILENCE_RANGE)
