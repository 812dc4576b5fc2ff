"""Intervals of a recording, as a transcript, a diarization or a table names them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """A word of a transcript."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    text: str


@dataclass(frozen=True)
class Interval:
    """A part of a recording, with what is known about it."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording; more than `start`."""
    speaker: str | None = None
    text: str | None = None
    words: tuple[Word, ...] = ()
    """The words of `text`, in order; empty if their times are unknown."""
