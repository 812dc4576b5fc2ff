"""English names of languages."""

from __future__ import annotations

NAMES = {"da": "Danish", "de": "German", "en": "English", "pl": "Polish", "ur": "Urdu"}
"""ISO 639-1 -> name, for the languages of the corpora that affekt reads."""


def language_name(code: str) -> str:
    """Return the name of a language; the code itself for other languages."""
    return NAMES.get(code, code)
