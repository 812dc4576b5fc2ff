"""The record that every corpus reader gives: one stretch of speech with what is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Utterance:
    """One utterance. Times in seconds; `end` None means to the end of the file; "" or None where nothing is known."""

    id: str  # unique within its corpus
    corpus: str
    audio: Path | None  # None for a corpus without sound
    emotion: str  # one of `affekt.labels.EMOTIONS`, or a word of one's own data
    speaker: str = ""
    gender: str = ""  # "female", "male" or ""
    session: str = ""
    dialogue: str = ""
    language: str = ""  # ISO 639-1
    text: str = ""
    text_by: str = ""  # who wrote the text down: "" for the corpus itself, "asr:whisper-base" for a recogniser
    start: float = 0.0
    end: float | None = None
    split: str = ""  # the part of the corpus's official split
    # The shares of a crowd's votes by emotion, summing to one; empty where nobody voted.
    votes: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def person(self) -> str:
        """The speaker, told apart from speakers of other corpora: "cremad/1001"."""
        return f"{self.corpus}/{self.speaker}"
