"""The words of a recording, for models that need text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affekt.errors import BadConfig
from affekt.inference.row import Row
from affekt.interval import Interval, Word

GIVEN = "given"
"""The source of a text that the user states."""


@dataclass(frozen=True)
class Passage:
    """The words in a part of a recording."""

    text: str
    words: tuple[Word, ...]
    """The words with their times in the recording; empty if these are unknown."""


NO_WORDS = Passage("", ())
"""No words, or unknown ones."""


@dataclass(frozen=True)
class Transcript:
    """The words of a recording: those of intervals, or a text without times."""

    source: str
    """Where the words come from, such as "asr:whisper-base"; the field "text_by" of rows."""
    intervals: tuple[Interval, ...] = ()
    """Intervals with text, in seconds from the start of the recording."""
    text: str | None = None
    """The text of the whole recording, if it has no times."""

    @classmethod
    def of(cls, words: str | Transcript | Iterable[Interval], source: str = GIVEN) -> Transcript:
        """Return a text, or intervals with text, as a transcript."""
        if isinstance(words, Transcript):
            return words
        if isinstance(words, str):
            return cls(source, text=" ".join(words.split()))
        return cls(source, tuple(words))

    def between(self, start: float, end: float, name: str) -> Passage:
        """Return the words that are spoken between two times in seconds.

        A word belongs to the part of the recording in which its middle is. The words of an interval without word times are
        taken to be equally long.

        Args:
            start: The start of the part.
            end: Its end.
            name: The name of the recording, for an error message.

        Raises:
            BadConfig: The text has no times, but the part is not the whole recording from its start.
        """
        if self.text is not None:
            if start > 0:
                raise BadConfig(
                    f"the text of {name} has no times, so it cannot be divided among the windows of a long recording: give a "
                    "transcript with times, such as an SRT file"
                )
            return Passage(self.text, ())
        words = [
            (word, bool(interval.words))
            for interval in self.intervals
            for word in interval.words or _space_evenly(interval)
            if start <= (word.start + word.end) / 2 < end
        ]
        return Passage(" ".join(word.text for word, _ in words), tuple(word for word, is_timed in words if is_timed))

    def row_fields(self, passage: Passage) -> dict[str, Any]:
        """Return the fields TRANSCRIPT of the row of a part that has this passage (`affekt.inference.row`)."""
        fields: dict[str, Any] = {"text": passage.text, "text_by": self.source}
        if passage.words:
            fields["words"] = [
                {"start": round(word.start, 4), "end": round(word.end, 4), "text": word.text} for word in passage.words
            ]
        return fields


Words = str | Transcript | Iterable[Interval]
"""The words of a source: a text, a transcript, or the intervals of one."""


@dataclass(frozen=True)
class TextSource:
    """Where the words of several recordings come from."""

    name: str
    """The source of their transcripts."""
    find: Callable[[Path], Transcript]
    """Returns the transcript of a file; may raise an `AffektError`."""
    text: str | None = None
    """The text, if it is the same for all."""

    def made(self, row: Row) -> bool:
        """Return whether a row of an earlier run has the words of this source."""
        return row.get("text_by") == self.name and self.text in (None, row.text)


def _space_evenly(interval: Interval) -> Sequence[Word]:
    """Return the words of an interval's text, with the same duration each."""
    texts = (interval.text or "").split()
    step = (interval.end - interval.start) / max(len(texts), 1)
    return [
        Word(interval.start + index * step, interval.start + (index + 1) * step, text)
        for index, text in enumerate(texts)
    ]
