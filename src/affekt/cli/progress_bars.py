"""Progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as ProgressBars

from affekt.progress import Progress


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Draw a progress bar for each unfinished task on standard error; yield None if it is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with make_bars(Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def update(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done, total=total, visible=done < total)

        yield update


def make_bars(console: Console) -> ProgressBars:
    """Return bars on a console; each has a description, the number of finished steps, and the remaining time."""
    return _bars(console, MofNCompleteColumn())


def time_bars(console: Console) -> ProgressBars:
    """Return bars on a console; each has a description, the percentage that is done, and the remaining time."""
    return _bars(console, TaskProgressColumn())


def _bars(console: Console, done: ProgressColumn) -> ProgressBars:
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn())
    # Redirect standard output only if it is a terminal: otherwise rich would print on the console what belongs in a file.
    return ProgressBars(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())
