"""The one place that turns an utterance into samples: feature extraction, `corpus check` and transcription all use it.

An utterance that ends at most `TOLERANCE` after its file is cut to the samples that exist, since corpora round their
times; one that ends later, or has less than `SHORTEST` of audio, is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from affekt.audio.read import SAMPLE_RATE, SHORTEST, Notes, Waveform
from affekt.audio.time_limit import TIMEOUT, limited_blocks
from affekt.errors import BadAudio, BadCorpus
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Span = tuple[int, int | None]
"""Start and end (exclusive) in samples at 16 kHz; None for the end of the file."""

TOLERANCE = 0.1
"""Seconds by which an utterance may end after its file."""


def read_waveform(utterance: Utterance) -> Waveform:
    """Read an utterance's waveform, (samples,) mono float32 at 16 kHz.

    Raises:
        BadCorpus: The utterance cannot be read, ends after its file by more than TOLERANCE, or is too short.
    """
    ((_, waveform),) = read_waveforms({utterance.id: utterance})
    if isinstance(waveform, BadAudio):
        raise BadCorpus(f"{utterance.corpus} {utterance.id}: {waveform}") from waveform
    return waveform


def read_waveforms(
    utterances: Mapping[Key, Utterance], notes: dict[Path, Notes] | None = None
) -> Iterator[tuple[Key, Waveform | BadAudio]]:
    """Yield each utterance's key with its waveform, or with the reason why it has none.

    Each file is read once, and only up to the end of its last utterance. The utterances of a file are yielded in the order of
    their ends.

    Args:
        utterances: Key -> utterance.
        notes: Filled with the remarks on each file.
    """
    files: dict[Path, dict[Key, Utterance]] = {}
    for key, utterance in utterances.items():
        if utterance.audio is None:
            yield key, BadAudio("it has no audio", code="missing")
        else:
            files.setdefault(utterance.audio, {})[key] = utterance
    for path, waiting in files.items():
        spans = {key: _span(utterance) for key, utterance in waiting.items()}
        file_notes = None if notes is None else notes.setdefault(path, Notes())
        try:
            for key, waveform in read_segments(path, spans, file_notes):
                yield key, _find_error(waiting.pop(key), waveform) or waveform
        except BadAudio as error:
            logger.debug("%s", error, exc_info=error)
            yield from ((key, error) for key in waiting)


def read_segments(path: Path, spans: Mapping[Key, Span], notes: Notes | None = None) -> Iterator[tuple[Key, Waveform]]:
    """Yield segments of one file, (samples,) each, in the order of their ends.

    The file is read in one pass that stops after the last segment; only the segments being read are in memory. A
    segment that extends beyond the end of the file is cut to the samples that exist.

    Raises:
        BadAudio: The file cannot be read.
    """
    waiting = dict(sorted(spans.items(), key=lambda item: item[1][0]))
    pieces: dict[Key, list[Waveform]] = {key: [] for key in waiting}
    position = 0
    for block in limited_blocks(path, timeout=TIMEOUT, notes=notes):
        after = position + len(block)
        for key, (start, end) in list(waiting.items()):
            if start >= after:
                break
            pieces[key].append(block[max(0, start - position) : None if end is None else max(0, end - position)])
            if end is not None and end <= after:
                del waiting[key]
                yield key, np.concatenate(pieces.pop(key))
        if not waiting:
            return
        position = after
    for key in waiting:
        yield key, np.concatenate([np.zeros(0, np.float32), *pieces[key]])


def seconds_cut(utterance: Utterance, waveform: Waveform) -> float:
    """Return the number of seconds of an utterance that are after the end of its file."""
    start, end = _span(utterance)
    return 0.0 if end is None else (end - start - len(waveform)) / SAMPLE_RATE


def _span(utterance: Utterance) -> Span:
    end = None if utterance.end is None else round(utterance.end * SAMPLE_RATE)
    return round(utterance.start * SAMPLE_RATE), end


def _find_error(utterance: Utterance, waveform: Waveform) -> BadAudio | None:
    """Return the error of a segment that is cut by more than the tolerance, or too short; None if it can be used."""
    length = len(waveform) / SAMPLE_RATE
    if not length:
        return BadAudio(f"{utterance.audio} ends before the utterance starts, at {utterance.start} s", code="too_short")
    if seconds_cut(utterance, waveform) > TOLERANCE:
        end = utterance.start + length
        return BadAudio(f"{utterance.audio} ends at {end:.2f} s, the utterance at {utterance.end} s", code="truncated")
    if length < SHORTEST:
        return BadAudio(
            f"{utterance.audio} has {length:.3f} s of the utterance; at least {SHORTEST} s are needed", code="too_short"
        )
    return None
