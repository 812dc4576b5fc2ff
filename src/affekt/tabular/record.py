"""A row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affekt.errors import BadCorpus
from affekt.invisible import strip_invisible
from affekt.tabular.missing import is_missing
from affekt.tabular.text import repair


@dataclass(frozen=True)
class Record:
    """A row: its values by column, and its position for messages. A missing value is None, or one of the words for it."""

    path: Path
    position: str
    """Where the row begins: "line 3", or "row 2" in Parquet."""
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Return a value as text without surrounding spaces and invisible characters, "" if it is missing.

        Raises:
            BadCorpus: The text contains a line break.
        """
        value = self.values.get(column)
        text = "" if is_missing(value) else strip_invisible(self._to_text(column, value))
        if "\n" in text or "\r" in text:
            raise self.error(f"column {column!r} contains a line break ({text[:40]!r}): is a quote missing or surplus?")
        return text

    def as_written(self, column: str) -> str:
        """Return a value as it is written without surrounding spaces, "" for None; for texts such as "None." and "Na"."""
        value = self.values.get(column)
        return "" if value is None or value != value else self._to_text(column, value)

    def number(self, column: str) -> int:
        """Return a value as a whole number.

        Raises:
            BadCorpus: The value is not a whole number.
        """
        text = self.text(column)
        try:
            return int(text)
        except ValueError:
            raise self.error(f"{column} {text!r}: expected a whole number") from None

    def error(self, problem: str) -> BadCorpus:
        """Return the error of a problem with this row."""
        return BadCorpus(f"{self.path}, {self.position}: {problem}")

    def _to_text(self, column: str, value: Any) -> str:
        if isinstance(value, bytes | bytearray | memoryview | Mapping | list | tuple):
            kind = (
                "a list" if isinstance(value, list | tuple) else "an object" if isinstance(value, Mapping) else "bytes"
            )
            raise self.error(
                f"column {column!r} contains {kind}: expected text or a number, and for audio the name of a file"
            )
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of whole numbers becomes floats where one of them is missing
        try:
            text = repair(str(value)).strip()
            text.encode()
        except ValueError as error:  # half of a surrogate pair, or an integer of thousands of digits
            raise self.error(f"column {column!r} cannot be read as text: {error}") from None
        return text
