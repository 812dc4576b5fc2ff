"""Text from outside (file names, labels, messages of libraries), made safe for a terminal."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"
"""Format characters that occur in ordinary names: in Persian and Indic scripts, and in emoji."""
ESCAPED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that are escaped: controls, format characters such as those for direction, and line separators."""


def escape_controls(text: str, keep: str = "") -> str:
    r"""Return a text in which control characters are escaped (\n, \x1b, \u202e), except those in `keep`.

    A file name could otherwise break a line, move the cursor, color the terminal or reverse the direction of writing.
    """
    return text if text.isprintable() and text.isascii() else "".join(_escape(c, keep) for c in text)


def _escape(character: str, keep: str) -> str:
    if character in JOINERS or character in keep or unicodedata.category(character) not in ESCAPED:
        return character
    return character.encode("unicode_escape").decode("ascii")
