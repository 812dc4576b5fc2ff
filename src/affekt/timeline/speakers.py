"""Assigning speakers to segments by the turns of a diarization, and the times at which the speaker changes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from affekt.interval import Interval


class Speakers:
    """The turns of the speakers of a recording.

    Args:
        turns: The intervals of a diarization. Those without a speaker are ignored.
    """

    def __init__(self, turns: Sequence[Interval]) -> None:
        self._turns = sorted((turn for turn in turns if turn.speaker), key=lambda turn: turn.start)
        self._longest = max((turn.end - turn.start for turn in self._turns), default=0.0)
        self._starts = [turn.start for turn in self._turns]

    def find(self, start: float, end: float) -> str | None:
        """Return who speaks most between two times in seconds, by the sum of the overlaps; None if there is no turn."""
        overlaps: dict[str, float] = {}
        first, last = bisect_left(self._starts, start - self._longest), bisect_left(self._starts, end)
        for turn in self._turns[first:last]:
            overlap = min(end, turn.end) - max(start, turn.start)
            if overlap > 0 and turn.speaker:
                overlaps[turn.speaker] = overlaps.get(turn.speaker, 0.0) + overlap
        return max(overlaps, key=lambda speaker: overlaps[speaker]) if overlaps else None


def find_changes(turns: Sequence[Interval]) -> tuple[float, ...]:
    """Return the times in seconds at which the speaker changes; where turns overlap, the one that began last counts."""
    turns = sorted((turn for turn in turns if turn.speaker), key=lambda turn: turn.start)
    times = sorted({time for turn in turns for time in (turn.start, turn.end)})
    active, waiting = list[Interval](), list(reversed(turns))
    changes, speaker = list[float](), None
    for time in times:
        active = [turn for turn in active if turn.end > time]
        while waiting and waiting[-1].start <= time:
            active.append(waiting.pop())
        current = active[-1].speaker if active else speaker  # a pause belongs to the speaker before it
        if speaker is not None and current != speaker:
            changes.append(time)
        speaker = current
    return tuple(changes)
