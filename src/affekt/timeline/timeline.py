"""The timeline of a recording: the rows of its segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from affekt.inference.row import Row

if TYPE_CHECKING:
    from affekt.timeline.summary import Summary


@dataclass(frozen=True)
class Timeline:
    """The emotions of a recording over time.

    A segment is a row (`affekt.inference.row`) whose times are seconds from the start of the recording. It has the field
    "speech", its seconds of speech, and may have "speaker", "channel" (from 1), "text", "words" (dictionaries with "start",
    "end" and "text"), and, if its status is "ok", "steady_emotion": its emotion after hysteresis
    (`affekt.timeline.hysteresis`), which a single doubtful segment does not change.
    """

    file: str
    """As in rows: the path as given; "<bytes>", "<stream>" or "<array>" for other sources."""
    duration: float
    """Seconds."""
    model: str
    """The bundle's name, "@", and 8 hexadecimal digits of its hash."""
    emotions: tuple[str, ...]
    segmentation: str
    """How the recording was divided, in words, such as "speech segments of 1 to 6 s"."""
    segments: tuple[Row, ...]
    """The rows of the segments, by start. Segments of different speakers or channels may overlap."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Remarks on the recording, as the fields `NOTES` of rows: missing audio, a channel used instead of the mean."""

    def tracks(self) -> dict[str, tuple[Row, ...]]:
        """Return the segments of each speaker; without speakers, of each channel ("channel 1"); else of all ("")."""
        tracks: dict[str, list[Row]] = {}
        for segment in self.segments:
            channel = segment.get("channel")
            tracks.setdefault(segment.get("speaker") or (f"channel {channel}" if channel else ""), []).append(segment)
        return {name: tuple(tracks[name]) for name in sorted(tracks)}

    def summary(self) -> Summary:
        """Return how much each speaker or channel speaks, with which emotions, and where they change."""
        from affekt.timeline.summary import summarize

        return summarize(self.duration, self.tracks())
