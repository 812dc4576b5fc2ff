"""Read the gender column of tables."""

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
"""Word, in lower case -> gender."""


def parse_gender(record: Record, column: str) -> str:
    """Return "female", "male", "other", or "" if it is missing.

    Only the first word counts, so that "female_feminine" and "male_masculine" (Common Voice) are understood.

    Raises:
        BadCorpus: The column contains any other word.
    """
    text = record.text(column)
    if not text:
        return ""
    word = text.lower().replace("_", " ")
    gender = GENDERS.get(word, GENDERS.get(word.split()[0]))
    if gender is None:
        raise record.error(f"gender {text!r}: expected female, male, other or nothing")
    return gender
