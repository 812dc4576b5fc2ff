"""The one definition of a missing value in tables: in labels, speakers, times, subsets, votes and all other fields."""

from __future__ import annotations

from typing import Any

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
    }
)
"""Words for a missing value, in lower case: those of pandas, R, SQL, JavaScript and spreadsheets, and dashes."""

MISSING_TRANSCRIPTS = frozenset({"", "nan", "NaN", "-nan", "NaT", "<NA>", "#N/A", "NULL", "null"})
"""Words for a missing transcript, in exactly this case; software writes them. "None", "Na" and "-" may be transcripts."""


def is_missing(value: Any) -> bool:
    """Return whether a value is None, not a number, or a word for a missing value, in any case."""
    if value is None or value != value:  # only NaN and its relatives differ from themselves
        return True
    return isinstance(value, str) and value.strip().casefold() in WORDS


def is_missing_transcript(value: Any) -> bool:
    """Return whether a transcript is missing."""
    if isinstance(value, str):
        return value.strip() in MISSING_TRANSCRIPTS
    return is_missing(value)
