"""Results files that an interrupted run can resume: JSON lines, CSV or Parquet, by the file's suffix.

During a run, rows are appended to a journal, one per line: for JSON lines the file itself, otherwise
`NAME.partial.jsonl` beside it, from which the file is written at the end. A killed run loses at most one row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from affekt.errors import BadOutput
from affekt.extras import need
from affekt.files import atomic_write
from affekt.inference.row import NOTES, Row

SUFFIXES = (".jsonl", ".csv", ".parquet")
BEGINNING = b'{"schema": '
"""How each line of a journal begins; the last line may be cut off anywhere."""
# The columns of a CSV file; the probabilities, one column per emotion, are between these two groups.
LEADING = ("schema", "file", "start", "end", "duration", "status", "emotion")
TRAILING = ("model", "error.code", "error.message", "aggregation", "windows")


class ResultsFile:
    """A results file that is being written; leaving its `with` block without an error completes it.

    Raises:
        BadOutput: the suffix is unknown, the file cannot be written, or it contains anything other than rows of `model`.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        if path.suffix.lower() not in SUFFIXES:
            raise BadOutput(f"results file {path}: expected a name ending in {', '.join(SUFFIXES)}")
        if path.is_dir():
            raise BadOutput(f"results file {path} is a folder: give the name of a file")
        if path.suffix.lower() == ".parquet":
            need("pyarrow", extra="parquet", purpose=f"writing {path.name}")
        self.journal = path if path.suffix.lower() == ".jsonl" else path.with_name(path.name + ".partial.jsonl")
        with _report_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            journal, complete_size = _read_journal(self.journal)
            stored = [*self._read_finished(), *journal]
            for row in stored:
                if row.model != model:
                    raise BadOutput(
                        f"{path} contains rows of model {row.model!r}, but this run uses {model!r}: "
                        "choose another results file, or delete this one"
                    )
            self.done: dict[str, Row] = {row.file: row for row in stored}  # of two rows for one file, the later counts
            self._replaced = len(self.done) < len(stored)
            self._lines = self.journal.open("a", encoding="utf-8", newline="\n")
            self._lines.truncate(complete_size)  # only now, so that a foreign file stays unchanged

    def _read_finished(self) -> list[Row]:
        if self.path == self.journal or not self.path.exists():
            return []
        return _read_csv(self.path) if self.path.suffix.lower() == ".csv" else _read_parquet(self.path)

    def find(self, file: str) -> Row | None:
        """Return the row of a file from an earlier run, marked as resumed; None if there is none or it was an error."""
        row = self.done.get(file)
        if row is None or row.error:
            return None
        row.resumed = True
        return row

    def append(self, row: Row) -> None:
        """Write a row to the journal."""
        self._replaced |= row.file in self.done
        with _report_errors(self.path):
            self._lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._lines.flush()
        self.done[row.file] = row

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        if kind is None and (self._replaced or self.path != self.journal):
            write = {".jsonl": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}[self.path.suffix.lower()]
            with _report_errors(self.path):
                with atomic_write(self.path) as temporary:
                    write(temporary, list(self.done.values()))
                if self.path != self.journal:
                    self.journal.unlink()


@contextmanager
def _report_errors(path: Path) -> Iterator[None]:
    """Raise an `OSError` that occurs in the block as `BadOutput`."""
    try:
        yield
    except OSError as error:
        raise BadOutput(f"results file {path} cannot be written: {error.strerror or error}") from error


def _read_journal(path: Path) -> tuple[list[Row], int]:
    """Return a journal's rows and their size in bytes. An incomplete last line may follow them."""
    data = path.read_bytes() if path.exists() else b""
    complete_size = data.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(data[:complete_size].split(b"\n")[:-1], start=1):
        try:
            rows.append(Row.read(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            raise BadOutput(f"{path}, line {number}, is not a result: choose another results file") from None
    if not data[complete_size:].startswith(BEGINNING[: len(data) - complete_size]):
        raise BadOutput(f"{path}, line {len(rows) + 1}, is not a result: choose another results file")
    return rows, complete_size


def _write_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")


def _flatten(row: Row) -> dict[str, Any]:
    """Return a row's cells in CSV: nested fields are named like `error.code`, windows are JSON, and None is left out."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "windows":
            flat[key] = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": entry for name, entry in value.items()})
        elif value is not None:
            flat[key] = value
    return flat


def _note_columns(rows: list[Row]) -> list[str]:
    """Return the columns of notes; without notes, there are none."""
    return [name for name in NOTES if any(name in row for row in rows)]


def _write_csv(path: Path, rows: list[Row]) -> None:
    flat = [_flatten(row) for row in rows]
    emotions = next(([f"probabilities.{name}" for name in row.probabilities] for row in rows if row.probabilities), [])
    columns = [*LEADING, *emotions, *TRAILING, *_note_columns(rows)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(flat)


def _read_csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            csv.field_size_limit(1 << 30)  # the windows of a long recording are one field
            records = csv.DictReader(stream)
            # An empty file has no columns, and no rows.
            if records.fieldnames and not {*LEADING, *TRAILING} <= set(records.fieldnames):
                raise KeyError
            return [_unflatten(record) for record in records]
    except (ValueError, KeyError, TypeError, csv.Error):
        raise BadOutput(f"{path} is not a results file: choose another one") from None


def _unflatten(record: dict[str, str]) -> Row:
    probabilities = {
        key.removeprefix("probabilities."): float(value)
        for key, value in record.items()
        if key.startswith("probabilities.") and value
    }
    code = record["error.code"]
    return Row.read(
        {
            "schema": int(record["schema"]),
            "file": record["file"],
            "start": float(record["start"]),
            "end": float(record["end"]),
            "duration": float(record["duration"]),
            "status": record["status"],
            "emotion": record["emotion"] or None,
            "probabilities": probabilities or None,
            "model": record["model"],
            "error": {"code": code, "message": record["error.message"]} if code else None,
            "truncated": record.get("truncated") == "True",
            "seconds_lost": float(record["seconds_lost"]) if record.get("seconds_lost") else None,
            "channels": record.get("channels") or None,
            "aggregation": record["aggregation"],
            "windows": json.loads(record["windows"]) if record["windows"] else None,
        }
    )


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    emotions = next((list(row.probabilities) for row in rows if row.probabilities), [])
    # Parquet has no struct without fields: if no file was recognized, the column has type null.
    probabilities = pa.struct([(name, pa.float64()) for name in emotions]) if emotions else pa.null()
    plain = [
        ("schema", pa.int64()),
        ("file", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("duration", pa.float64()),
        ("status", pa.string()),
        ("emotion", pa.string()),
        ("probabilities", probabilities),
        ("model", pa.string()),
        ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
    ]
    types = {"truncated": pa.bool_(), "seconds_lost": pa.float64(), "channels": pa.string()}
    notes = [(name, types[name]) for name in _note_columns(rows)]
    schema = pa.schema([*plain, ("aggregation", pa.string()), ("windows", pa.list_(pa.struct(plain))), *notes])
    pyarrow.parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return [Row.read(record) for record in pyarrow.parquet.read_table(path).to_pylist()]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        raise BadOutput(f"{path} is not a results file: choose another one") from None
