"""A table with a row per interval: columns for start and end in seconds, and, if known, for speaker and text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from affekt.errors import BadTranscript
from affekt.tabular.columns import NAMES, find_column
from affekt.tabular.missing import is_missing_speaker, is_missing_transcript
from affekt.tabular.record import Record
from affekt.tabular.seconds import parse_seconds
from affekt.tabular.table import open_table
from affekt.timeline.transcripts.entries import Entry, choose_recording, clean

TIMES = {
    "start": (
        "start",
        "start_time",
        "start_seconds",
        "start_s",
        "begin",
        "begin_time",
        "onset",
        "tmin",
        "xmin",
        "from",
        "offset",
    ),
    "end": ("end", "end_time", "end_seconds", "end_s", "stop", "tmax", "xmax", "to"),
    "duration": ("duration", "dur", "duration_seconds"),
}
"""Field -> names of its column, in order of preference. The duration is used if there is no end.
The manifests of NeMo have "offset" and "duration"."""


def read_table(path: Path, *, file_id: str | None = None) -> Iterator[Entry]:
    """Yield the rows of a recording.

    Raises:
        BadTranscript: A column or a time is missing, or there are several recordings and none of them is this one.
        BadCorpus: The file is not a table.
    """
    table = open_table(path)
    columns = {
        field: find_column(names, table.columns)
        for field, names in {**TIMES, **{field: NAMES[field] for field in ("speaker", "text", "audio")}}.items()
    }
    if not columns["start"] or not (columns["end"] or columns["duration"]):
        raise BadTranscript(
            f"{path} has the columns {', '.join(map(repr, table.columns[:10]))}: expected 'start' and 'end', in "
            "seconds, and if "
            "known 'speaker' and 'text'"
        )
    records = table.records([column for column in columns.values() if column])
    audio = columns["audio"]
    names = [record.text(audio) if audio else "" for record in records]
    chosen = choose_recording(path, filter(None, names), file_id)
    for record, name in zip(records, names, strict=True):
        if name in ("", chosen):
            yield _entry(record, columns)


def _entry(record: Record, columns: dict[str, str | None]) -> Entry:
    start = _seconds(record, columns["start"], "start")
    if columns["end"]:
        end = _seconds(record, columns["end"], "end")
    else:
        end = start + _seconds(record, columns["duration"], "duration")
    speaker = record.text(columns["speaker"]) if columns["speaker"] else ""
    text = record.as_written(columns["text"]) if columns["text"] else ""
    return Entry(
        record.position,
        start,
        end,
        None if is_missing_speaker(speaker) else clean(speaker),
        None if is_missing_transcript(text) else clean(text),
    )


def _seconds(record: Record, column: str | None, field: str) -> float:
    seconds = parse_seconds(record, column or "", field)
    if seconds is None:
        raise record.error(f"{field} is missing: expected seconds, such as 1.5")
    return seconds
