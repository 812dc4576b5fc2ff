"""From a recording to its timeline, block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, TypedDict

from affekt.audio.read import SAMPLE_RATE, AudioSource, Notes, Waveform, blocks, check_length, name_of
from affekt.audio.time_limit import limited_blocks
from affekt.errors import BadConfig
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row
from affekt.interval import Interval
from affekt.timeline.hysteresis import DEFAULT_HYSTERESIS, Hysteresis
from affekt.timeline.timeline import Timeline
from affekt.timeline.track import DEFAULT_SEGMENTATION, FinishedSegments, Segmentation, Track

Channels = Literal["mix", "separate"]


class TimelineSettings(TypedDict, total=False):
    """The settings of `make_timeline`, which explains them."""

    segmentation: Segmentation
    turns: Sequence[Interval]
    channels: Channels
    hysteresis: Hysteresis
    lenient: bool
    timeout: float | None
    max_seconds: float | None
    finished: FinishedSegments | None
    on_segment: Callable[[Row, float], None] | None


def make_timeline(
    recognizer: Recognizer,
    source: AudioSource,
    sample_rate: float | None = None,
    *,
    segmentation: Segmentation = DEFAULT_SEGMENTATION,
    turns: Sequence[Interval] = (),
    channels: Channels = "mix",
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS,
    lenient: bool = False,
    timeout: float | None = None,
    max_seconds: float | None = None,
    finished: FinishedSegments | None = None,
    on_segment: Callable[[Row, float], None] | None = None,
) -> Timeline:
    """Return the timeline of a recording of any length, which is read in bounded memory; only the rows are kept.

    Remarks on the recording, such as missing audio, are fields of the timeline and of the row of its last segment.

    Args:
        recognizer: The recognizer.
        source: As for calling the recognizer.
        sample_rate: As for calling the recognizer.
        segmentation: How the recording is divided: `SpeechSegments`, `FixedWindows` or `GivenIntervals`.
        turns: The turns of a diarization, which assign speakers to segments by the largest overlap.
        channels: "mix" for one track of the mean of the channels (or of the loudest, where they cancel each other),
            "separate" for a track of each channel.
        hysteresis: The settings of the steady emotion.
        lenient: As for calling the recognizer.
        timeout: As for calling the recognizer.
        max_seconds: As for calling the recognizer.
        finished: Segments of an earlier, interrupted run, to which the new ones are added.
        on_segment: Called with the row of each segment, and with the seconds of the recording that have been read.

    Raises:
        BadAudio: The source cannot be read, or is too short.
        BadConfig: `channels` is unknown, or the segmentation contradicts the recognizer's setting `vad`.
        MissingExtra: The source's format needs an extra that is not installed.
    """
    if channels not in ("mix", "separate"):
        raise BadConfig(f"channels {channels!r}: expected mix or separate")
    name, notes, rows, total = name_of(source), Notes(), list[Row](), 0
    tracks: list[Track] = []

    def report(new: Sequence[Row]) -> None:
        rows.extend(new)
        for row in new if on_segment else ():
            on_segment(row, total / SAMPLE_RATE)  # type: ignore[misc]

    settings = {"turns": turns, "hysteresis": hysteresis, "finished": finished}
    separate = channels == "separate"
    limits = {"timeout": timeout, "max_seconds": max_seconds}
    read = _read(source, sample_rate, separate=separate, lenient=lenient, notes=notes, **limits)
    with contextlib.closing(read):
        for block in read:
            parts = list(block.T) if separate else [block]
            numbers = range(1, len(parts) + 1) if separate else [None]
            tracks = tracks or [
                Track(recognizer, name, segmentation, channel=number, **settings)  # type: ignore[arg-type]
                for number in numbers
            ]
            total += len(block)
            for track, part in zip(tracks, parts, strict=True):
                report(track.add(part))
    check_length(total, name)
    last, remarks = [row for track in tracks for row in track.finish()], notes.fields()
    for row in (last or rows)[-1:]:
        row.update(remarks)
    report(last)
    rows.sort(key=lambda row: (row.start, row.end, row.get("channel", 0)))
    return Timeline(
        file=name,
        duration=round(total / SAMPLE_RATE, 4),
        model=recognizer.model,
        emotions=tuple(recognizer.emotions),
        segmentation=str(segmentation),
        segments=tuple(rows),
        notes=remarks,
    )


def _read(
    source: AudioSource,
    sample_rate: float | None,
    *,
    separate: bool,
    lenient: bool,
    timeout: float | None,
    max_seconds: float | None,
    notes: Notes,
) -> Generator[Waveform, None, None]:
    options: dict[str, Any] = {"lenient": lenient, "notes": notes, "separate": separate, "max_seconds": max_seconds}
    if timeout is None:
        return blocks(source, sample_rate, **options)
    return limited_blocks(source, sample_rate, timeout=timeout, with_consumer=True, **options)
