"""The journal of a long source's windows: an interrupted run continues in the middle of the source."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from affekt.inference.row import Row, to_json_line

logger = logging.getLogger(__name__)

MIN_WINDOWS = 2
"""Minimum number of windows of a long source. The first window is written together with the second."""


class WindowJournal:
    """The recognized windows of one source. Unless they are deleted, the next run continues after them.

    Args:
        path: The journal, with one window per line; None to write nothing.
        file: The name of the source.
        model: The model's id.
        source: The source's size and time of change; windows of another version are not used.
        on_window: Called with each window of a long source.
        applied: The fields on what was applied besides the model; windows with others are not used.
    """

    def __init__(
        self,
        path: Path | None,
        file: str,
        model: str,
        source: dict[str, float] | None,
        on_window: Callable[[Row], None] | None = None,
        applied: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.source, self.on_window = path, source, on_window
        self._rows: list[Row] = []
        self._stored = {(row.start, row.end): row for row in _read(path, file, model, source, applied or {})}
        self._continues = bool(self._stored)

    @property
    def stored(self) -> list[Row]:
        """The rows of windows from an earlier run."""
        return list(self._stored.values())

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
            try:
                with self.path.open("a" if self._continues else "w", encoding="utf-8", newline="\n") as stream:
                    stream.writelines(to_json_line(row.record()) for row in rows)
            except OSError as error:  # only continuing needs the journal
                logger.warning("%s cannot be written: %s", self.path, error.strerror or error)
                self.path = None
                return
            self._continues = True

    def delete(self) -> None:
        """Delete the journal, since its source is finished."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def _read(
    path: Path | None,
    file: str,
    model: str,
    source: dict[str, float] | None,
    applied: Mapping[str, Any],
) -> list[Row]:
    """Return the journal's rows if they belong to this source, without a last line that a killed process left incomplete."""
    rows: list[Row] = []
    if path is None or source is None:
        return rows
    try:
        with path.open("rb") as stream:
            for line in stream:
                row = Row.read(json.loads(line))
                if (row.file, row.model, row.source, row.applied) != (file, model, source, applied):
                    break
                rows.append(row)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return rows
