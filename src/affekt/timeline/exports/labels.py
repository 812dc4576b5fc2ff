"""Formats with a line per segment: Audacity's labels, and RTTM."""

from __future__ import annotations

import logging
from pathlib import Path, PureWindowsPath

from affekt.errors import BadOutput
from affekt.files import atomic_write_text
from affekt.inference.row import Row
from affekt.plural import quantity
from affekt.timeline.segment import has_speech, label_of, shown_tracks, text_of
from affekt.timeline.timeline import Timeline

logger = logging.getLogger(__name__)


def write_audacity(timeline: Timeline, path: Path) -> None:
    """Write Audacity's labels: start, end and a label such as "Anna: happy: We won!", separated by tabs.

    https://manual.audacityteam.org/man/importing_and_exporting_labels.html describes the format.
    """
    lines = [
        f"{segment.start:.6f}\t{segment.end:.6f}\t{label}\n"
        for segment in timeline.segments
        if (label := _label(segment))
    ]
    if without := len(timeline.segments) - len(lines):
        logger.info("%s: %s without emotion and text have no label", path, quantity(without, "segment"))
    atomic_write_text(path, "".join(lines))


def _label(segment: Row) -> str:
    """Return the label of a segment, whose text has no tabs and line breaks; "" without emotion and text."""
    channel = segment.get("channel")
    who = " ".join((segment.get("speaker") or (f"channel {channel}" if channel else "")).split())
    contents = [part for part in (label_of(segment), text_of(segment)) if part]
    return ": ".join(filter(None, (who, *contents))) if contents else ""


def write_rttm(timeline: Timeline, path: Path) -> None:
    """Write the turns of speakers (or channels): consecutive segments of speech that touch or overlap are one turn.

    Raises:
        BadOutput: The timeline has neither speakers nor channels.
    """
    tracks = shown_tracks(timeline)
    if set(tracks) == {""}:
        raise BadOutput(
            f"{path}: RTTM states who speaks, but the timeline has no speakers: give them by --rttm or by a "
            "transcript, or "
            "recognize each channel with --channels separate"
        )
    name = _without_spaces(PureWindowsPath(timeline.file).stem)
    turns = [
        (start, end, _without_spaces(track or "unknown"), segments[0].get("channel", 1))
        for track, segments in tracks.items()
        for start, end in _turns([segment for segment in segments if has_speech(segment)])
    ]
    lines = [
        f"SPEAKER {name} {channel} {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA> <NA>\n"
        for start, end, speaker, channel in sorted(turns)
    ]
    atomic_write_text(path, "".join(lines))


def _turns(segments: list[Row]) -> list[tuple[float, float]]:
    turns: list[tuple[float, float]] = []
    for segment in segments:
        if turns and segment.start <= turns[-1][1]:
            turns[-1] = turns[-1][0], max(turns[-1][1], segment.end)
        else:
            turns.append((segment.start, segment.end))
    return turns


def _without_spaces(name: str) -> str:
    """Return a name as a field of RTTM, which is ended by a space."""
    return "_".join(name.split()) or "unknown"
