"""One track of a timeline: from the samples of a channel, block by block, to the rows of its segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadConfig
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import WITHOUT_EMOTION, Row, make_row
from affekt.inference.segments import FRAME_RATE, SHORTEST_SPEECH, Segment
from affekt.inference.speech_rule import find_status
from affekt.inference.transcript import GIVEN, NO_WORDS, Passage
from affekt.interval import Interval
from affekt.timeline.given_intervals import GivenIntervals
from affekt.timeline.hysteresis import DEFAULT_HYSTERESIS, Hysteresis, SteadyEmotion
from affekt.timeline.piece import Piece
from affekt.timeline.speakers import Speakers
from affekt.timeline.speech_segments import SpeechSegments
from affekt.timeline.windows import FixedWindows

Segmentation = SpeechSegments | FixedWindows | GivenIntervals
MIN_SPEECH = SHORTEST_SPEECH / FRAME_RATE
"""Seconds of speech below which a segment has none."""
DEFAULT_SEGMENTATION = SpeechSegments()


class FinishedSegments(Protocol):
    """The segments of one source that have been recognized, in this run or an earlier one."""

    def find(self, start: float, end: float, channel: int | None) -> Row | None:
        """Return the row of a segment with these times in seconds; None if it has not been recognized."""
        raise NotImplementedError

    def add(self, row: Row) -> None:
        """Add the row of a segment; it may have come from `find`."""
        raise NotImplementedError


class Track:
    """Recognizes the segments of one channel, whose samples at 16 kHz are pushed in blocks of any size.

    Args:
        recognizer: The recognizer.
        file: The name of the source.
        segmentation: How the recording is divided.
        channel: The number of the channel, from 1; None for the mean of the channels.
        turns: The turns of a diarization, which assign speakers to segments.
        hysteresis: The settings of the steady emotion.
        finished: Segments of an earlier, interrupted run, to which the new ones are added.

    Raises:
        BadConfig: Speech segments are asked for, but `vad` is "off".
    """

    def __init__(
        self,
        recognizer: Recognizer,
        file: str,
        segmentation: Segmentation = DEFAULT_SEGMENTATION,
        *,
        channel: int | None = None,
        turns: Sequence[Interval] = (),
        hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
        finished: FinishedSegments | None = None,
    ) -> None:
        check_segmentation(recognizer, segmentation)
        self._recognizer, self._file, self._channel = recognizer, file, channel
        self._segmenter = segmentation.segmenter()
        self._text_by = segmentation.text_by if isinstance(segmentation, GivenIntervals) else GIVEN
        self._speakers = Speakers(turns)
        self._hysteresis, self._finished = hysteresis, finished
        self._steady: dict[str | None, SteadyEmotion] = {}

    def add(self, block: Waveform) -> list[Row]:
        """Add samples, and return the rows of the segments that they complete."""
        return [self._recognize(piece) for piece in self._segmenter.add(block)]

    def finish(self) -> list[Row]:
        """Return the rows of the remaining segments."""
        return [self._recognize(piece) for piece in self._segmenter.finish()]

    def current(self) -> Row | None:
        """Return the row of the segment that has begun, as far as its audio is known, without a steady emotion."""
        piece = self._segmenter.current()
        return None if piece is None else self._describe(piece, self._infer(piece))

    def _recognize(self, piece: Piece) -> Row:
        stored = None
        if self._finished:
            start, end = round(piece.start / SAMPLE_RATE, 4), round(piece.end / SAMPLE_RATE, 4)
            stored = self._finished.find(start, end, self._channel)
            if stored and stored.text != (piece.interval and piece.interval.text):
                stored = None
        row = self._describe(piece, stored or self._infer(piece))
        steady = self._steady.setdefault(row.get("speaker"), SteadyEmotion(self._hysteresis))
        if emotion := steady.add(row):
            row["steady_emotion"] = emotion
        if self._finished:
            self._finished.add(row)
        return row

    def _infer(self, piece: Piece) -> Row:
        """Return the row of a piece, by the rule of `affekt.inference.speech_rule`."""
        recognizer = self._recognizer
        speech = piece.speech if piece.speech >= MIN_SPEECH else 0.0
        if recognizer.vad == "off":
            speech = speech or piece.end_seconds - piece.start_seconds
        status = find_status(is_silent=piece.is_silent, speech=speech)
        if piece.error or status or not piece.waveform.size:
            return make_row(
                self._file,
                recognizer.model,
                start=piece.start_seconds,
                end=piece.end_seconds,
                error=piece.error,
                status_without_emotion=status or "no_speech",
                applied=recognizer.applied,
            )
        interval = piece.interval
        passage = Passage(interval.text or "", interval.words) if interval else NO_WORDS
        return recognizer.recognize_segment(self._file, piece.start, Segment(piece.waveform, speech), passage)

    def _describe(self, piece: Piece, row: Row) -> Row:
        """Add the fields of a segment to a row."""
        row["speech"] = 0.0 if row.status in WITHOUT_EMOTION else round(piece.speech, 3)
        if self._channel is not None:
            row["channel"] = self._channel
        interval = piece.interval or Interval(row.start, row.end)
        speaker = interval.speaker
        if speaker is None and row.status not in WITHOUT_EMOTION:
            speaker = self._speakers.find(row.start, row.end)
        if speaker is not None:
            row["speaker"] = speaker
        if interval.text is not None:
            row["text"], row["text_by"] = interval.text, self._text_by
        if interval.words:
            row["words"] = [asdict(word) for word in interval.words]
        return row


def check_segmentation(recognizer: Recognizer, segmentation: Segmentation) -> None:
    """Raise `BadConfig` if a segmentation needs voice activity detection, which is switched off, or the model needs words."""
    if recognizer.needs_text and not isinstance(segmentation, GivenIntervals):
        raise BadConfig(
            f"{recognizer.model} needs words, so its timelines are divided into the sentences of a transcript: give one "
            "(--transcript), or let it be recognized (--transcribe)",
            code="needs_text",
        )
    if recognizer.vad == "off" and isinstance(segmentation, SpeechSegments):
        raise BadConfig(
            "segments of speech need voice activity detection, which vad off switches off: choose fixed windows (--window), "
            "given segments (--transcript, --segments), or another setting of --vad"
        )
