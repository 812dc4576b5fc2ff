"""The timeline of a recording: the rows of its segments."""

from __future__ import annotations

from dataclasses import dataclass

from affekt.inference.row import Row


@dataclass(frozen=True)
class Timeline:
    """The emotions of a recording over time.

    A segment is a row (`affekt.inference.row`) whose times are seconds from the start of the recording, and which may also
    have the fields "speaker", "channel" (from 1), "text", "words" (dictionaries with "start", "end" and "text"), and, if its
    status is "ok", "steady_emotion": its emotion after hysteresis, which a single doubtful segment does not change.
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

    def tracks(self) -> dict[str, tuple[Row, ...]]:
        """Return the segments of each speaker; without speakers, of each channel ("channel 1"); else of all ("")."""
        tracks: dict[str, list[Row]] = {}
        for segment in self.segments:
            channel = segment.get("channel")
            tracks.setdefault(segment.get("speaker") or (f"channel {channel}" if channel else ""), []).append(segment)
        return {name: tuple(tracks[name]) for name in sorted(tracks)}
