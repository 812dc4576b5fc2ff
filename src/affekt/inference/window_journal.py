"""The journal of a long source's windows: an interrupted run continues in the middle of the source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from affekt.inference.row import Row, to_json_line

MIN_WINDOWS = 2
"""Minimum number of windows of a long source. The first window is written together with the second."""


class WindowJournal:
    """A context manager with the recognized windows of one source. If its block fails, the journal is kept for the next run.

    Args:
        path: The journal, with one window per line; None to write nothing.
        file: The name of the source.
        model: The model's id.
        source: The source's size and time of change; windows of another version are not used.
        on_window: Called with each window of a long source.
    """

    def __init__(
        self,
        path: Path | None,
        file: str,
        model: str,
        source: dict[str, float] | None,
        on_window: Callable[[Row], None] | None = None,
    ) -> None:
        self.path, self.source, self.on_window = path, source, on_window
        self._rows: list[Row] = []
        self._stored = {
            (row.start, row.end): row
            for row in _read(path)
            if (row.file, row.model, row.source) == (file, model, source) and source is not None
        }
        self._continues = bool(self._stored)

    def find(self, start: float, end: float) -> Row | None:
        """Return the row of the window with these times in seconds; None if it has not been recognized."""
        return self._stored.get((round(start, 4), round(end, 4)))

    def add(self, row: Row) -> None:
        """Add a window's row."""
        self._rows.append(row)
        if len(self._rows) < MIN_WINDOWS:
            return
        new = self._rows if len(self._rows) == MIN_WINDOWS else [row]
        if self.path is not None:
            self._write([row for row in new if (row.start, row.end) not in self._stored])
        if self.on_window is not None:
            for window in new:
                self.on_window(window)

    def _write(self, rows: list[Row]) -> None:
        assert self.path is not None
        for row in rows:
            row.source = self.source
        if rows:
            with self.path.open("a" if self._continues else "w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(to_json_line(row.record()) for row in rows)
            self._continues = True

    def __enter__(self) -> WindowJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self.path is not None:
            self.path.unlink(missing_ok=True)


def _read(path: Path | None) -> list[Row]:
    """Return the journal's rows, without a last line that a killed process left incomplete."""
    rows: list[Row] = []
    if path is None or not path.exists():
        return rows
    for line in path.read_bytes().split(b"\n"):
        try:
            rows.append(Row.read(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            break
    return rows
