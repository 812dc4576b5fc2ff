"""JSON lines: an object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from affekt.errors import BadCorpus
from affekt.tabular.record import Record
from affekt.tabular.text import stream_lines


def read_json_lines(path: Path) -> tuple[list[str], list[Record]]:
    """Return the columns and the rows; blank lines are skipped.

    Raises:
        BadCorpus: A line is not a JSON object, or has a key twice.
    """
    records = list(stream_json_lines(path))
    return list(dict.fromkeys(name for record in records for name in record.values)), records


def stream_json_lines(path: Path) -> Iterator[Record]:
    """Yield the rows one by one; errors as for `read_json_lines`."""
    for number, line in enumerate(stream_lines(path), start=1):
        if line.strip():
            yield Record(path, f"line {number}", _parse(path, number, line))


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadCorpus(f"{path}, line {number}, is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadCorpus(f'{path}, line {number}: expected an object, {{"audio": ..., "emotion": ...}}')
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"it has the key {repeated!r} twice")
    return content
