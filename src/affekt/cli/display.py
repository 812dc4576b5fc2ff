"""The display of `affekt recognize`: rows, progress and a summary.

rich is imported only where text or a progress bar is shown, so that `affekt recognize --json` starts fast.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from affekt.inference.row import Row, to_json_line
from affekt.plural import quantity
from affekt.terminal import escape_controls

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as ProgressBars

    from affekt.cli.text_rows import TextRows

MAX_DETAILED_FILES = 3
"""Maximum number of files for which all probabilities are shown. With more files, each is shown in one line."""
MAX_PROGRESS_NAME = 32
"""Maximum width of a file's name in the progress bar, in terminal cells."""


class Display:
    """The display of recognized rows: the rows on standard output, progress and a summary on standard error.

    Args:
        names: The names of all files.
        emotions: The emotions that the model distinguishes.
        json: Print rows as JSON.
        output: The results file, if there is one; then only errors are printed as text.
        top: Number of emotions to print for each row, most probable first; None for as many as fit.
    """

    def __init__(
        self, names: Sequence[str], emotions: Sequence[str], *, json: bool, output: Path | None, top: int | None = None
    ) -> None:
        self.names, self.json, self.output, self.top = names, json, output, top
        self.failed = self.resumed = self.done = 0
        self.progress: ProgressBars | None = None
        # Not later, since the width of the terminal cannot be read while the messages of decoders are discarded.
        self.text_rows = None if json else self._make_text_rows(emotions)

    @cached_property
    def console(self) -> Console:
        """Standard output."""
        from rich.console import Console

        return Console(highlight=False, soft_wrap=True)

    def _make_text_rows(self, emotions: Sequence[str]) -> TextRows:
        from affekt.cli.text_rows import TextRows

        detailed = len(self.names) <= MAX_DETAILED_FILES
        return TextRows(self.names, emotions, self.console, detailed=detailed, top=self.top)

    def __enter__(self) -> Display:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # JSON is always UTF-8. In text, "?" replaces characters that cannot be encoded.
            sys.stdout.reconfigure(encoding="utf-8") if self.json else sys.stdout.reconfigure(errors="replace")
        if len(self.names) > MAX_DETAILED_FILES and sys.stderr.isatty():
            self._start_progress()
        return self

    def _start_progress(self, description: str = "recognizing") -> None:
        from rich.console import Console

        from affekt.cli.progress_bars import make_bars

        # If rows and the bar are shown on the same terminal, the rows scroll above the bar.
        console = self.console if self.console.is_terminal else Console(stderr=True)
        self.progress = make_bars(console)
        self.progress.start()
        self.task = self.progress.add_task(description, total=len(self.names), completed=self.done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()
        if kind is None and (self.output or self.failed):
            print(self._summary(), file=sys.stderr)
        elif kind is KeyboardInterrupt and self.output:
            print(f"interrupted; run the same command again to continue {self.output}", file=sys.stderr)

    def _summary(self) -> str:
        prefix = f"{self.output}: " if self.output else ""
        resumed = f", {self.resumed} from an earlier run" if self.resumed else ""
        return f"{prefix}{quantity(len(self.names), 'file')}{resumed}, {self.failed} failed"

    def show(self, row: Row) -> None:
        """Print a row."""
        failed = row.status == "error"
        self.failed += failed
        self.resumed += row.resumed
        if self.text_rows is None:
            print(to_json_line(row), end="", flush=True)
        elif not self.output or failed:
            self.text_rows.print(row)

    def show_progress(self, task: str, done: int, total: int) -> None:
        """Show in the progress bar how many files have been recognized."""
        self.done = done
        if self.progress:
            self.progress.update(self.task, completed=done, total=total, description=task)

    def show_window(self, window: Row) -> None:
        """Show in the progress bar how much of a long file has been recognized."""
        if sys.stderr.isatty():
            from rich.cells import cell_len
            from rich.markup import escape

            from affekt.cli.text_rows import fit_name, format_time

            name = escape_controls(window.file)
            name = fit_name(name, min(MAX_PROGRESS_NAME, cell_len(name)))
            description = escape(f"recognizing {name} {format_time(window.end)}")
            if self.progress:
                self.progress.update(self.task, description=description)
            else:
                self._start_progress(description)
