"""Transcribe a recording of any length with a speech-to-text model, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from affekt.asr import WordRecognizer
from affekt.audio.read import SAMPLE_RATE, AudioSource, Waveform, blocks
from affekt.inference.segments import Segment, cut_segments
from affekt.inference.transcript import Transcript
from affekt.interval import Interval, Word

MAX_SECONDS = 28
"""Longest part that is transcribed at once, in seconds: Whisper takes 30, and a window is at most 20 s."""


def transcribe_recording(
    source: AudioSource,
    recognizer: WordRecognizer,
    *,
    language: str = "",
    lenient: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Transcript:
    """Return the transcript of a recording, with the times of its words.

    The recording is divided at pauses into parts of at most 28 s, and parts without speech are not transcribed.

    Args:
        source: The recording, as for `Recognizer`.
        recognizer: The speech-to-text model.
        language: The ISO 639-1 code of the language, or "" to detect it in each part.
        lenient: Read as much as possible of a file that is damaged or cut off.
        progress: Called with the number of seconds that are transcribed.

    Raises:
        BadAudio: The recording cannot be read.
    """
    intervals, seconds = list[Interval](), 0.0
    for waveform, has_speech in _read_parts(source, lenient):
        if has_speech:
            intervals += [_move(interval, seconds) for interval in recognizer.find_intervals(waveform, language)]
        seconds += waveform.size / SAMPLE_RATE
        if progress:
            progress(seconds)
    return Transcript(recognizer.name, tuple(intervals))


def _read_parts(source: AudioSource, lenient: bool) -> Iterator[tuple[Waveform, bool]]:
    """Yield the consecutive parts of a recording, and whether there is speech in each."""
    segments, samples = list[Segment](), 0
    for segment in cut_segments(blocks(source, lenient=lenient)):
        if segments and samples + segment.waveform.size > MAX_SECONDS * SAMPLE_RATE:
            yield _join(segments)
            segments, samples = [], 0
        segments.append(segment)
        samples += segment.waveform.size
    if segments:
        yield _join(segments)


def _join(segments: list[Segment]) -> tuple[Waveform, bool]:
    return np.concatenate([segment.waveform for segment in segments]), any(segment.speech for segment in segments)


def _move(interval: Interval, seconds: float) -> Interval:
    """Return an interval that is later by a number of seconds."""
    words = tuple(Word(word.start + seconds, word.end + seconds, word.text) for word in interval.words)
    return replace(interval, start=interval.start + seconds, end=interval.end + seconds, words=words)
