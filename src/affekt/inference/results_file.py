"""Results files that an interrupted run can resume: JSON lines, CSV or Parquet, by the file's suffix.

During a run, rows are appended to a journal, one per line: for JSON lines the file itself, otherwise
`NAME.partial.jsonl` beside it, from which the file is written at the end. A killed run loses at most one row. A lock keeps
other processes from writing the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from affekt.errors import BadOutput
from affekt.extras import need
from affekt.inference.csv_rows import read_csv, write_csv
from affekt.inference.journaled_file import JournaledFile, partial_path, report_errors
from affekt.inference.row import SCHEMA, Row, to_json_line
from affekt.inference.window_journal import WindowJournal

SUFFIXES = (".jsonl", ".csv", ".parquet")
BEGINNING = f'{{"schema": {SCHEMA}, "file": "'
"""The text with which each line of a journal begins."""
AFTER_NAME = '", "start": '
"""The text after the file's name in each line."""


class RowsFile(JournaledFile):
    """A file of rows that is being written (`affekt.inference.journaled_file`).

    Args:
        path: The file.
        model: The model's id.
        applied: The fields of the rows on what was applied besides the model (`Recognizer.applied`).

    Raises:
        BadOutput: The suffix is unknown, the file cannot be written or is being written by another run, or it contains
            anything other than rows of the same model with the same profile and decision.
    """

    kind = "results file"

    def __init__(self, path: Path, model: str, applied: Mapping[str, Any] | None = None) -> None:
        path = check_path(path)
        self.model, self.applied = model, applied or {}
        super().__init__(path, path if path.suffix.lower() == ".jsonl" else partial_path(path))

    def _open_journal(self) -> IO[str]:
        journal, complete_size = _read_journal(self.journal)
        stored = [*self._read_finished(), *journal]
        for row in stored:
            if row.model != self.model:
                raise BadOutput(
                    f"{self.path} contains rows of model {row.model!r}, but this run uses {self.model!r}: "
                    "choose another results file, or delete this one"
                )
            if row.applied != self.applied:
                raise BadOutput(
                    f"{self.path} contains rows {_describe(row.applied)}, but this run is {_describe(self.applied)}: "
                    "choose another results file, or delete this one"
                )
        self._replaced = self._index(stored)
        lines = self.journal.open("a", encoding="utf-8", newline="\n")
        if complete_size > lines.tell():  # the last row is complete except for its newline
            lines.write("\n")
            lines.flush()
        else:
            lines.truncate(complete_size)  # only now, so that a foreign file stays unchanged
        return lines

    def _read_finished(self) -> list[Row]:
        if self.path == self.journal or not self.path.exists() or not self.path.stat().st_size:
            return []
        return read_csv(self.path) if self.path.suffix.lower() == ".csv" else _read_parquet(self.path)

    @abstractmethod
    def _index(self, stored: list[Row]) -> bool:
        """Remember the rows of earlier runs; return whether the file has to be written again to drop some of them."""

    @abstractmethod
    def _rows(self) -> list[Row]:
        """Return the rows of the completed file."""

    def _write(self, row: Row) -> None:
        """Write a row to the journal."""
        self._write_line(to_json_line(row.record()))

    def _complete(self) -> None:
        if self._replaced or self.path != self.journal:
            super()._complete()

    def _write_file(self, temporary: Path) -> None:
        rows = self._rows()
        match self.path.suffix.lower():
            case ".jsonl":
                _write_lines(temporary, rows)
            case ".csv":
                write_csv(temporary, rows, self.path)
            case _:
                _write_parquet(temporary, rows)


class ResultsFile(RowsFile):
    """A results file with one row for each source."""

    def _index(self, stored: list[Row]) -> bool:
        self.done: dict[str, Row] = {row.file: row for row in stored}  # a later row of a file replaces an earlier one
        return len(self.done) < len(stored)

    def _rows(self) -> list[Row]:
        return list(self.done.values())

    def find(self, file: str, source: dict[str, float] | None = None) -> Row | None:
        """Return the row of a file from an earlier run, marked as resumed.

        None if there is none, if it was an error, or if the file has changed since then.

        Args:
            file: The file's name.
            source: The file's size and time of change now; None if they are unknown.
        """
        row = self.done.get(file)
        if row is None or row.error or (source and row.source and source != row.source):
            return None
        row.resumed = True
        return row

    def append(self, row: Row) -> None:
        """Write a row to the journal."""
        self._replaced |= row.file in self.done
        self._write(row)
        self.done[row.file] = row

    def sort(self, files: Iterable[str]) -> None:
        """Sort the rows in the order of these files; the rows of other files come first."""
        names = dict.fromkeys(files)
        rows = {name: row for name, row in self.done.items() if name not in names}
        rows |= {name: self.done[name] for name in names if name in self.done}
        self._replaced |= list(rows) != list(self.done)
        self.done = rows

    def window_journal(
        self, file: str, source: dict[str, float] | None, on_window: Callable[[Row], None] | None = None
    ) -> WindowJournal:
        """Return the journal of a file's windows, beside this file; arguments as for `WindowJournal`.

        Each file has its own, since several can be in progress at once.
        """
        digest = hashlib.sha256(file.encode()).hexdigest()[:8]
        path = self.path.with_name(f"{self.path.name}.windows-{digest}.partial.jsonl")
        return WindowJournal(path, file, self.model, source, on_window, self.applied)


def check_path(path: Path) -> Path:
    """Return the file that results are to be written to: `path`, or what it links to.

    Raises:
        BadOutput: The suffix is unknown, or the path is not that of a file.
        MissingExtra: The format needs an extra that is not installed.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path  # a link would be replaced by a file
    if path.suffix.lower() not in SUFFIXES:
        raise BadOutput(f"results file {path}: expected a name ending in {', '.join(SUFFIXES)}")
    with report_errors(path, RowsFile.kind):
        if path.is_dir():
            raise BadOutput(f"results file {path} is a folder: expected the name of a file")
        if path.exists() and not path.is_file():
            raise BadOutput(f"results file {path} is a pipe or a device: expected the name of a file")
    if path.suffix.lower() == ".parquet":
        need("pyarrow", extra="parquet", purpose=f"writing {path.name}")
    return path


def _describe(applied: Mapping[str, Any]) -> str:
    """Return in words what was applied to rows besides the model."""
    profile, decision = applied.get("profile"), applied.get("decision", {})
    settings = "".join(
        f", {name.replace('_', ' ')} {', '.join(value) if isinstance(value, list) else value}"
        for name, value in decision.items()
    )
    return (f"with the profile {profile['id']}" if profile else "without a profile") + settings


def _read_journal(path: Path) -> tuple[list[Row], int]:
    """Return a journal's rows and their size in bytes, with a newline after each. An incomplete last line may follow them."""
    *lines, last = (path.read_bytes() if path.exists() else b"").split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        rows.append(_parse_line(path, number, line))
    complete_size = sum(len(line) + 1 for line in lines)
    if last and not _is_incomplete(last, after_rows=bool(rows)):
        rows.append(_parse_line(path, len(lines) + 1, last))
        complete_size += len(last) + 1
    return rows, complete_size


def _parse_line(path: Path, number: int, line: bytes) -> Row:
    try:
        return Row.read(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadOutput(f"{path}, line {number}, is not a result: choose another results file") from None


def _is_incomplete(line: bytes, after_rows: bool) -> bool:
    """Return whether a line is the beginning of a row that a killed run was writing, rather than another program's text.

    A line of a few characters counts as such a beginning only if it follows complete rows.
    """
    text = line.decode("utf-8", "ignore")
    if len(text) < len(BEGINNING):
        return after_rows and BEGINNING.startswith(text)
    if not text.startswith(BEGINNING):
        return False
    name = re.match(r'(?:[^"\\]|\\.)*\\?', text[len(BEGINNING) :])
    rest = text[len(BEGINNING) + (name.end() if name else 0) :]
    if not (rest.startswith(AFTER_NAME) or AFTER_NAME.startswith(rest)):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def _write_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(to_json_line(row.record()) for row in rows), encoding="utf-8", newline="\n")


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow.parquet

    from affekt.inference.parquet_rows import to_table

    pyarrow.parquet.write_table(to_table(rows), path)


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return [Row.read(record) for record in pyarrow.parquet.read_table(path).to_pylist()]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        raise BadOutput(f"{path} is not a results file: choose another one") from None
