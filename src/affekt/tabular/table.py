"""A table in any of the formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affekt.errors import BadConfig, BadCorpus
from affekt.tabular.delimited import read_delimited, stream_delimited
from affekt.tabular.json_lines import read_json_lines, stream_json_lines
from affekt.tabular.parquet import Parquet
from affekt.tabular.record import Record

DELIMITED = (".csv", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
SUFFIXES = (*DELIMITED, *JSON_LINES, *PARQUET)


@dataclass(frozen=True)
class Table:
    """A table: its columns, and functions that read its rows."""

    path: Path
    columns: tuple[str, ...]
    records: Callable[[Sequence[str]], list[Record]]
    """Returns the rows; only these columns need to be read."""
    is_text: Callable[[str], bool]
    """Returns whether a column may contain text."""

    def require(self, columns: Sequence[str]) -> None:
        """Raise `BadCorpus` if a column is missing in the table of a published corpus."""
        if missing := [name for name in columns if name not in self.columns]:
            raise BadCorpus(
                f"{self.path} has no column {', '.join(map(repr, missing))}: expected the corpus's original table"
            )


def open_table(path: Path, delimiter: str = "") -> Table:
    r"""Open a table.

    Args:
        path: The file; its suffix is its format.
        delimiter: The delimiter of a text file, such as ";" or "tab"; by default it is detected.

    Raises:
        BadConfig: The delimiter is invalid, or the format has none.
        BadCorpus: The file is not a table.
        MissingExtra: The format needs a library that is not installed.
    """
    suffix = _check_suffix(path, delimiter)
    if suffix in DELIMITED:
        return _in_memory(path, *read_delimited(path, delimiter))
    if suffix in JSON_LINES:
        return _in_memory(path, *read_json_lines(path))
    file = Parquet(path)
    return Table(path, tuple(file.columns), file.records, file.is_text)


@dataclass(frozen=True)
class StreamedTable:
    """A table whose rows are read one after another, with a limited number of them in memory."""

    path: Path
    columns: tuple[str, ...] | None
    """The columns; None for JSON lines, in which any row may have further ones."""
    kinds: Mapping[str, str]
    """The kind of the values of columns for which the format states it: see `affekt.tabular.parquet.Parquet.kinds`."""
    records: Callable[[Sequence[str]], Iterator[Record]]
    """Iterates over the rows; only these columns need to be read."""


def stream_table(path: Path, delimiter: str = "") -> StreamedTable:
    """Open a table to read its rows one after another; arguments and errors as for `open_table`."""
    suffix = _check_suffix(path, delimiter)
    if suffix in DELIMITED:
        columns, records = stream_delimited(path, delimiter)
        return StreamedTable(path, tuple(columns), dict.fromkeys(columns, "text"), lambda _: records)
    if suffix in JSON_LINES:
        return StreamedTable(path, None, {}, lambda _: stream_json_lines(path))
    file = Parquet(path)
    return StreamedTable(path, tuple(file.columns), file.kinds, file.stream)


def _check_suffix(path: Path, delimiter: str) -> str:
    """Return the suffix of a table in lower case."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadCorpus(f"{path} is not a table: expected a name ending in {', '.join(SUFFIXES)}")
    if delimiter and suffix not in DELIMITED:
        raise BadConfig(f"{path} has no delimiter: only {', '.join(DELIMITED)} have one")
    return suffix


def _in_memory(path: Path, columns: Sequence[str], records: list[Record]) -> Table:
    return Table(path, tuple(columns), lambda _: records, lambda _: True)
