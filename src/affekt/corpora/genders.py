"""Genders in tables."""

from __future__ import annotations

from affekt.tabular.record import Record

WORDS = {
    "female": ("female", "f", "woman", "w"),
    "male": ("male", "m", "man"),
    "other": (
        "other",
        "o",
        "d",
        "diverse",
        "divers",
        "x",
        "nb",
        "non-binary",
        "nonbinary",
        "non binary",
        "enby",
        "queer",
    ),
    "": ("unknown", "unspecified", "undisclosed", "not specified", "prefer not to say", "u", "?"),
}
"""Gender of an utterance -> words for it, in lower case."""
GENDERS = {word: gender for gender, words in WORDS.items() for word in words}


def parse_gender(record: Record, column: str) -> str:
    """Return "female", "male", "other", or "" if it is missing; raise `BadCorpus` for any other word.

    Words may be longer, as in Common Voice ("female_feminine", "male_masculine").
    """
    text = record.text(column)
    if not text:
        return ""
    word = text.lower().replace("_", " ")
    gender = GENDERS.get(word, GENDERS.get(word.split()[0]))
    if gender is None:
        raise record.error(f"gender {text!r}: expected female, male, other or nothing")
    return gender
