"""Intervals of a recording, as a transcript, a diarization or a table names them."""

from __future__ import annotations

from collections.abc import Iterable
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


def join_word_parts(words: Iterable[Word]) -> tuple[Word, ...]:
    """Join the parts into which Whisper divides words, such as " o" and "'clock", and remove the spaces around words.

    A part begins with a mark that no space precedes. If no word is preceded by a space, all are complete.
    """
    words = list(words)
    marks_spaces = any(word.text[:1].isspace() for word in words)
    joined = list[Word]()
    for word in words:
        begins_with_mark = not (word.text[:1].isspace() or word.text[:1].isalnum())
        if marks_spaces and begins_with_mark and joined:
            previous = joined.pop()
            word = Word(previous.start, word.end, previous.text + word.text)
        joined.append(Word(word.start, word.end, word.text.strip()))
    return tuple(joined)
