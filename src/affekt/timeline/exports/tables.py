"""Segments as tables: CSV and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affekt.extras import need
from affekt.files import atomic_write
from affekt.inference.row import SEGMENT, Row
from affekt.timeline.timeline import Timeline

LEADING = (
    "schema",
    "file",
    "start",
    "end",
    "duration",
    "speaker",
    "channel",
    "status",
    "emotion",
    "steady_emotion",
    "text",
)
TRAILING = ("model", "error.code", "error.message")
SEPARATOR = ";"
"""Between the entries of a list in a cell."""


def write_csv(timeline: Timeline, path: Path) -> None:
    """Write a row per segment; nested fields have columns such as `probabilities.angry`, and times of words are left
    out."""
    cells = [_flatten(segment) for segment in timeline.segments]
    probabilities = [f"probabilities.{emotion}" for emotion in timeline.emotions]
    named = {*LEADING, *probabilities, *TRAILING}
    further = dict.fromkeys(name for row in cells for name in row if name not in named)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*LEADING, *probabilities, *TRAILING, *further], restval="")
        writer.writeheader()
        writer.writerows(cells)


def _flatten(segment: Row) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in segment.items():
        if isinstance(value, Mapping):
            cells.update({f"{name}.{key}": _join(entry) for key, entry in value.items()})
        elif value is not None and name != "words":
            cells[name] = _join(value)
    return cells


def _join(value: Any) -> Any:
    return SEPARATOR.join(map(str, value)) if isinstance(value, list | tuple) else value


def write_parquet(timeline: Timeline, path: Path) -> None:
    """Write a row per segment; probabilities, errors and words are structs."""
    pa = need("pyarrow", extra="parquet", purpose=f"writing {path}")
    parquet = need("pyarrow.parquet", extra="parquet", purpose=f"writing {path}")
    table = pa.Table.from_pylist([dict(segment) for segment in timeline.segments], schema=_schema(timeline))
    with atomic_write(path) as temporary:
        parquet.write_table(table, temporary)


def _schema(timeline: Timeline) -> Any:
    from affekt.inference.parquet_rows import OPTIONAL, row_schema

    present = {name for segment in timeline.segments for name in segment} | {*SEGMENT} - {"words"}
    schema = row_schema(timeline.emotions, [name for name in OPTIONAL if name in present])
    for name in ("aggregation", "windows", "source"):  # of rows of whole files
        schema = schema.remove(schema.get_field_index(name))
    return schema
