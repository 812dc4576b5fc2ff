"""The display of `affekt recognize --timeline`: segments as they are recognized, and a summary of each recording."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from affekt.errors import AffektError
from affekt.inference.row import Row, to_json_line
from affekt.plural import quantity
from affekt.terminal import escape_controls
from affekt.timeline.timeline import Timeline

if TYPE_CHECKING:
    from rich.progress import Progress as ProgressBars
    from rich.text import Text

    from affekt.timeline.summary import TrackSummary

BAR = 20
"""Cells of a bar of 100 %."""
MAX_TURNING_POINTS = 12
"""Maximum number of turning points that are shown for a track."""


class TimelineDisplay:
    """Prints segments and summaries on standard output, and progress with the time left on standard error.

    Args:
        files: The recordings.
        names: Their names.
        emotions: The emotions that the model distinguishes.
        json: Print each segment as one line of JSON, and nothing else.
        output: The file of segments, if there is one; then only summaries and errors are printed as text.
    """

    def __init__(
        self, files: Sequence[Path], names: Sequence[str], emotions: Sequence[str], *, json: bool, output: Path | None
    ) -> None:
        from rich.console import Console

        self.files, self.names, self.json, self.output = files, names, json, output
        self.width = max(map(len, (*emotions, "no speech", "unknown")))
        self.failed = self.resumed = self.segments = self.done = 0
        self.console = Console(highlight=False, soft_wrap=True)
        self.progress: ProgressBars | None = None
        self.is_titled = False

    def __enter__(self) -> TimelineDisplay:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8") if self.json else sys.stdout.reconfigure(errors="replace")
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_progress()
        if kind is None and self.output:
            resumed = f", {self.resumed} from an earlier run" if self.resumed else ""
            counted = f"{quantity(len(self.names), 'file')}, {quantity(self.segments, 'segment')}{resumed}"
            print(f"{self.output}: {counted}, {quantity(self.failed, 'file')} failed", file=sys.stderr)
        elif kind is KeyboardInterrupt and self.output:
            print(f"interrupted; run the same command again to continue {self.output}", file=sys.stderr)

    def _begin(self) -> None:
        """Begin the next recording: show a bar of its duration, with the time left."""
        self.is_titled = False
        if self.done == len(self.files) or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.markup import escape

        from affekt.audio.read import duration
        from affekt.cli.progress_bars import time_bars
        from affekt.cli.text_rows import fit_name

        path, total = self.files[self.done], None
        if path.is_file():
            with contextlib.suppress(AffektError):
                total = duration(path)
        console = self.console if self.console.is_terminal else Console(stderr=True)
        self.progress = time_bars(console)
        self.progress.start()
        name = escape_controls(self.names[self.done])
        self.task = self.progress.add_task(escape(fit_name(name, min(32, len(name)))), total=total)

    def _end_progress(self) -> None:
        if self.progress:
            self.progress.stop()
            self.progress = None

    def show_segment(self, row: Row, read: float) -> None:
        """Print a segment, and show how much of the recording has been read."""
        self.segments += 1
        self.resumed += row.resumed
        if self.progress:
            self.progress.update(self.task, completed=read)
        if self.json:
            print(to_json_line(row), end="", flush=True)
        elif not self.output:
            if not self.is_titled:
                self._print_title(row.file)
            self.console.print(self._line(row))

    def show(self, result: Timeline | Row) -> None:
        """Print the summary of a recording, or its error."""
        self._end_progress()
        self.done += 1
        if isinstance(result, Row):
            self._show_error(result)
        elif not self.json:
            self._print_summary(result)
        self._begin()

    def _show_error(self, row: Row) -> None:
        from rich.text import Text

        self.failed += 1
        if self.json:
            print(to_json_line(row), end="", flush=True)
        elif row.error:
            message = escape_controls(row.error["message"].removeprefix(row.file).strip())
            self.console.print(Text(f"{escape_controls(row.file)}  ", "bold") + Text(message, "bold red"))

    def _print_title(self, file: str) -> None:
        from rich.text import Text

        self.is_titled = True
        self.console.print(Text(escape_controls(file), "bold"))

    def _line(self, row: Row) -> Text:
        from rich.text import Text

        from affekt.cli.text_rows import COLORS, bar

        line = Text(f"  {format_tenths(row.start):>9} to {format_tenths(row.end):>9}  ")
        if track := row.get("speaker") or (f"channel {row['channel']}" if "channel" in row else ""):
            line += Text(f"{escape_controls(track)}  ", "bold")
        if row.error:
            return line + Text(row.error["code"].replace("_", " "), "dim red")
        if not row.probabilities:
            return line + Text(row.status.replace("_", " "), "dim")
        ((first, p),) = row.top(1)
        label, style = row.emotion or row.status, COLORS.get(first, "cyan")
        line += Text(f"{label:<{self.width}}  ", f"bold {style}") + Text(bar(p, BAR), style) + Text(f" {p:4.0%}")
        steady = row.get("steady_emotion")
        if steady and steady != row.emotion:
            line += Text(f"  steady: {steady}", "dim")
        return line + Text(f"  {escape_controls(row['text'])}", "italic") if row.get("text") else line

    def _print_summary(self, timeline: Timeline) -> None:
        from rich.text import Text

        if not self.is_titled:
            self._print_title(timeline.file)
        summary = timeline.summary()
        fraction = summary.total.speech / timeline.duration
        self.console.print(
            Text(
                f"  {format_tenths(timeline.duration)}, {summary.total.speech:.1f} s of speech ({fraction:.0%}), "
                f"{timeline.segmentation}, {timeline.model}",
                "dim",
            )
        )
        for name, track in summary.tracks.items():
            self._print_track(name, track)
        for remark in Row(timeline.notes).remarks:
            self.console.print(Text(f"  note: {remark}", "dim"))

    def _print_track(self, name: str, track: TrackSummary) -> None:
        from rich.text import Text

        from affekt.cli.text_rows import COLORS, bar

        if name:
            head = f"  {escape_controls(name)}  "
            self.console.print(Text(head, "bold") + Text(f"{track.speech:.1f} s, {track.talk_ratio:.0%} of all speech"))
        for emotion, fraction in track.emotions.items():
            style = COLORS.get(emotion, "cyan")
            self.console.print(
                Text(f"    {emotion:<{self.width}}  ", style) + Text(bar(fraction, BAR), style) + f" {fraction:4.0%}"
            )
        points = track.turning_points[:MAX_TURNING_POINTS]
        turns = [f"{format_tenths(point.time)} {point.before} to {point.after}" for point in points]
        if len(track.turning_points) > len(points):
            turns.append(f"and {len(track.turning_points) - len(points)} more")
        if turns:
            self.console.print(Text(f"    changes: {', '.join(turns)}", "dim"))


def format_tenths(seconds: float) -> str:
    """Format a time with tenths of seconds: 0:02.5, 1:05.0, 1:02:03.4."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{rest // 10:02}.{rest % 10}"
    return f"{hours}:{minutes:02}:{clock}" if hours else f"{minutes}:{clock}"
