"""Files of segments that an interrupted run can resume: the rows of the timelines of any number of recordings.

Rows are appended as soon as they are recognized (`affekt.inference.results_file`). The next run reads the recordings again,
which takes little time, but recognizes only segments that are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from affekt.inference.results_file import RowsFile
from affekt.inference.row import NOTES, SEGMENT, UNFAMILIAR, Row

REMADE = {*SEGMENT, *NOTES} - {UNFAMILIAR}
"""Fields that are made again for a segment that is recognized already."""


class SegmentsFile(RowsFile):
    """A file with one row for each segment, by recording and start."""

    def _index(self, stored: list[Row]) -> bool:
        self._segments: dict[str, list[Row]] = {}
        for row in stored:
            self._segments.setdefault(row.file, []).append(row)
        return True

    def _rows(self) -> list[Row]:
        return [row for segments in self._segments.values() for row in segments]

    def begin(self, file: str, source: dict[str, float] | None) -> RecordingSegments:
        """Return the finished segments of a recording, without those of another version of its file.

        Args:
            file: The recording's name.
            source: The size and time of change of its file now; None if they are unknown: then nothing is reused.
        """
        stored = [row for row in self._segments.get(file, ()) if source and row.source == source and not row.error]
        return RecordingSegments(self, {(row.start, row.end, row.get("channel")): row for row in stored}, source)

    def append(self, row: Row) -> None:
        """Write the row of a segment."""
        self._write(row)
        self._segments.setdefault(row.file, []).append(row)

    def finish(self, file: str, rows: Sequence[Row]) -> None:
        """Replace the rows of a recording by those of its complete timeline."""
        self._segments[file] = list(rows)

    def fail(self, row: Row) -> None:
        """Add the row of a recording that cannot be read to its end; the segments before the error are kept."""
        kept = [segment for segment in self._segments.get(row.file, ()) if segment.duration]
        self._segments[row.file] = [*kept, row]


@dataclass
class RecordingSegments:
    """The finished segments of one recording (`affekt.timeline.track.FinishedSegments`)."""

    _file: SegmentsFile
    _stored: dict[tuple[float, float, int | None], Row]
    _source: dict[str, float] | None
    resumed: int = 0
    """Number of segments that an earlier run recognized."""

    def find(self, start: float, end: float, channel: int | None) -> Row | None:
        """Return the row of a segment without what follows from other segments; None if it has not been recognized."""
        row = self._stored.get((start, end, channel))
        return None if row is None else Row({name: value for name, value in row.items() if name not in REMADE})

    def add(self, row: Row) -> None:
        """Add the row of a segment."""
        row.source = self._source
        if (row.start, row.end, row.get("channel")) in self._stored:
            self.resumed += 1
            row.resumed = True
        else:
            self._file.append(row)
