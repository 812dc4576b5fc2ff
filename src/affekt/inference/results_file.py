"""Results files that an interrupted run resumes: JSON lines, CSV or Parquet, by the file's suffix.

While a run lasts its rows stand, a line each, in a journal: for JSON lines the file itself, else `NAME.partial.jsonl`
beside it, from which the file is made at the end. A killed run loses at most the row that it was working on.
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
from affekt.inference.row import Row

SUFFIXES = (".jsonl", ".csv", ".parquet")
BEGINNING = b'{"schema": '  # of each line of a journal, be the line cut short as it may
# A CSV's columns; between these two, a column per emotion.
LEADING = ("schema", "file", "start", "end", "duration", "status", "emotion")
TRAILING = ("model", "error.code", "error.message", "aggregation", "windows")


class ResultsFile:
    """Open it, ask what is `kept` from an earlier run, `append` the rest; leaving it (`with`) completes the file.

    Raises `BadOutput` for a suffix that is none of ours, a file that holds something else, rows of another model, or a
    place that cannot be written.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        if path.suffix.lower() not in SUFFIXES:
            raise BadOutput(f"--output {path}: expected a name ending in {', '.join(SUFFIXES)}")
        if path.is_dir():
            raise BadOutput(f"--output {path} is a folder: name a file in it")
        if path.suffix.lower() == ".parquet":
            need("pyarrow", extra="parquet", purpose=f"writing {path.name}")
        self.journal = path if path.suffix.lower() == ".jsonl" else path.with_name(path.name + ".partial.jsonl")
        with _ours(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            journal, whole = _read_journal(self.journal)
            stored = [*self._finished(), *journal]
            for row in stored:
                if row.model != model:
                    raise BadOutput(
                        f"{path} holds rows of model {row.model!r}, and this run uses {model!r}: "
                        "give another --output, or remove the file"
                    )
            self.done: dict[str, Row] = {row.file: row for row in stored}  # of two rows of one file the later counts
            self._replaced = len(self.done) < len(stored)
            self._lines = self.journal.open("a", encoding="utf-8", newline="\n")
            self._lines.truncate(whole)  # only now: a file that is not ours stays as it is

    def _finished(self) -> list[Row]:
        if self.path == self.journal or not self.path.exists():
            return []
        return _read_csv(self.path) if self.path.suffix.lower() == ".csv" else _read_parquet(self.path)

    def kept(self, file: str) -> Row | None:
        """The row of a file that was recognised before; one that failed is tried again."""
        row = self.done.get(file)
        return None if row is None or row.error else row

    def append(self, row: Row) -> None:
        self._replaced |= row.file in self.done
        with _ours(self.path):
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
            with _ours(self.path):
                with atomic_write(self.path) as temporary:
                    write(temporary, list(self.done.values()))
                if self.path != self.journal:
                    self.journal.unlink()


@contextmanager
def _ours(path: Path) -> Iterator[None]:
    """What goes wrong with a results file, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise BadOutput(f"--output {path} cannot be written: {error.strerror or error}") from error


def _read_journal(path: Path) -> tuple[list[Row], int]:
    """The rows of a journal, and the bytes that they take: what follows is a last line that a kill cut short."""
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    rows = []
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            rows.append(Row.read(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            raise BadOutput(f"{path}, line {number}, is not a row of results: give another --output") from None
    if not data[whole:].startswith(BEGINNING[: len(data) - whole]):
        raise BadOutput(f"{path}, line {len(rows) + 1}, is not a row of results: give another --output")
    return rows, whole


def _write_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="\n")


def _flat(row: Row) -> dict[str, Any]:
    """A row for CSV: nested fields as `probabilities.angry`, `error.code`, the windows as JSON, None as nothing."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "windows":
            flat[key] = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": entry for name, entry in value.items()})
        elif value is not None:
            flat[key] = value
    return flat


def _write_csv(path: Path, rows: list[Row]) -> None:
    flat = [_flat(row) for row in rows]
    emotions = next(([f"probabilities.{name}" for name in row.probabilities] for row in rows if row.probabilities), [])
    columns = [*LEADING, *emotions, *TRAILING]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(flat)


def _read_csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            csv.field_size_limit(1 << 30)  # the windows of a long recording stand in one field
            records = csv.DictReader(stream)
            if records.fieldnames and not {*LEADING, *TRAILING} <= set(records.fieldnames):  # an empty file is nobody's
                raise KeyError
            return [_unflat(record) for record in records]
    except (ValueError, KeyError, TypeError, csv.Error):
        raise BadOutput(f"{path} is not a file of results: give another --output") from None


def _unflat(record: dict[str, str]) -> Row:
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
            "aggregation": record["aggregation"],
            "windows": json.loads(record["windows"]) if record["windows"] else None,
        }
    )


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    emotions = next((list(row.probabilities) for row in rows if row.probabilities), [])
    # Parquet knows no struct without fields: where nothing was recognised the column is one of nulls.
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
    schema = pa.schema([*plain, ("aggregation", pa.string()), ("windows", pa.list_(pa.struct(plain)))])
    pyarrow.parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=schema), path)


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return [Row.read(record) for record in pyarrow.parquet.read_table(path).to_pylist()]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        raise BadOutput(f"{path} is not a file of results: give another --output") from None
