"""What `affekt recognize` shows: JSON lines, or a table with bars and, over many files on a terminal, a progress bar."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from affekt.inference.row import Row

COLOURS = {
    "angry": "red",
    "disgust": "green",
    "fear": "magenta",
    "happy": "yellow",
    "neutral": "white",
    "sad": "blue",
    "surprise": "cyan",
}
EIGHTHS = " ▏▎▍▌▋▊▉"
BAR = 20  # cells
FEW = 3  # up to so many files are shown with every probability; more get a line each
WINDOWS = 12  # of a long recording, so many windows are shown


class Display:
    """Shows rows as they come. Data goes to standard output, progress and the summary to standard error."""

    def __init__(self, files: list[str], model: str, *, json: bool, output: Path | None) -> None:
        self.files, self.model, self.json, self.output = files, model, json, output
        self.failed = self.earlier = 0
        self.console = Console(highlight=False, soft_wrap=True)
        self.progress: Progress | None = None
        longest = max((cell_len(name) for name in files), default=0)
        self.width = min(longest, max(20, self.console.width - 62)) if self.console.is_terminal else longest

    def __enter__(self) -> Display:
        if len(self.files) > FEW and sys.stderr.isatty():
            # Rows pass above the bar where both go to one terminal.
            together = self.console if self.console.is_terminal else Console(stderr=True)
            columns = (TextColumn("recognising"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, console=together, transient=True)
            self.progress.start()
            self.task = self.progress.add_task("", total=len(self.files))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()
        if kind is None and (self.output or self.failed):
            place = f"{self.output}: " if self.output else ""
            again = f", {self.earlier} from an earlier run" if self.earlier else ""
            noun = "file" if len(self.files) == 1 else "files"
            print(f"{place}{len(self.files)} {noun}{again}, {self.failed} failed", file=sys.stderr)

    def show(self, row: Row, *, earlier: bool) -> None:
        self.failed += row.status == "error"
        self.earlier += earlier
        if self.json:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif not self.output or row.status == "error":
            self._print(row)
        if self.progress:
            self.progress.advance(self.task)

    def _print(self, row: Row) -> None:
        if len(self.files) > FEW or not row.probabilities:
            self.console.print(self._line(row, row.file, self.width))
            return
        self.console.print(Text(f"{row.file}  ", "bold") + Text(f"{clock(row.duration)}  {row['model']}", "dim"))
        ranked = sorted(row.probabilities.items(), key=lambda item: -item[1])
        width = max(len(emotion) for emotion in row.probabilities)
        for emotion, p in ranked:
            style = COLOURS.get(emotion, "cyan")
            name = Text(f"  {emotion:<{width}}  ", f"bold {style}" if emotion == row.emotion else style)
            self.console.print(name + Text(bar(p), style) + Text(f" {p:6.1%}"))
        for part in row.windows[:WINDOWS]:
            self.console.print(self._line(part, f"  {clock(part.start)} to {clock(part.end)}", 18))
        if len(row.windows) > WINDOWS:
            self.console.print(Text(f"  and {len(row.windows) - WINDOWS} more windows: --json shows all", "dim"))

    def _line(self, row: Row, name: str, width: int) -> Text:
        if cell_len(name) > width:
            name = "…" + name[-(width - 1) :]  # of a path, the end tells more
        start = Text(set_cell_size(name, width) + "  ")
        if row.error:
            return start + Text(f"{row.error['code']}: {row.error['message']}", "bold red")
        start += Text(f"{clock(row.duration):>8}  ", "dim")
        if not row.probabilities:
            return start + Text(row.status, "dim")
        (first, p), (second, q) = sorted(row.probabilities.items(), key=lambda item: -item[1])[:2]
        style = COLOURS.get(first, "cyan")
        start += Text(f"{first:<8} ", f"bold {style}") + Text(bar(p), style)
        return start + Text(f" {p:4.0%}") + Text(f"  {second} {q:.0%}", "dim")


def bar(share: float) -> str:
    """A bar of BAR cells, filled to an eighth of a cell."""
    eighths = round(share * BAR * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).ljust(BAR)[:BAR]


def clock(seconds: float) -> str:
    """2.5 s, 1:05, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_scores(scores: dict[str, Any]) -> None:
    """The scores of one corpus, as `affekt evaluate` gives them, with their protocol."""
    console = Console(highlight=False, soft_wrap=True)
    note = f", {scores['note']}" if scores["note"] else ""
    console.print(Text(f"{scores['model']} on {scores['corpus']}{note}: {scores['utterances']} utterances", "bold"))
    independent = "speaker-independent" if scores["speaker_independent"] else "NOT speaker-independent"
    console.print(
        f"{scores['protocol']}, split {scores['split_hash']}, {independent}; selection: {scores['selection']}"
    )
    console.print(scores["intervals"])
    entries = [(name, scores[name]) for name in ("UA", "WA", "WF1")] + list(scores["recall"].items())
    for name, interval in entries:
        value, low, high = (100 * interval[part] for part in ("value", "low", "high"))
        console.print(f"  {name:<8} {value:5.1f} %  ({low:.1f} to {high:.1f})")
    console.print(f"  {'ECE':<8} {100 * scores['ece']:5.1f} %")
