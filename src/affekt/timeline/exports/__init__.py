"""Timelines as files of other programs, one format per file, and the JSON from which a timeline is read again."""

from __future__ import annotations

from pathlib import Path

from affekt.errors import BadOutput
from affekt.registry import Registry
from affekt.timeline.exports.json_file import read_timeline
from affekt.timeline.timeline import Timeline

__all__ = ["FORMATS", "SUFFIXES", "export_timeline", "read_timeline"]

FORMATS = Registry(
    "format of timelines",
    {
        "json": "affekt.timeline.exports.json_file:write_json",
        "csv": "affekt.timeline.exports.tables:write_csv",
        "parquet": "affekt.timeline.exports.tables:write_parquet",
        "webvtt": "affekt.timeline.exports.webvtt:write_webvtt",
        "audacity": "affekt.timeline.exports.labels:write_audacity",
        "rttm": "affekt.timeline.exports.labels:write_rttm",
        "textgrid": "affekt.timeline.exports.textgrid:write_textgrid",
        "audformat": "affekt.timeline.exports.audformat_folder:write_audformat",
    },
)
"""Name of a format -> the function that writes it."""
SUFFIXES = {
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".vtt": "webvtt",
    ".txt": "audacity",
    ".rttm": "rttm",
    ".textgrid": "textgrid",
    "": "audformat",
}
"""Suffix of a path -> its format. A name without a suffix is a folder."""


def export_timeline(timeline: Timeline, path: Path, *, format: str | None = None) -> None:
    """Write a timeline in the format of a path's suffix; an existing file is replaced.

    Args:
        timeline: The timeline.
        path: The file, or for audformat the folder.
        format: A name in FORMATS, which takes precedence over the suffix.

    Raises:
        UnknownName: There is no such format.
        BadOutput: The suffix has no format, the format cannot hold this timeline, or the path cannot be written.
        MissingExtra: Parquet needs pyarrow.
    """
    path = Path(path)
    name = format or format_of(path)
    write = FORMATS[name]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(timeline, path)
    except OSError as error:
        raise BadOutput(f"{path} cannot be written: {error.strerror or error}") from error


def format_of(path: Path) -> str:
    """Return the format that a path's suffix means.

    Raises:
        BadOutput: It means none.
    """
    if (suffix := path.suffix.lower()) not in SUFFIXES:
        raise BadOutput(
            f"{path}: expected a name ending in {', '.join(filter(None, SUFFIXES))}, or the name of a folder for "
            "audformat"
        )
    return SUFFIXES[suffix]
