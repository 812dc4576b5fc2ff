"""Hysteresis: the steady emotion of a track, which a single doubtful segment does not change.

It is causal: a segment's steady emotion depends only on the segments before it, so that a stream gives the same. The defaults
were chosen by `benchmarks/hysteresis.py` (docs/timeline.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from affekt.errors import BadConfig
from affekt.inference.row import Row


@dataclass(frozen=True)
class Hysteresis:
    """The settings of the steady emotion."""

    seconds: float = 1.0
    """Time constant, in seconds of speech, of the exponential average of the probabilities; 0 for no average."""
    margin: float = 0.2
    """The steady emotion changes when the average probability of another emotion is larger by more than this."""
    reset: float = 30.0
    """After a gap of this many seconds without speech, the average begins anew."""

    def __post_init__(self) -> None:
        if not (self.seconds >= 0 and 0 <= self.margin < 1 and self.reset > 0):
            raise BadConfig(
                f"hysteresis: seconds = {self.seconds}, margin = {self.margin}, reset = {self.reset}: expected seconds of 0 "
                "or more, a margin from 0 to 1, and a reset above 0"
            )


DEFAULT_HYSTERESIS = Hysteresis()


class Coverage:
    """How much of each segment of a track is new, where segments overlap; segments come in order of their ends."""

    def __init__(self) -> None:
        self._end = 0.0

    def add(self, segment: Row) -> float:
        """Return the fraction of a segment that no segment before it covers."""
        new = segment.end - max(segment.start, min(self._end, segment.end))
        self._end = max(self._end, segment.end)
        return new / segment.duration if segment.duration else 0.0


class SteadyEmotion:
    """The steady emotion of one track, whose segments are added in order of their ends."""

    def __init__(self, settings: Hysteresis = DEFAULT_HYSTERESIS) -> None:
        self._settings, self._coverage = settings, Coverage()
        self._average: dict[str, float] = {}
        self._emotion: str | None = None
        self._end = 0.0

    def add(self, segment: Row) -> str | None:
        """Add a segment, and return the steady emotion; None for a segment without an emotion."""
        probabilities = segment.probabilities
        fraction = self._coverage.add(segment)
        if not probabilities:
            return None
        if segment.start - self._end >= self._settings.reset:
            self._average, self._emotion = {}, None
        self._end = segment.end
        self._update(probabilities, fraction * segment.get("speech", segment.duration))
        best = max(self._average, key=lambda emotion: self._average[emotion])
        if self._emotion is None or self._average[best] > self._average[self._emotion] + self._settings.margin:
            self._emotion = best
        return self._emotion if segment.status == "ok" else None

    def _update(self, probabilities: Mapping[str, float], seconds: float) -> None:
        """Add the probabilities of these seconds of speech to the average."""
        constant = self._settings.seconds
        keep = math.exp(-seconds / constant) if constant and self._average else 0.0
        self._average = {
            emotion: keep * self._average.get(emotion, 0.0) + (1 - keep) * p for emotion, p in probabilities.items()
        }
