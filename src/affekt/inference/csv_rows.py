"""Rows in CSV: one line per file, and the windows of long recordings in a second table, NAME.windows.csv.

No cell is longer than a spreadsheet accepts.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affekt.errors import BadOutput
from affekt.files import atomic_write
from affekt.inference.row import EMOTION_SET, NOTES, SEGMENT, UNFAMILIAR, Row, optional_columns
from affekt.json_text import to_json

# The columns; the probabilities, one column per emotion, are between these two groups.
LEADING = ("schema", "file", "start", "end", "duration", "status", "emotion")
TRAILING = ("model", "error.code", "error.message", "aggregation", "windows")
SOURCE = ("source.size", "source.modified")
APPLIED = {
    "profile": ("profile.id", "profile.recordings"),
    "decision": ("decision.threshold", "decision.emotions", "decision.error_rate", "decision.min_probability"),
}
"""The columns of the fields that state what was applied besides the model."""
SEPARATOR = ";"
"""The character between two emotions in a cell."""
MAX_CELL = 32_767
"""Excel's limit of characters in a cell."""


def windows_path(path: Path) -> Path:
    """Return the path of the table of windows that belongs to a results file."""
    return path.with_name(f"{path.stem}.windows{path.suffix}")


def write_csv(path: Path, rows: Sequence[Row], final_path: Path) -> None:
    """Write rows to the temporary file `path`, which the caller renames to `final_path`, and windows to a table beside it."""
    windows = [window for row in rows for window in row.windows]
    table = windows_path(final_path)
    if table.exists():
        _read_table(table)  # raises if this is a foreign file, which stays unchanged
    if windows:
        with atomic_write(table) as temporary:
            _write_table(temporary, windows)
    else:
        table.unlink(missing_ok=True)
    _write_table(path, rows)


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    emotions = next(([f"probabilities.{name}" for name in row.probabilities] for row in rows if row.probabilities), [])
    source = SOURCE if any(row.source for row in rows) else ()
    applied = [column for field, columns in APPLIED.items() if any(field in row for row in rows) for column in columns]
    further = [*applied, *optional_columns(rows, (EMOTION_SET, *NOTES, *SEGMENT))]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*LEADING, *emotions, *TRAILING, *further, *source], restval="")
        writer.writeheader()
        writer.writerows(map(_flatten, rows))


def _flatten(row: Row) -> dict[str, Any]:
    """Return a row's cells: nested fields are named like `error.code`, windows are counted, and None is left out."""
    flat: dict[str, Any] = {}
    for key, value in row.record().items():
        if key == "windows":
            flat[key] = len(value)
        elif key == "words":
            text = to_json(value, ascii_only=False)
            flat[key] = text if len(text) <= MAX_CELL else None  # the text has a cell of its own
        elif isinstance(value, dict):
            flat.update({f"{key}.{name}": _join(entry) for name, entry in value.items()})
        elif value is not None:
            flat[key] = _join(value)
    return {key: value[:MAX_CELL] if isinstance(value, str) else value for key, value in flat.items()}


def _join(value: Any) -> Any:
    """Return a cell; a list of emotions becomes a text."""
    return SEPARATOR.join(value) if isinstance(value, list) else value


def read_csv(path: Path) -> list[Row]:
    """Return the rows of a results file. A row whose windows are missing is left out.

    Raises:
        BadOutput: The file is not a results file, or the file with the name of its table of windows is not such a table.
    """
    records = _read_table(path)
    windows: dict[str, list[dict[str, str]]] = defaultdict(list)
    if any(record["windows"] for record in records) and (table := windows_path(path)).exists():
        for record in _read_table(table):
            windows[record["file"]].append(record)
    try:
        rows = [_unflatten(record, windows.get(record["file"], ())) for record in records]
    except (ValueError, KeyError, TypeError):
        raise _not_results(path) from None
    return [row for row in rows if row is not None]


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            csv.field_size_limit(1 << 30)  # earlier versions wrote the windows of a long recording in one cell
            records = csv.DictReader(stream)
            # An empty file has no columns, and no rows.
            if records.fieldnames and not {*LEADING, *TRAILING} <= set(records.fieldnames):
                raise KeyError
            rows = list(records)
            if any(None in row or None in row.values() for row in rows):  # too many or too few cells
                raise ValueError
            return rows
    except (ValueError, KeyError, TypeError, csv.Error):
        raise _not_results(path) from None


def _not_results(path: Path) -> BadOutput:
    return BadOutput(f"{path} is not a results file: choose another one")


def _unflatten(record: Mapping[str, str], windows: Sequence[Mapping[str, str]]) -> Row | None:
    """Return the row of a line; None if its windows are missing."""
    cell = record["windows"]
    if cell.startswith("["):  # an earlier version
        return Row.read({**_fields(record), "windows": json.loads(cell)})
    if not cell:
        return Row.read(_fields(record))
    if len(windows) != int(cell):
        return None
    return Row.read({**_fields(record), "windows": [_fields(window) for window in windows]})


def _fields(record: Mapping[str, str]) -> dict[str, Any]:
    probabilities = {
        key.removeprefix("probabilities."): float(value)
        for key, value in record.items()
        if key.startswith("probabilities.") and value
    }
    code = record["error.code"]
    decision = {name.partition(".")[2]: record[name] for name in APPLIED["decision"] if record.get(name)}
    if "emotions" in decision:
        decision["emotions"] = decision["emotions"].split(SEPARATOR)  # type: ignore[assignment]
    size, profile = record.get("source.size"), record.get("profile.id")
    return {
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
        "profile": {"id": profile, "recordings": record["profile.recordings"]} if profile else None,
        "decision": decision or None,
        EMOTION_SET: record[EMOTION_SET].split(SEPARATOR) if record.get(EMOTION_SET) else None,
        UNFAMILIAR: float(record[UNFAMILIAR]) if record.get(UNFAMILIAR) else None,
        "truncated": record.get("truncated") == "True",
        "seconds_lost": float(record["seconds_lost"]) if record.get("seconds_lost") else None,
        "channels": record.get("channels") or None,
        "aggregation": record["aggregation"],
        **{name: record.get(name) or None for name in SEGMENT},
        "channel": int(record["channel"]) if record.get("channel") else None,
        "words": json.loads(record["words"]) if record.get("words") else None,
        "speech": float(record["speech"]) if record.get("speech") else None,
        "source": {"size": size, "modified": record["source.modified"]} if size else None,
    }
