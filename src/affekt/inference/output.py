"""Results files that an interrupted run resumes: JSON lines, CSV or Parquet, by the file's suffix.

While a run lasts its rows stand, a line each, in a journal: for JSON lines the file itself, else `NAME.partial.jsonl`
beside it, from which the file is made at the end. A killed run loses at most the row that it was working on.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from affekt.errors import BadOutput
from affekt.extras import need
from affekt.inference.row import Row

SUFFIXES = (".jsonl", ".csv", ".parquet")


class ResultsFile:
    """Open it, ask `done` what is there already, `append` the rest; leaving it (`with`) completes the file.

    Raises `BadOutput` for a suffix that is none of ours, a file that holds something else, or rows of another model.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        if path.suffix.lower() not in SUFFIXES:
            raise BadOutput(f"--output {path}: expected a name ending in {', '.join(SUFFIXES)}")
        if path.suffix.lower() == ".parquet":
            need("pyarrow", extra="parquet", purpose=f"writing {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.journal = path if path.suffix.lower() == ".jsonl" else path.with_name(path.name + ".partial.jsonl")
        stored = [*self._finished(), *_read_journal(self.journal)]
        for row in stored:
            if row.get("model") != model:
                raise BadOutput(
                    f"{path} holds rows of model {row.get('model')!r}, and this run uses {model!r}: "
                    "give another --output, or remove the file"
                )
        self.done: dict[str, Row] = {row.file: row for row in stored}
        self._lines = self.journal.open("a", encoding="utf-8")

    def _finished(self) -> list[Row]:
        if self.path == self.journal or not self.path.exists():
            return []
        return _read_csv(self.path) if self.path.suffix.lower() == ".csv" else _read_parquet(self.path)

    def append(self, row: Row) -> None:
        self._lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._lines.flush()
        self.done[row.file] = row

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        if kind is None and self.path != self.journal:
            temporary = self.path.with_name(self.path.name + ".temporary")
            write = _write_csv if self.path.suffix.lower() == ".csv" else _write_parquet
            write(temporary, list(self.done.values()))
            os.replace(temporary, self.path)
            self.journal.unlink()


def _read_journal(path: Path) -> Iterator[Row]:
    """The rows of a journal. A last line that a kill cut short is taken off the file."""
    if not path.exists():
        return
    text = path.read_bytes()
    complete = text[: text.rfind(b"\n") + 1]
    if len(complete) < len(text):
        path.write_bytes(complete)
    for number, line in enumerate(complete.decode("utf-8", errors="replace").split("\n")[:-1], start=1):
        try:
            row = Row(json.loads(line))
            if not isinstance(row["file"], str):
                raise TypeError(row["file"])
        except (ValueError, TypeError, KeyError):
            raise BadOutput(f"{path}, line {number}, is not a row of results: give another --output") from None
        yield row


def _flat(row: Row) -> dict[str, Any]:
    """A row for CSV: nested fields as `probabilities.angry`, `error.code`, the windows as JSON."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key == "windows":
            flat[key] = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": entry for name, entry in value.items()})
        else:
            flat[key] = value
    return flat


def _write_csv(path: Path, rows: list[Row]) -> None:
    flat = [_flat(row) for row in rows]
    emotions = next(([f"probabilities.{name}" for name in row.probabilities] for row in rows if row.probabilities), [])
    columns = ["schema", "file", "start", "end", "duration", "status", "emotion", *emotions, "model", "error.code"]
    columns += ["error.message", "aggregation", "windows"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows({key: value for key, value in row.items() if key in columns} for row in flat)


def _read_csv(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            csv.field_size_limit(1 << 30)  # the windows of a long recording stand in one field
            return [_unflat(record) for record in csv.DictReader(stream)]
    except (ValueError, KeyError, TypeError, csv.Error):
        raise BadOutput(f"{path} is not a file of results: give another --output") from None


def _unflat(record: dict[str, str]) -> Row:
    probabilities = {
        key.removeprefix("probabilities."): float(value)
        for key, value in record.items()
        if key.startswith("probabilities.") and value
    }
    row = Row(
        schema=int(record["schema"]),
        file=record["file"],
        start=float(record["start"]),
        end=float(record["end"]),
        duration=float(record["duration"]),
        status=record["status"],
        emotion=record["emotion"] or None,
        probabilities=probabilities or None,
        model=record["model"],
        error={"code": record["error.code"], "message": record["error.message"]} if record["error.code"] else None,
    )
    if record["windows"]:
        row["aggregation"], row["windows"] = (
            record["aggregation"],
            [Row(part) for part in json.loads(record["windows"])],
        )
    return row


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
        records = pyarrow.parquet.read_table(path).to_pylist()
        rows = [Row({k: v for k, v in record.items() if k not in ("windows", "aggregation")}) for record in records]
        for row, record in zip(rows, records, strict=True):
            if record["windows"] is not None:
                row["aggregation"], row["windows"] = record["aggregation"], [Row(part) for part in record["windows"]]
    except (pa.ArrowException, OSError, KeyError):
        raise BadOutput(f"{path} is not a file of results: give another --output") from None
    return rows
