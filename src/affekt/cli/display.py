"""Terminal output of the commands: recognized rows, progress bars, the log, and scores."""

from __future__ import annotations

import io
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
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.text import Text

from affekt.inference.row import Row, to_json_line
from affekt.plural import quantity
from affekt.progress import Progress
from affekt.terminal import escape_controls

COLORS = {
    "angry": "red",
    "disgust": "green",
    "fear": "magenta",
    "happy": "yellow",
    "neutral": "default",
    "sad": "blue",
    "surprise": "cyan",
}
BAR_EIGHTHS = " ▏▎▍▌▋▊▉"
MAX_DETAILED_FILES = 3
"""Maximum number of files for which all probabilities are shown. With more files, each is shown in one line."""
MAX_PROGRESS_NAME = 32
"""Maximum width of a file's name in the progress bar, in terminal cells."""
MAX_WINDOWS = 12
"""Maximum number of windows shown for a long recording."""
# From wide to narrow terminals: width of the bar, whether the second emotion is shown, and minimum width of the name.
LAYOUTS = ((20, True, 32), (10, True, 28), (10, False, 20), (0, False, 0))


class _PlainHandler(logging.Handler):
    """A log handler that prints to the current `sys.stderr`, which a progress bar replaces while it is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print(escape_controls(self.format(record), keep="\n"), file=sys.stderr, flush=True)


def show_log(*, debug: bool = False) -> None:
    """Print the package's log to standard error: one message per line, without level or time.

    Messages of level INFO and above are printed; with `debug` also those of level DEBUG, such as tracebacks.
    """
    logger = logging.getLogger("affekt")
    if not any(isinstance(handler, _PlainHandler) for handler in logger.handlers):
        logger.addHandler(_PlainHandler())
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Draw a progress bar for each unfinished task on standard error; yield None if it is not a terminal."""
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
    # Redirect standard output only if it is a terminal: otherwise rich would print on the console what belongs in a file.
    return ProgressBars(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


class Display:
    """The display of recognized rows: the rows on standard output, progress and a summary on standard error.

    Args:
        names: The names of all files.
        emotions: The emotions that the model distinguishes.
        json: Print rows as JSON.
        output: The results file, if there is one; then only errors are printed as text.
    """

    def __init__(self, names: Sequence[str], emotions: Sequence[str], *, json: bool, output: Path | None) -> None:
        self.names, self.json, self.output = names, json, output
        self.failed = self.resumed = self.shown = 0
        self.console = Console(highlight=False, soft_wrap=True)
        self.progress: ProgressBars | None = None
        self.emotion_width = max(map(len, emotions))
        self.name_width = max((cell_len(escape_controls(name)) for name in names), default=0)
        self.bar_width, self.show_second, _ = LAYOUTS[0]
        if self.console.is_terminal:
            self._fit(self.console.width)

    def _fit(self, width: int) -> None:
        """Choose the widest layout that leaves room for the names, and the width of the names."""
        for self.bar_width, self.show_second, min_name_width in LAYOUTS:
            room = width - len("  1:02:03  ") - 2 - self.emotion_width - self.bar_width - len(" 99%")
            room -= self.show_second * (2 + self.emotion_width + len(" 99%"))
            if room >= min(self.name_width, min_name_width):
                break
        self.name_width = min(self.name_width, max(room, 12))

    def __enter__(self) -> Display:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # JSON is always UTF-8. In text, "?" replaces characters that cannot be encoded.
            sys.stdout.reconfigure(encoding="utf-8") if self.json else sys.stdout.reconfigure(errors="replace")
        if len(self.names) > MAX_DETAILED_FILES and sys.stderr.isatty():
            self._start_progress()
        return self

    def _start_progress(self, description: str = "recognizing") -> None:
        # If rows and the bar are shown on the same terminal, the rows scroll above the bar.
        console = self.console if self.console.is_terminal else Console(stderr=True)
        self.progress = _bars(console)
        self.progress.start()
        self.task = self.progress.add_task(description, total=len(self.names), completed=self.shown)

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
        """Print a row, and advance the progress bar."""
        failed = row.status == "error"
        self.failed += failed
        self.resumed += row.resumed
        self.shown += 1
        if self.progress:  # first, since printing redraws the bar
            self.progress.update(self.task, advance=1, description="recognizing")
        if self.json:
            print(to_json_line(row), end="", flush=True)
        elif not self.output or failed:
            self._print(row)

    def show_window(self, window: Row) -> None:
        """Show in the progress bar how much of a long file has been recognized."""
        if sys.stderr.isatty():
            name = escape_controls(window.file)
            name = fit_name(name, min(MAX_PROGRESS_NAME, cell_len(name)))
            description = escape(f"recognizing {name} {format_time(window.end)}")
            if self.progress:
                self.progress.update(self.task, description=description)
            else:
                self._start_progress(description)

    def _print(self, row: Row) -> None:
        self._print_result(row)
        for remark in row.remarks:
            self.console.print(Text(f"  note: {remark}", "dim"))

    def _print_result(self, row: Row) -> None:
        if len(self.names) > MAX_DETAILED_FILES or not row.probabilities:
            self.console.print(self._line(row, escape_controls(row.file), self.name_width))
            return
        self.console.print(
            Text(f"{escape_controls(row.file)}  ", "bold")
            + Text(f"{format_duration(row.duration)}  {row.model}", "dim")
        )
        for emotion, p in rank_emotions(row):
            style = COLORS.get(emotion, "cyan")
            name = Text(f"  {emotion:<{self.emotion_width}}  ", f"bold {style}" if emotion == row.emotion else style)
            self.console.print(name + Text(bar(p, 20), style) + Text(f" {p:6.1%}"))
        for window in row.windows[:MAX_WINDOWS]:
            span = f"  {format_time(window.start)} to {format_time(window.end)}"
            self.console.print(self._line(window, span, len("  0:00:00 to 0:00:00")))
        if len(row.windows) > MAX_WINDOWS:
            self.console.print(Text(f"  and {len(row.windows) - MAX_WINDOWS} more windows; --json shows all", "dim"))
        if row.windows:
            self.console.print(Text(f"  probabilities above: {row['aggregation']}", "dim"))

    def _line(self, row: Row, name: str, width: int) -> Text:
        start = Text(fit_name(name, width) + "  ")
        if row.error:
            return start + Text(self._message(row.error, row.file, width + 2), "bold red")
        start += Text(f"{format_duration(row.duration):>7}  ", "dim")
        if not row.probabilities:
            return start + Text(row.status, "dim")
        (first, p), (second, q) = rank_emotions(row)[:2]
        style = COLORS.get(first, "cyan")
        start += (
            Text(f"{first:<{self.emotion_width}}  ", f"bold {style}")
            + Text(bar(p, self.bar_width), style)
            + Text(f" {p:3.0%}")
        )
        return start + Text(f"  {second} {q:.0%}", "dim") if self.show_second else start

    def _message(self, error: dict[str, str], name: str, indent: int) -> str:
        """Return an error's message without the file name before it, wrapped on a terminal."""
        text = escape_controls(error["message"].removeprefix(name).strip())
        if not self.console.is_terminal:
            return text
        return f"\n{'':{indent}}".join(textwrap.wrap(text, max(20, self.console.width - indent)))


def rank_emotions(row: Row) -> list[tuple[str, float]]:
    """Return the emotions with their probabilities, most probable first."""
    return sorted((row.probabilities or {}).items(), key=lambda item: -item[1])


def fit_name(name: str, width: int) -> str:
    """Pad or shorten a name to `width` terminal cells. Its beginning is cut, since the end of a path is more informative."""
    if cell_len(name) > width:
        while cell_len(name) > width - 1:
            name = name[1:]
        name = f"…{name}"
    return name + " " * (width - cell_len(name))


def bar(fraction: float, cells: int) -> str:
    """Return a bar of `cells` cells, filled to the nearest eighth of a cell."""
    eighths = round(fraction * cells * 8)
    return ("█" * (eighths // 8) + BAR_EIGHTHS[eighths % 8]).ljust(cells)[:cells]


def format_duration(seconds: float) -> str:
    """Format a duration: 2.5 s, 1:05, 1:02:03."""
    return f"{seconds:.1f} s" if round(seconds, 1) < 60 else format_time(seconds)


def format_time(seconds: float) -> str:
    """Format a time: 0:02, 1:05, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def print_scores(scores: dict[str, Any]) -> None:
    """Print the scores on one corpus with their protocol, given as the object that `affekt evaluate --json` prints."""
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
        value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
        console.print(f"  {name:<{width}}  {value:5.1f} %  ({low:.1f} to {high:.1f})")
    console.print(f"  {'ECE':<{width}}  {100 * scores['ece']:5.1f} %")
    if missing := [emotion for emotion in scores["classes"] if emotion not in scores["recall"]]:
        console.print(f"  No utterances of {', '.join(missing)}: UA is the mean over the other emotions.")
    _print_runs(console, scores)


def _print_runs(console: Console, scores: dict[str, Any]) -> None:
    """Print mean and standard deviation over runs, and UA under each selection rule."""
    runs = scores.get("runs", [])
    if len(runs) > 1:
        console.print(f"Mean and standard deviation over {len(runs)} runs:")
        for name, entry in scores["over_runs"].items():
            console.print(f"  {name:3}  {100 * entry['mean']:5.1f} %  ± {100 * entry['std']:.1f}")
    by_rule = scores.get("by_selection", {})
    if len(by_rule) < 2:
        return
    console.print("UA by selection rule" + (", mean over runs:" if len(runs) > 1 else ":"))
    width = max(map(len, by_rule))
    for name, entry in by_rule.items():
        console.print(f"  {name:<{width}}  {100 * entry['UA']:5.1f} %  {entry['rule']}")
    if "paper" in by_rule:
        other_rule = "validation" if "validation" in by_rule else "last"
        gain = 100 * (by_rule["paper"]["UA"] - by_rule[other_rule]["UA"])
        console.print(
            f"  Selecting on the test set adds {gain:.1f} points over {other_rule!r}; expect no such gain on new data."
        )
