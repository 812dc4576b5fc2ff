r"""Delimited text: CSV, TSV and tables with semicolons or vertical bars.

A field in quotes may contain delimiters, line breaks and doubled quotes; everything after the closing quote except spaces is
an error, and so is a row with too few or too many fields. A quote inside a field is an ordinary character.

A lone quote at the beginning of a field joins rows up to the next quote. This is detected from the joined lines, which look
like rows, and is an error, except in a table with tabs in which every line has the right number of fields. There, each line
is a row, lone quotes are ordinary characters, and only fields that are entirely in quotes are unquoted.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from affekt.errors import BadConfig, BadCorpus
from affekt.plural import quantity
from affekt.tabular.columns import NAMES, plain
from affekt.tabular.record import Record
from affekt.tabular.text import stream_lines

DELIMITERS = (",", ";", "\t", "|")
"""Delimiters that are detected."""
DELIMITER_NAMES = {
    "tab": "\t",
    "\\t": "\t",
    "comma": ",",
    "semicolon": ";",
    "pipe": "|",
    "bar": "|",
    "space": " ",
}
"""Name of a delimiter -> the character."""
QUOTED = re.compile(r' *"([^"]*(?:""[^"]*)*)" *')
DELIMITER_LINE = re.compile(r'"?sep=(.)"?')
"""A first line that spreadsheets understand."""
KNOWN = {name for names in NAMES.values() for name in names} | {
    "id",
    "start",
    "end",
    "session",
    "votes",
    "name",
    "utterance",
}
"""Column names that are expected in tables. A delimiter that divides the first line into more of them is preferred."""
SUFFIX = re.compile(r"\.\w{2,5}")
MAX_NAMES = 8
"""Number of columns that a message names."""
CHUNK_LINES = 16_384
"""Number of lines of a streamed table that are in memory at a time."""


@dataclass(frozen=True)
class _Row:
    """The fields of a row, and the physical lines that it comprises."""

    fields: list[str]
    first: int
    """Number of its first line, counted from 1."""
    last: int

    @property
    def is_blank(self) -> bool:
        return not any(field.strip() for field in self.fields)


def read_delimited(path: Path, delimiter: str = "") -> tuple[list[str], list[Record]]:
    """Return the columns and the rows of a delimited text file; blank rows are skipped.

    Args:
        path: The file.
        delimiter: A character or one of DELIMITER_NAMES; by default the one that divides the first line.

    Raises:
        BadConfig: The delimiter is not a single character, or does not occur.
        BadCorpus: The file is not such a table; the message names the line.
    """
    columns, records = stream_delimited(path, delimiter, chunk_lines=sys.maxsize)
    return columns, list(records)


def stream_delimited(
    path: Path, delimiter: str = "", *, chunk_lines: int = CHUNK_LINES
) -> tuple[list[str], Iterator[Record]]:
    """Return the columns of a delimited text file, and an iterator over its rows, which are read in chunks.

    Args:
        path: The file.
        delimiter: As for `read_delimited`.
        chunk_lines: The smallest number of lines that are in memory at a time. A chunk ends at the end of a row, as far as
            quotes show it; a lone quote in a chunk does not affect other chunks.

    Raises:
        BadConfig, BadCorpus: As `read_delimited`; the iterator raises the errors of later rows.
    """
    source = stream_lines(path)
    window = _Window()
    while not window or not window[-1].strip():
        if not window.extend(source, 1):
            raise BadCorpus(f"{path} is empty: expected a row of column names, and a row per utterance")
    begin = len(window) - 1
    declared = DELIMITER_LINE.fullmatch(window[begin].strip("\r\n"))
    if declared and window.extend(source, 1):
        begin += 1
    delimiter = _delimiter(path, window[begin], delimiter or (declared[1] if declared else ""))
    window.extend(source, chunk_lines)
    rows = _next_rows(path, window, source, begin, delimiter)
    columns = _names(rows[0])
    _check_columns(path, columns)
    return columns, _records(path, columns, rows, window, source, delimiter, chunk_lines)


class _Window(Sequence[str]):
    """Some consecutive lines of a file, indexed by their position in the file."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._dropped = 0

    def extend(self, source: Iterator[str], number: int) -> bool:
        """Add at most this number of lines, and return whether there were any."""
        new = list(itertools.islice(source, number))
        self._lines += new
        return bool(new)

    def drop(self) -> None:
        """Remove all lines."""
        self._dropped += len(self._lines)
        self._lines.clear()

    def __len__(self) -> int:
        return self._dropped + len(self._lines)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._lines[index.start - self._dropped :]
        return self._lines[index if index < 0 else index - self._dropped]


def _records(
    path: Path,
    columns: list[str],
    rows: list[_Row],
    window: _Window,
    source: Iterator[str],
    delimiter: str,
    chunk_lines: int,
) -> Iterator[Record]:
    """Yield the records of the rows after the first, which has the names of the columns, and of the following chunks."""
    header = rows.pop(0)
    while True:
        if repeated := next((row for row in rows if _names(row) == columns), None):
            raise BadCorpus(
                f"{path}, line {repeated.first}, repeats the column names: remove the line, or split the table there"
            )
        for row in rows:
            if not row.is_blank:
                yield Record(path, f"line {row.first}", dict(zip(columns, row.fields, strict=True)))
        begin = len(window)
        window.drop()
        if not window.extend(source, chunk_lines):
            return
        rows = _next_rows(path, window, source, begin, delimiter, header)


def _next_rows(
    path: Path, window: _Window, source: Iterator[str], begin: int, delimiter: str, header: _Row | None = None
) -> list[_Row]:
    """Return the rows of a window, to which lines are added until no quote is open at its end."""
    while True:
        number = len(window) - begin
        is_divided = sum(line.count('"') for line in window[begin:]) % 2 == 1
        if not (is_divided and window.extend(source, number)):
            break
    try:
        return _rows(path, window, begin, delimiter, header)
    except BadCorpus:  # a quote inside a field is no quote: the window may end inside a field nevertheless
        if not window.extend(source, number):
            raise
        return _next_rows(path, window, source, begin, delimiter, header)


def parse_delimiter(text: str) -> str:
    r"""Return the character that an option means, such as ";", "tab" or "\t"; raise `BadConfig` for any other text."""
    character = DELIMITER_NAMES.get(text.lower(), text)
    if len(character) != 1 or character in '"\r\n\0':
        raise BadConfig(f"delimiter {text!r}: expected one character such as ';', or {', '.join(DELIMITER_NAMES)}")
    return character


def _delimiter(path: Path, header: str, given: str) -> str:
    """Return the given delimiter, or the one that divides the header into most fields, known names counting first."""
    if given:
        delimiter = parse_delimiter(given)
        if delimiter not in header:
            raise BadConfig(f"{path}: delimiter {given!r} does not occur in the first line, {header.strip()[:80]!r}")
        return delimiter

    def evidence(candidate: str) -> tuple[int, int]:
        names = [plain(name.strip().strip('"')) for name in QUOTED.sub(_without_delimiters, header).split(candidate)]
        return sum(name in KNOWN for name in names) if len(names) > 1 else 0, len(names)

    preferred = sorted(DELIMITERS, key="\t".__ne__) if path.suffix.lower() == ".tsv" else DELIMITERS
    return max(preferred, key=evidence)


def _without_delimiters(match: re.Match[str]) -> str:
    return "".join(character for character in match[1] if character not in DELIMITERS)


def _names(row: _Row) -> list[str]:
    """Return the fields of a row as names of columns, without spaces and byte-order marks around them."""
    return [field.strip(" \t\r\n\ufeff") for field in row.fields]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if broken := [column for column in columns if "\n" in column or "\r" in column]:
        raise BadCorpus(
            f"{path}: the column name {broken[0][:40]!r} contains a line break: is a quote missing or surplus?"
        )
    repeated = [column for column, number in Counter(columns).items() if number > 1 and column]
    if repeated:
        raise BadCorpus(f"{path} has several columns {', '.join(map(repr, repeated))}: rename or remove all but one")


def _rows(path: Path, lines: Sequence[str], begin: int, delimiter: str, header: _Row | None) -> list[_Row]:
    """Return the rows from a line on; without a header, the first of them is the header."""
    try:
        return _checked_rows(path, lines, begin, delimiter, header)
    except BadCorpus:
        if delimiter == "\t" and (rows := _line_rows(lines, begin, delimiter, header)):
            return rows
        raise


def _checked_rows(path: Path, lines: Sequence[str], begin: int, delimiter: str, header: _Row | None) -> list[_Row]:
    """Return the rows; raise `BadCorpus` unless all have as many fields as the header, and proper quotes."""
    rows = list(_quoted_rows(path, lines, begin, delimiter))
    head = [header or rows.pop(0)]
    rows = [row for row in rows if not row.is_blank]
    for row in rows:
        if len(row.fields) != len(head[0].fields):
            raise BadCorpus(_wrong_number(path, row, head[0], delimiter))
    _check_quotes(path, [*head, *rows], lines, delimiter)
    return rows if header else head + rows


def _line_rows(lines: Sequence[str], begin: int, delimiter: str, header: _Row | None) -> list[_Row]:
    """Return a row for each line that is not blank; [] unless all have as many fields as the header."""
    rows = []
    for number, line in enumerate(lines[begin:], start=begin + 1):
        if line.strip():
            fields = line.rstrip("\r\n").split(delimiter)
            rows.append(_Row([_unquote(field) for field in fields], number, number))
    return rows if len({len(row.fields) for row in (*rows, *([header] if header else ()))}) == 1 else []


def _unquote(field: str) -> str:
    match = QUOTED.fullmatch(field)
    return match[1].replace('""', '"') if match else field


def _quoted_rows(path: Path, lines: Sequence[str], begin: int, delimiter: str) -> Iterator[_Row]:
    """Yield rows whose fields may be in quotes, over several lines."""
    index = begin
    while index < len(lines):
        first, fields, rest = index, list[str](), lines[index]
        if '"' not in rest:
            fields = rest.rstrip("\r\n").split(delimiter)
        else:
            while True:
                field, rest, index = _field(path, lines, index, rest, delimiter)
                fields.append(field)
                if not rest.startswith(delimiter):
                    break
                rest = rest[len(delimiter) :]
        yield _Row(fields, first + 1, index + 1)
        index += 1


def _field(path: Path, lines: Sequence[str], index: int, rest: str, delimiter: str) -> tuple[str, str, int]:
    """Return the field at the beginning of the rest of a line, the new rest, and the index of its line."""
    padding = "" if delimiter == " " else " "
    if not rest.lstrip(padding).startswith('"'):
        field, found_delimiter, after = rest.partition(delimiter)
        return (field, delimiter + after, index) if found_delimiter else (field.rstrip("\r\n"), "", index)
    opening, pieces = index + 1, [rest.lstrip(padding)[1:]]
    while (end := _closing_quote(pieces[-1])) is None:
        index += 1
        if index == len(lines):
            raise BadCorpus(f"{path}, line {opening}: a quote is opened and never closed; {_quote_cure()}")
        pieces.append(lines[index])
    after = pieces[-1][end + 1 :].lstrip(padding)
    pieces[-1] = pieces[-1][:end]
    if after.strip("\r\n") and not after.startswith(delimiter):
        where = f"line {opening}" + (f" (to line {index + 1})" if index + 1 > opening else "")
        raise BadCorpus(f"{path}, {where}: {after[:20].strip()!r} follows a closing quote; {_quote_cure()}")
    return "".join(pieces).replace('""', '"'), after if after.startswith(delimiter) else "", index


def _closing_quote(text: str) -> int | None:
    """Return the index of the first quote that is not doubled."""
    position = 0
    while (position := text.find('"', position)) >= 0:
        if not text.startswith('""', position):
            return position
        position += 2
    return None


def _quote_cure() -> str:
    return (
        'double a quote that belongs to the text, and put the whole field in quotes ("""Stop"" she said"), or remove it'
    )


def _wrong_number(path: Path, row: _Row, header: _Row, delimiter: str) -> str:
    names = [column.strip() or '""' for column in header.fields]
    shown = ", ".join(names[:MAX_NAMES]) + (", ..." if len(names) > MAX_NAMES else "")
    cure = (
        f"put a field that contains {delimiter!r} in quotes, or remove the surplus field"
        if len(row.fields) > len(names)
        else "add the missing fields, empty ones too, since it is unknown which are missing"
    )
    until = f" (to line {row.last})" if row.last > row.first else ""
    return (
        f"{path}, line {row.first}{until}, has {quantity(len(row.fields), 'field')}, but there are "
        f"{quantity(len(names), 'column')} ({shown}): {cure}"
    )


def _check_quotes(path: Path, rows: Sequence[_Row], lines: Sequence[str], delimiter: str) -> None:
    """Raise `BadCorpus` if a field in quotes contains lines that look like rows: its quote is probably a lone one."""
    if all(row.first == row.last for row in rows):
        return
    suffixes = _suffixes([row.fields for row in rows[1:] if row.first == row.last])
    for row in rows:
        if row.first == row.last:
            continue
        pieces = [lines[number - 1].rstrip("\r\n").split(delimiter) for number in range(row.first, row.last + 1)]
        if _swallows_rows(pieces, len(rows[0].fields), suffixes):
            raise BadCorpus(
                f"{path}, line {row.first}: the quote joins lines {row.first} to {row.last}, which look like rows; "
                f"{_quote_cure()}. If a field really contains these line breaks, replace them by spaces"
            )


def _swallows_rows(pieces: Sequence[Sequence[str]], num_columns: int, suffixes: Mapping[int, set[str]]) -> bool:
    """Return whether one of the lines has file names where rows do or, without file names, all have the number of fields."""
    if not suffixes:
        return all(len(fields) == num_columns for fields in pieces if "".join(fields).strip('" '))
    return any(
        all(index < len(fields) and _suffix(fields[index]) in known for index, known in suffixes.items())
        for fields in pieces[1:]
    )


def _suffixes(rows: Sequence[Sequence[str]]) -> dict[int, set[str]]:
    """Return the suffixes of file names by column, for each column in which every row has a file name."""
    by_column = [{_suffix(field) for field in column} for column in zip(*rows, strict=True)]
    return {index: suffixes for index, suffixes in enumerate(by_column) if "" not in suffixes}


def _suffix(field: str) -> str:
    name = PurePosixPath(field.strip().strip('"')).suffix.lower()
    return name if SUFFIX.fullmatch(name) and not name[1:].isdigit() else ""
