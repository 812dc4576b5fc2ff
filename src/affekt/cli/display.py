"""What the commands show on a terminal: rows with bars, over many files a progress bar; scores with their protocol."""

from __future__ import annotations

import io
import json
import logging
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.text import Text

from affekt.inference.row import Row
from affekt.progress import Progress

COLOURS = {
    "angry": "red",
    "disgust": "green",
    "fear": "magenta",
    "happy": "yellow",
    "neutral": "default",
    "sad": "blue",
    "surprise": "cyan",
}
EIGHTHS = " ▏▎▍▌▋▊▉"
FEW = 3  # up to so many files are shown with every probability; more get a line each
WINDOWS = 12  # of a long recording, so many windows are shown
# What a line may hold, from wide terminals to narrow: a bar of so many cells, the second guess, if names keep so many.
LAYOUTS = ((20, True, 32), (10, True, 28), (10, False, 20), (0, False, 0))


class _PlainHandler(logging.Handler):
    """Prints messages to standard error as it is at the time, since a progress bar replaces it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def show_log() -> None:
    """Print the package's log, from level INFO on, to standard error: one message per line and nothing else."""
    logger = logging.getLogger("affekt")
    if not any(isinstance(handler, _PlainHandler) for handler in logger.handlers):
        logger.addHandler(_PlainHandler())
    logger.setLevel(logging.INFO)


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Draw a bar for each unfinished task on standard error. Yields None where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with _bars(Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def update(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done, total=total, visible=done < total)

        yield update


def _bars(console: Console) -> ProgressBars:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Output that goes to a file stays there: rich would print it on the console.
    return ProgressBars(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


class Display:
    """Shows rows as they come. Data goes to standard output, progress and the summary to standard error."""

    def __init__(self, names: Sequence[str], emotions: Sequence[str], *, json: bool, output: Path | None) -> None:
        self.names, self.json, self.output = names, json, output
        self.failed = self.earlier = 0
        self.console = Console(highlight=False, soft_wrap=True)
        self.progress: ProgressBars | None = None
        self.emotion = max(map(len, emotions))
        self.name = max(map(cell_len, names), default=0)
        self.bar, self.second, _ = LAYOUTS[0]
        if self.console.is_terminal:
            self._fit(self.console.width)

    def _fit(self, width: int) -> None:
        """Choose the fullest layout that leaves the names room, and the names' width."""
        for self.bar, self.second, enough in LAYOUTS:
            room = width - len("  1:02:03  ") - 2 - self.emotion - self.bar - len(" 99%")
            room -= self.second * (2 + self.emotion + len(" 99%"))
            if room >= min(self.name, enough):
                break
        self.name = min(self.name, max(room, 12))

    def __enter__(self) -> Display:
        if isinstance(sys.stdout, io.TextIOWrapper):  # JSON is UTF-8 wherever it goes; bars are not worth failing for
            sys.stdout.reconfigure(encoding="utf-8") if self.json else sys.stdout.reconfigure(errors="replace")
        if len(self.names) > FEW and sys.stderr.isatty():
            # Rows pass above the bar where both go to one terminal.
            together = self.console if self.console.is_terminal else Console(stderr=True)
            self.progress = _bars(together)
            self.progress.start()
            self.task = self.progress.add_task("recognizing", total=len(self.names))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()
        if kind is None and (self.output or self.failed):
            print(self._summary(), file=sys.stderr)
        elif kind is KeyboardInterrupt and self.output:
            print(f"stopped; what is done is kept, and the same command goes on with {self.output}", file=sys.stderr)

    def _summary(self) -> str:
        place = f"{self.output}: " if self.output else ""
        noun = "file" if len(self.names) == 1 else "files"
        again = f", {self.earlier} from an earlier run" if self.earlier else ""
        return f"{place}{len(self.names)} {noun}{again}, {self.failed} failed"

    def show(self, row: Row, *, earlier: bool) -> None:
        failed = row.status == "error"
        self.failed += failed
        self.earlier += earlier
        if self.progress:  # first: whatever is printed draws the bar anew below it
            self.progress.advance(self.task)
        if self.json:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif not self.output or failed:
            self._print(row)

    def _print(self, row: Row) -> None:
        if len(self.names) > FEW or not row.probabilities:
            self.console.print(self._line(row, row.file, self.name))
            return
        self.console.print(Text(f"{row.file}  ", "bold") + Text(f"{clock(row.duration)}  {row.model}", "dim"))
        for emotion, p in ranked(row):
            style = COLOURS.get(emotion, "cyan")
            name = Text(f"  {emotion:<{self.emotion}}  ", f"bold {style}" if emotion == row.emotion else style)
            self.console.print(name + Text(bar(p, 20), style) + Text(f" {p:6.1%}"))
        for part in row.windows[:WINDOWS]:
            self.console.print(
                self._line(part, f"  {stamp(part.start)} to {stamp(part.end)}", len("  0:00:00 to 0:00:00"))
            )
        if len(row.windows) > WINDOWS:
            self.console.print(Text(f"  and {len(row.windows) - WINDOWS} more windows: --json shows all", "dim"))
        if row.windows:
            self.console.print(Text(f"  above: {row['aggregation']}", "dim"))

    def _line(self, row: Row, name: str, width: int) -> Text:
        start = Text(fitted(name, width) + "  ")
        if row.error:
            return start + Text(self._message(row.error, row.file, width + 2), "bold red")
        start += Text(f"{clock(row.duration):>7}  ", "dim")
        if not row.probabilities:
            return start + Text(row.status, "dim")
        (first, p), (second, q) = ranked(row)[:2]
        style = COLOURS.get(first, "cyan")
        start += (
            Text(f"{first:<{self.emotion}}  ", f"bold {style}") + Text(bar(p, self.bar), style) + Text(f" {p:3.0%}")
        )
        return start + Text(f"  {second} {q:.0%}", "dim") if self.second else start

    def _message(self, error: dict[str, str], name: str, indent: int) -> str:
        """An error beside its file's name, which it goes on from: "is empty"; on a terminal, lines below one another."""
        text = error["message"].removeprefix(name).strip()
        if not self.console.is_terminal:
            return text
        return f"\n{'':{indent}}".join(textwrap.wrap(text, max(20, self.console.width - indent)))


def ranked(row: Row) -> list[tuple[str, float]]:
    """Emotions with their probabilities, the likeliest first."""
    return sorted((row.probabilities or {}).items(), key=lambda item: -item[1])


def fitted(name: str, width: int) -> str:
    """A name in so many cells of the terminal: filled up, or without its beginning, for of a path the end tells more."""
    if cell_len(name) > width:
        while cell_len(name) > width - 1:
            name = name[1:]
        name = f"…{name}"
    return name + " " * (width - cell_len(name))


def bar(share: float, cells: int) -> str:
    """A bar of so many cells, filled to an eighth of a cell."""
    eighths = round(share * cells * 8)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).ljust(cells)[:cells]


def clock(seconds: float) -> str:
    """2.5 s, 1:05, 1:02:03."""
    return f"{seconds:.1f} s" if round(seconds, 1) < 60 else stamp(seconds)


def stamp(seconds: float) -> str:
    """0:02, 1:05, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_scores(scores: dict[str, Any]) -> None:
    """The scores of one corpus, as `affekt evaluate` gives them, with their protocol."""
    console = Console(highlight=False, soft_wrap=True)
    note = f", {scores['note']}" if scores["note"] else ""
    console.print(Text(f"{scores['model']} on {scores['corpus']}{note}: {scores['utterances']} utterances", "bold"))
    for name, text in (
        ("protocol", f"{scores['protocol']}, split {scores['split_hash']}"),
        ("speakers", scores["verdict"] + (f", {scores['speakers']} scored" if scores["speakers"] else "")),
        ("selection", scores["selection"]),
        ("intervals", scores["intervals"]),
    ):
        console.print(f"  {name:<10} {text}")
    entries = [(name, scores[name]) for name in ("UA", "WA", "WF1")] + list(scores["recall"].items())
    width = max(len(name) for name, _ in entries)
    for name, interval in entries:
        value, low, high = (100 * interval[part] for part in ("value", "low", "high"))
        console.print(f"  {name:<{width}}  {value:5.1f} %  ({low:.1f} to {high:.1f})")
    console.print(f"  {'ECE':<{width}}  {100 * scores['ece']:5.1f} %")
    if missing := [emotion for emotion in scores["classes"] if emotion not in scores["recall"]]:
        console.print(f"  No utterance is {', '.join(missing)}: UA is over the others.")
    _print_runs(console, scores)


def _print_runs(console: Console, scores: dict[str, Any]) -> None:
    """What several trainings, and several ways to choose an epoch, make of the same."""
    runs = scores.get("runs", [])
    if len(runs) > 1:
        console.print(f"Over {len(runs)} runs, mean and standard deviation:")
        for name, entry in scores["over_runs"].items():
            console.print(f"  {name:3}  {100 * entry['mean']:5.1f} %  ± {100 * entry['std']:.1f}")
    choices = scores.get("by_selection", {})
    if len(choices) < 2:
        return
    console.print("UA by the rule that chooses the epoch" + (", mean over the runs:" if len(runs) > 1 else ":"))
    width = max(map(len, choices))
    for name, entry in choices.items():
        console.print(f"  {name:<{width}}  {100 * entry['UA']:5.1f} %  {entry['rule']}")
    if "paper" in choices:
        honest = "validation" if "validation" in choices else "last"
        gain = 100 * (choices["paper"]["UA"] - choices[honest]["UA"])
        console.print(f"  Choosing on the test part prints {gain:.1f} points more than {honest!r}; new data would not.")
