"""The contents of a picture of a timeline, whatever draws it: lanes with bands of emotions, turning points, the
waveform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, AudioSource, Waveform, blocks
from affekt.timeline.segment import UNKNOWN, label_of, shown_tracks, spans_of
from affekt.timeline.summary import TrackSummary
from affekt.timeline.timeline import Timeline

MAX_BANDS = 2000
"""Number of segments up to which each of them is drawn; more of them are summarized in columns."""
SUMMARIZED = (
    "each column is {width} long, its height the fraction of that time with speech (the highest: {highest:.0%})"
)
"""The explanation of such a picture."""
NUM_COLUMNS = 240
"""Number of columns in which bands are summarized: each shows the fractions of its time that the labels have."""
NUM_PEAKS = 2000
"""Number of columns of the waveform."""
SPEECHLESS = TrackSummary(0.0, 0.0, {}, (), {})
"""The summary of a track that `Timeline.summary` leaves out: text without speech, whose speaker is unknown."""


@dataclass(frozen=True)
class Band:
    """A time with one label."""

    start: float
    end: float
    label: str


@dataclass(frozen=True)
class Lane:
    """The drawing of a track: of a speaker, a channel, or the whole recording."""

    name: str
    bands: tuple[Band, ...]
    summary: TrackSummary
    channel: int | None = None
    """The channel that all of its segments are of, from 1; None if there is no such channel."""

    @property
    def labels(self) -> set[str]:
        """The labels of its bands."""
        return {band.label for band in self.bands}


def labels_of(timeline: Timeline) -> list[str]:
    """Return the labels that occur: emotions in the timeline's order, and "unknown" at the end."""
    used = {label_of(segment) for segment in timeline.segments}
    return [emotion for emotion in timeline.emotions if emotion in used] + [UNKNOWN] * (
        UNKNOWN in used - {*timeline.emotions}
    )


def make_lanes(timeline: Timeline) -> list[Lane]:
    """Return the lanes of a timeline. Segments without speech have no band."""
    lanes, summaries = [], timeline.summary().tracks
    for name, segments in shown_tracks(timeline).items():
        bands = tuple(
            Band(start, end, label) for start, end, segment in spans_of(segments) if (label := label_of(segment))
        )
        channels = {segment.get("channel") for segment in segments}
        lanes.append(Lane(name, bands, summaries.get(name, SPEECHLESS), channels.pop() if len(channels) == 1 else None))
    return lanes


def summarize(
    bands: Sequence[Band], labels: Sequence[str], duration: float, num_columns: int = NUM_COLUMNS
) -> NDArray[np.float64]:
    """Return the fraction of each column's time that has each label (labels, columns)."""
    width = duration / num_columns
    fractions = np.zeros((len(labels), num_columns))
    for band in bands:
        first, last = min(int(band.start / width), num_columns - 1), min(int(band.end / width), num_columns - 1)
        edges = np.clip(np.arange(first, last + 2) * width, band.start, band.end)
        fractions[labels.index(band.label), first : last + 1] += np.diff(edges) / width
    return fractions


def highest_column(lanes: Sequence[Lane], labels: Sequence[str], duration: float) -> float:
    """Return the largest fraction of a column's time that has labels, over all lanes; 1 if none has any."""
    totals = [summarize(lane.bands, labels, duration).sum(axis=0).max() for lane in lanes if lane.bands]
    return float(max(totals, default=1.0))


class Envelope:
    """The largest absolute values of a waveform in equal columns of time, from consecutive blocks.

    Args:
        duration: Seconds of the waveform; samples after them are ignored.
        num_columns: The number of columns.
    """

    def __init__(self, duration: float, num_columns: int = NUM_PEAKS) -> None:
        self._peaks = np.zeros(num_columns, np.float32)
        self._samples_per_column = max(duration * SAMPLE_RATE / num_columns, 1.0)
        self._read = 0

    def add(self, block: Waveform) -> None:
        """Add the next block of samples."""
        columns = ((np.arange(block.size) + self._read) / self._samples_per_column).astype(np.int64)
        self._read += block.size
        columns = columns[columns < self._peaks.size]
        if columns.size:
            starts = np.flatnonzero(np.diff(columns, prepend=-1))
            largest = np.maximum.reduceat(np.abs(block[: columns.size]), starts)
            np.maximum.at(self._peaks, columns[starts], largest)

    def peaks(self) -> NDArray[np.float32]:
        """Return the values (columns,)."""
        return self._peaks


def read_peaks(
    timeline: Timeline,
    lanes: Sequence[Lane],
    source: AudioSource,
    on_block: Callable[[NDArray[np.float32]], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Return the envelope (columns,) of each lane's channel, or of the whole recording; the largest value of all is 1.

    Args:
        timeline: The timeline.
        lanes: Its lanes. If they are of different channels, there is an envelope for each of them; otherwise there is one.
        source: The recording.
        on_block: Called with each block: (samples, channels) with an envelope for each lane, otherwise (samples,).

    Raises:
        BadAudio: The recording cannot be read.
    """
    channels = [lane.channel for lane in lanes if lane.channel]
    separate = len(channels) == len(lanes) > 1 and len(set(channels)) == len(channels)
    envelopes = [Envelope(timeline.duration) for _ in (channels if separate else [None])]
    for block in blocks(source, separate=separate):
        if on_block:
            on_block(block)
        for envelope, channel in zip(envelopes, channels if separate else [1], strict=True):
            part = block[:, min(channel, block.shape[1]) - 1] if separate else block
            envelope.add(part)
    largest = max(float(envelope.peaks().max(initial=0.0)) for envelope in envelopes) or 1.0
    return [envelope.peaks() / np.float32(largest) for envelope in envelopes]
