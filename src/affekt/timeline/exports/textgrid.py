"""A timeline as a TextGrid of Praat: for each speaker (or channel) a tier of emotions, and one of texts if there are
any."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from affekt.files import atomic_write_text
from affekt.inference.row import Row
from affekt.plural import quantity
from affekt.timeline.segment import label_of, shown_tracks, spans_of, text_of
from affekt.timeline.timeline import Timeline

logger = logging.getLogger(__name__)


def write_textgrid(timeline: Timeline, path: Path) -> None:
    """Write a long TextGrid in UTF-8, with tiers such as "Anna - emotion" and "Anna - text".

    Intervals of a tier cannot overlap: of overlapping segments, each lasts to the start of the next.
    """
    end = max([timeline.duration, *(segment.end for segment in timeline.segments)])
    tiers = list[str]()
    for track, segments in shown_tracks(timeline).items():
        prefix = f"{' '.join(track.split())} - " if track else ""
        tiers.append(_tier(f"{prefix}emotion", segments, lambda segment: label_of(segment) or "", end))
        if any(text_of(segment) for segment in segments):
            tiers.append(_tier(f"{prefix}text", segments, text_of, end))
        if cut := sum(first.end > second.start for first, second in itertools.pairwise(segments)):
            logger.info("%s: %s last to the start of the next", path, quantity(cut, "overlapping segment"))
    items = "".join(f"    item [{number}]:\n{tier}" for number, tier in enumerate(tiers, start=1))
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
    flag = f"tiers? <exists>\nsize = {len(tiers)}\nitem []:\n" if tiers else "tiers? <absent>\n"
    atomic_write_text(path, f"{head}xmin = 0\nxmax = {_number(end)}\n{flag}{items}")


def _tier(name: str, segments: Sequence[Row], label: Callable[[Row], str], end: float) -> str:
    intervals = list(_intervals(segments, label, end))
    lines = [
        f'        class = "IntervalTier"\n        name = {_quote(name)}\n        xmin = 0\n        xmax = '
        f"{_number(end)}",
        f"        intervals: size = {len(intervals)}",
    ]
    for number, (start, stop, text) in enumerate(intervals, start=1):
        lines.append(f"        intervals [{number}]:")
        lines.append(
            f"            xmin = {_number(start)}\n            xmax = {_number(stop)}\n            text = {_quote(text)}"
        )
    return "\n".join(lines) + "\n"


def _intervals(segments: Sequence[Row], label: Callable[[Row], str], end: float) -> Iterator[tuple[float, float, str]]:
    """Yield intervals from 0 to the end, with empty ones between segments."""
    position = 0.0
    for start, stop, segment in spans_of(segments):
        if start > position:
            yield position, start, ""
        yield start, stop, label(segment)
        position = stop
    if position < end:
        yield position, end, ""


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _quote(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
