"""Tiers of TextGrid and ELAN files: which ones are read, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from affekt.errors import BadTranscript
from affekt.registry import did_you_mean

TEXT_LEVELS = (
    "text",
    "transcript",
    "transcription",
    "sentence",
    "sentences",
    "utterance",
    "utterances",
    "words",
    "word",
)
"""Names of tiers of text, the preferred ones first."""
OTHER_LEVELS = ("phones", "phone", "phonemes", "phoneme", "syllables", "syllable", "segments", "emotion", "emotions")
"""Names of tiers of other things than text."""
LEVEL = re.compile(rf"(?:(.*?)\s+-\s+)?({'|'.join((*TEXT_LEVELS, *OTHER_LEVELS))})", re.IGNORECASE | re.DOTALL)
"""A tier's name that says what it has: "words", or, as the Montreal Forced Aligner and we write it, "Anna - words"."""


def split_name(name: str) -> tuple[str | None, str | None]:
    """Return the speaker and the level of a tier's name; None for what it does not say.

    The name of a tier per speaker is the speaker.
    """
    match = LEVEL.fullmatch(name.strip())
    return (match[1] or None, match[2].lower()) if match else (name.strip() or None, None)


def choose_tiers(
    path: Path, names: Sequence[str], tiers: Sequence[str] | None, levels: Mapping[str, str | None] | None = None
) -> list[str]:
    """Return the names of the tiers to read, in the file's order.

    Args:
        path: The file.
        names: The names of its tiers of intervals.
        tiers: Names, or levels such as "words", which choose the tiers of all speakers. By default the tiers of the best
            level of text, or all of them if no name states a level.
        levels: Name of a tier -> its level; by default, the names state it.

    Raises:
        BadTranscript: A tier does not exist, or it is unclear which are meant.
    """
    levels = levels or {name: split_name(name)[1] for name in names}
    shown = ", ".join(map(repr, names[:12])) + (", ..." if len(names) > 12 else "")
    if tiers is not None:
        for tier in tiers:
            if tier not in names and tier.lower() not in levels.values():
                raise BadTranscript(f"{path} has no tier {tier!r}{did_you_mean(tier, names)} (tiers: {shown})")
        wanted = {tier for tier in tiers if tier in names}
        wanted_levels = {tier.lower() for tier in tiers if tier not in names}
        return [name for name in names if name in wanted or levels[name] in wanted_levels]
    known = {level for level in levels.values() if level}
    if not known:
        return list(names)
    best = next((level for level in TEXT_LEVELS if level in known), None)
    if best is None or None in levels.values():
        raise BadTranscript(
            f"{path} has the tiers {shown}: it is unclear which have the text; choose them, with tiers="
        )
    return [name for name in names if levels[name] == best]
