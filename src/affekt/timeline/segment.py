"""Segments of a timeline: the labels and texts that are shown."""

from __future__ import annotations

from collections.abc import Sequence

from affekt.inference.row import Row
from affekt.timeline.timeline import Timeline

UNKNOWN = "unknown"
"""The label of speech whose emotion is below the threshold."""


def has_speech(segment: Row) -> bool:
    """Return whether speech was recognized in a segment."""
    return segment.probabilities is not None


def label_of(segment: Row) -> str | None:
    """Return the emotion to show for a segment: the steady one if there is one, "unknown" if it is; None without
    speech."""
    if not has_speech(segment):
        return None
    return segment.get("steady_emotion") or segment.emotion or UNKNOWN


def text_of(segment: Row) -> str:
    """Return a segment's text on one line; "" without one."""
    return " ".join((segment.get("text") or "").split())


def shown_tracks(timeline: Timeline) -> dict[str, tuple[Row, ...]]:
    """Return the tracks of a timeline, without that of pauses: segments with neither speaker, emotion nor text."""
    tracks = timeline.tracks()
    if len(tracks) > 1 and not any(label_of(segment) or text_of(segment) for segment in tracks.get("", ())):
        tracks.pop("", None)
    return tracks


def spans_of(segments: Sequence[Row]) -> list[tuple[float, float, Row]]:
    """Return start, end and segment of a track without overlaps: of overlapping segments, each lasts to the start of
    the next."""
    spans: list[tuple[float, float, Row]] = []
    position = 0.0
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        start = max(segment.start, position)
        end = min(segment.end, following.start) if following else segment.end
        if end > start:  # otherwise another segment starts at the same time
            spans.append((start, end, segment))
            position = end
    return spans
