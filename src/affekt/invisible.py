"""Characters that are not displayed, which text copied from web pages and spreadsheets contains."""

from __future__ import annotations

JOINERS = "\u200c\u200d"
"""Joiners, which belong to words in some scripts and to emoji, so that they are removed only at the ends of a text."""
INVISIBLE = "\u00ad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
"""Soft hyphens, zero-width spaces, marks of the writing direction and byte-order marks."""
_TABLE = dict.fromkeys(map(ord, INVISIBLE))


def remove_invisible(text: str) -> str:
    """Remove invisible characters, except joiners."""
    return text if text.isascii() else text.translate(_TABLE)


def strip_invisible(text: str) -> str:
    """Remove white space and invisible characters at the ends of a text."""
    previous = None
    while previous != text:
        previous, text = text, text.strip().strip(INVISIBLE + JOINERS)
    return text
