"""Recognized rows as text on standard output."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from affekt.inference.row import Row
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
MAX_WINDOWS = 12
"""Maximum number of windows shown for a long recording."""
UNKNOWN = "unknown"
# From wide to narrow terminals: width of the bar, whether further emotions are shown, and minimum width of the name.
LAYOUTS = ((20, True, 32), (10, True, 28), (10, False, 20), (0, False, 0))


class TextRows:
    """A printer of rows as text, aligned to one another and to the width of a terminal.

    Args:
        names: The names of all files.
        emotions: The emotions that the model distinguishes.
        console: Standard output.
        detailed: Show the probabilities of each row below one another; otherwise, each row is one line.
        top: Number of emotions to show, most probable first; None for all if `detailed`, otherwise 2 if they fit.
    """

    def __init__(
        self, names: Sequence[str], emotions: Sequence[str], console: Console, *, detailed: bool, top: int | None = None
    ) -> None:
        self.console, self.detailed, self.top = console, detailed, top
        self.emotion_width = max(map(len, [*emotions, UNKNOWN]))
        self.name_width = max((cell_len(escape_controls(name)) for name in names), default=0)
        self.num_further = min(2 if top is None else top, len(emotions)) - 1
        """Number of emotions after the first one in a row of one line."""
        self.bar_width, self.show_further, _ = LAYOUTS[0]
        if console.is_terminal:
            self._fit(console.width)

    def _fit(self, width: int) -> None:
        """Choose the widest layout that leaves room for the names, and the width of the names."""
        for self.bar_width, self.show_further, min_name_width in LAYOUTS:
            room = width - len("  1:02:03  ") - 2 - self.emotion_width - self.bar_width - len(" 99%")
            room -= self.show_further * self.num_further * (2 + self.emotion_width + len(" 99%"))
            if room >= min(self.name_width, min_name_width):
                break
        self.name_width = min(self.name_width, max(room, 12))

    def print(self, row: Row) -> None:
        """Print a row and its remarks."""
        self._print_result(row)
        for remark in row.remarks:
            self.console.print(Text(f"  note: {remark}", "dim"))

    def _print_result(self, row: Row) -> None:
        if not (self.detailed and row.probabilities):
            self.console.print(self._line(row, escape_controls(row.file), self.name_width))
            return
        self.console.print(
            Text(f"{escape_controls(row.file)}  ", "bold")
            + Text(f"{format_duration(row.duration)}  {row.model}{describe_decision(row)}", "dim")
        )
        for emotion, p in row.top(self.top):
            style = COLORS.get(emotion, "cyan")
            name = Text(f"  {emotion:<{self.emotion_width}}  ", f"bold {style}" if emotion == row.emotion else style)
            self.console.print(name + Text(bar(p, 20), style) + Text(f" {p:6.1%}"))
        if row.emotion_set is not None:
            self.console.print(Text(f"  set of emotions: {', '.join(row.emotion_set)}"))
        if source := row.get("text_by"):
            self.console.print(Text("  words: ") + describe_text(row) + Text(f"  {escape_controls(source)}", "dim"))
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
            return start + Text(row.status.replace("_", " "), "dim")
        ranked = row.top(1 + self.num_further)
        first, p = ranked[0]
        style = COLORS.get(first, "cyan") if row.emotion else "dim"
        start += (
            Text(f"{row.emotion or UNKNOWN:<{self.emotion_width}}  ", f"bold {style}" if row.emotion else style)
            + Text(bar(p, self.bar_width), style)
            + Text(f" {p:3.0%}")
        )
        further = ranked[1:] if row.emotion else ranked
        if self.show_further:
            start += Text("".join(f"  {emotion} {q:.0%}" for emotion, q in further), "dim")
        if row.emotion_set is not None:
            start += Text(f"  {{{', '.join(row.emotion_set)}}}", "dim")
        return start + Text("  ") + describe_text(row) if row.text else start

    def _message(self, error: dict[str, str], name: str, indent: int) -> str:
        """Return an error's message without the file name before it, wrapped on a terminal."""
        text = escape_controls(error["message"].removeprefix(name).strip())
        if not self.console.is_terminal:
            return text
        return f"\n{'':{indent}}".join(textwrap.wrap(text, max(20, self.console.width - indent)))


def describe_text(row: Row) -> Text:
    """Return the words of a row; empty for those of a long recording, whose windows have them."""
    return Text(escape_controls(row.text or ""), "italic")


def describe_decision(row: Row) -> str:
    """Return how the emotion of a row was decided, to follow the name of the model; "" for the most probable of all."""
    decision = row.decision or {}
    parts = [f"only {', '.join(decision['emotions'])}"] if "emotions" in decision else []
    parts += [f"unknown: below {decision['threshold']:.0%}"] if row.status == "unknown" else []
    return "".join(f"  {part}" for part in parts)


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
