"""The live view of `affekt listen`: the loudness, the current emotion, and the last minute as a band."""

from __future__ import annotations

import math
from collections import deque
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from affekt.cli.text_rows import COLORS
from affekt.timeline.stream import Event

BAND = 60
"""Seconds in the band."""
METER = 30
"""Cells of the meter of loudness."""
QUIETEST = -60.0
"""Loudness at the left end of the meter, in dB relative to full scale."""
NO_EMOTION = "·"
"""Cell of a second without an emotion."""


class LiveView:
    """Shows what a stream gives, in a few lines that are drawn again and again."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)
        self._loudness = QUIETEST
        self._seconds = 0.0
        self._spans: deque[tuple[float, float, str]] = deque()
        """Start, end and emotion of the segments in the band."""
        self._provisional: Event | None = None
        self._last: Event | None = None
        self.lost = 0.0
        """Seconds of audio that are known to be missing."""

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, samples: NDArray[np.floating], seconds: float, events: list[Event]) -> None:
        """Draw the view after a chunk.

        Args:
            samples: The samples of the chunk, full scale is 1.
            seconds: The duration of the stream so far.
            events: What became known from the chunk.
        """
        if samples.size:
            power = float(np.mean(np.square(samples, dtype=np.float64)))
            self._loudness = max(QUIETEST, 10 * math.log10(max(power, 1e-12)))
        self._seconds = seconds
        for event in events:
            self._add(event)
        while self._spans and self._spans[0][1] < seconds - BAND:
            self._spans.popleft()
        self._live.update(self.render(), refresh=True)

    def _add(self, event: Event) -> None:
        if event.kind == "gap":
            self.lost += max(event.seconds_lost or 0.0, 0.0)
        elif event.kind == "provisional":
            self._provisional = event
        elif event.row is not None:
            self._provisional = None
            if emotion := event.row.get("steady_emotion"):
                self._spans.append((event.start, event.end, emotion))
                self._last = event

    def render(self) -> Group:
        """Return the lines of the view."""
        filled = round(METER * (self._loudness - QUIETEST) / -QUIETEST)
        meter = Text.assemble(
            f"{int(self._seconds) // 60:3d}:{int(self._seconds) % 60:02d}  ",
            ("█" * filled, "green"),
            ("─" * (METER - filled), "dim"),
            f" {self._loudness:4.0f} dB",
            (f"   {self.lost:.1f} s of audio lost", "red") if self.lost else "",
        )
        return Group(meter, self._current(), self._band())

    def _current(self) -> Text:
        """Return the line of the segment that has begun, or of the last one."""
        event = self._provisional or self._last
        if event is None or event.row is None:
            return Text("        waiting for speech", style="dim")
        line = Text("        ")
        for emotion, probability in event.row.top(3):
            line.append(f"{emotion} {probability:4.0%}   ", style=COLORS.get(emotion, "default"))
        if self._provisional is None:
            line.stylize("dim")
        return line

    def _band(self) -> Text:
        """Return the last minute, one cell for each second."""
        first = max(0, int(self._seconds) - BAND)
        band = Text("        ")
        for second in range(first, first + BAND):
            emotion = next((name for start, end, name in self._spans if start < second + 1 and end > second), None)
            if second >= self._seconds:
                band.append(" ")
            elif emotion is None:
                band.append(NO_EMOTION, style="dim")
            else:
                band.append("█", style=COLORS.get(emotion, "default"))
        return band


def loudness_samples(chunk: Any) -> NDArray[np.floating]:
    """Return the samples of a chunk, full scale is 1, of bytes with 16-bit samples or of floats."""
    if isinstance(chunk, bytes):
        return np.frombuffer(chunk[: len(chunk) // 2 * 2], "<i2").astype(np.float32) / 32768
    return np.asarray(chunk.samples)
