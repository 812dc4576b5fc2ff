"""The windows of a source that have been recognized, such as those of `affekt.inference.window_journal`."""

from __future__ import annotations

from typing import Protocol

from affekt.inference.row import Row


class FinishedWindows(Protocol):
    """The windows of one source that have been recognized, in this run or an earlier one."""

    def find(self, start: float, end: float) -> Row | None:
        """Return the row of the window with these times in seconds; None if it has not been recognized."""
        raise NotImplementedError

    def add(self, row: Row) -> None:
        """Add the row of a window; it may have come from `find`."""
        raise NotImplementedError
