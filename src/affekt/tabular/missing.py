"""The one definition of a missing value in tables: in labels, speakers, times, subsets, votes and all other fields."""

from __future__ import annotations

import re
from typing import Any

from affekt.invisible import strip_invisible

WORDS = frozenset(
    {
        "",
        "-",
        "--",
        "\N{EN DASH}",
        "\N{EM DASH}",
        "nan",
        "-nan",
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "#n/a n/a",
        "#na",
        "none",
        "null",
        "nil",
        "undefined",
        "?",
        "nat",
        "<na>",
        "<nan>",
        "<nat>",
        "<none>",
        "<null>",
        "1.#ind",
        "-1.#ind",
        "1.#qnan",
        "-1.#qnan",
        "#name?",
        "#ref!",
        "#value!",
        "#div/0!",
        "#num!",
        "#null!",
        "#nv",
        "#wert!",
        "#bezug!",
        "#zahl!",
    }
)
"""Words for a missing value, in lower case: those of pandas, R, SQL, JavaScript, Weka and spreadsheets, and dashes."""

UNLABELED = frozenset({"unlabeled", "unlabelled", "unannotated", "not labeled", "no label"})
"""Words for a missing label."""

UNKNOWN_SPEAKERS = frozenset({"unknown", "unk", "unidentified", "anonymous"})
"""Words for a missing speaker: several speakers may be meant."""

MISSING_TRANSCRIPTS = frozenset({"", "nan", "NaN", "-nan", "NaT", "<NA>", "#N/A", "NULL", "null"})
"""Words for a missing transcript, in exactly this case; software writes them. "None", "Na" and "-" may be transcripts."""


def is_missing(value: Any) -> bool:
    """Return whether a value is None, not a number, or a word for a missing value, in any case."""
    if value is None or value != value:  # only NaN and its relatives differ from themselves
        return True
    return isinstance(value, str) and _plain(value) in WORDS


def is_missing_label(value: Any) -> bool:
    """Return whether a label is missing."""
    return is_missing(value) or (isinstance(value, str) and " ".join(re.split(r"[\s_-]+", _plain(value))) in UNLABELED)


def is_missing_speaker(value: Any) -> bool:
    """Return whether a speaker is missing."""
    return is_missing(value) or (isinstance(value, str) and _plain(value) in UNKNOWN_SPEAKERS)


def is_missing_transcript(value: Any) -> bool:
    """Return whether a transcript is missing."""
    if isinstance(value, str):
        return value.strip() in MISSING_TRANSCRIPTS
    return is_missing(value)


def _plain(value: str) -> str:
    return strip_invisible(value).casefold()
