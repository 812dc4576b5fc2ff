"""The record that every corpus reader returns: a segment of speech and what is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Utterance:
    """One utterance. Unknown fields are "" or None; times are in seconds."""

    id: str
    """Unique within its corpus."""
    corpus: str
    audio: Path | None
    """None for a corpus without audio."""
    emotion: str
    """One of `affekt.labels.EMOTIONS`, or a custom label of the user's own data."""
    speaker: str = ""
    gender: str = ""
    """One of "female", "male", "other" and ""."""
    age: int | None = None
    """Age of the speaker in years, where the corpus states it."""
    session: str = ""
    dialogue: str = ""
    language: str = ""
    """ISO 639-1."""
    text: str = ""
    text_by: str = ""
    """Source of the text: "" for the corpus itself, "asr:whisper-base" for a speech recognizer."""
    start: float = 0.0
    end: float | None = None
    """None for the end of the file."""
    split: str = ""
    """Subset of the corpus's official split."""
    votes: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Fraction of the crowd's votes for each emotion, summing to one; empty without votes."""

    @property
    def speaker_key(self) -> str:
        """The speaker, unique over all corpora: "cremad/1001"."""
        return f"{self.corpus}/{self.speaker}"


def speakers_of(utterances: Sequence[Utterance]) -> list[str] | None:
    """Return the speaker of each utterance; None where not all are known."""
    return [u.speaker_key for u in utterances] if all(u.speaker for u in utterances) else None
