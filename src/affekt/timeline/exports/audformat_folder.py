"""A timeline as a database of audformat (https://audeering.github.io/audformat): a folder with db.yaml and a table.

The header is written here, since the library would bring pandas. A text in double quotes as in JSON is valid YAML.
"""

from __future__ import annotations

import csv
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from affekt.errors import BadOutput
from affekt.files import atomic_folder
from affekt.inference.row import UNSAFE, Row
from affekt.timeline.segment import text_of
from affekt.timeline.timeline import Timeline

HEADER, TABLE = "db.yaml", "db.segments.csv"


def write_audformat(timeline: Timeline, path: Path) -> None:
    """Write the folder of a database with the table "segments"; such a folder is replaced.

    Raises:
        BadOutput: The path is a file, or a folder with other files.
    """
    if path.exists() and not (path.is_dir() and {entry.name for entry in path.iterdir()} <= {HEADER, TABLE}):
        raise BadOutput(
            f"{path} exists and is not an exported timeline: choose a new folder so that nothing is overwritten"
        )
    columns = _columns(timeline)
    with atomic_folder(path, replace=True) as folder:
        (folder / HEADER).write_text(_header(timeline, path.name, columns), encoding="utf-8")
        with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "start", "end", *columns])
            for segment in timeline.segments:
                times = (_timedelta(segment.start), _timedelta(segment.end))
                writer.writerow([_file(segment.file), *times, *(_cell(segment, column) for column in columns)])


def _columns(timeline: Timeline) -> dict[str, str]:
    """Return the columns and their schemes; the probability of an emotion has the column "probability.EMOTION"."""
    columns = {"emotion": "emotion", "steady_emotion": "emotion", "status": "status"}
    columns |= {name: name for name in ("speaker", "channel", "text") if any(name in row for row in timeline.segments)}
    return columns | {f"probability.{emotion}": "probability" for emotion in timeline.emotions}


def _header(timeline: Timeline, name: str, columns: dict[str, str]) -> str:
    schemes: dict[str, dict[str, Any]] = {
        "emotion": {"dtype": "str", "labels": list(timeline.emotions)},
        "status": {"dtype": "str", "labels": ["ok", "unknown", "silence", "no_speech", "error"]},
        "speaker": {"dtype": "str"},
        "channel": {"dtype": "int", "minimum": 1},
        "text": {"dtype": "str"},
        "probability": {"dtype": "float", "minimum": 0, "maximum": 1},
    }
    used = sorted(set(columns.values()))
    lines = [
        f"name: {_quote(name)}",
        f"description: {_quote(f'Emotions of {timeline.file}: {timeline.segmentation}')}",
        f"source: {_quote(timeline.file)}",
        "usage: other",
        "languages: []",
        "media:\n  recording: {type: audio}",
        f"raters:\n  model: {{type: machine, description: {_quote(timeline.model)}}}",
        "schemes:",
        *(f"  {scheme}: {_mapping(schemes[scheme])}" for scheme in used),
        "tables:\n  segments:\n    type: segmented\n    media_id: recording\n    columns:",
    ]
    for column, scheme in columns.items():
        rater = "" if column in ("speaker", "channel", "text") else ", rater_id: model"
        lines.append(f"      {_quote(column)}: {{scheme_id: {scheme}{rater}}}")
    return "\n".join(lines) + "\n"


def _mapping(entries: dict[str, Any]) -> str:
    """Return a mapping on one line."""
    values = (
        f"[{', '.join(map(_quote, value))}]" if isinstance(value, list) else str(value) for value in entries.values()
    )
    return f"{{{', '.join(f'{key}: {value}' for key, value in zip(entries, values, strict=True))}}}"


def _quote(text: str) -> str:
    """Return a text in double quotes, in which YAML's unprintable characters are escaped."""
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False, allow_nan=False))


def _cell(segment: Row, column: str) -> Any:
    if column.startswith("probability."):
        return (segment.probabilities or {}).get(column.removeprefix("probability."), "")
    value = text_of(segment) if column == "text" else segment.get(column)
    return "" if value is None else value


def _timedelta(seconds: float) -> str:
    """Return a time as audformat writes it: 0 days 00:00:01.500000."""
    time = timedelta(seconds=seconds)
    hours, rest = divmod(time.seconds, 3600)
    return f"{time.days} days {hours:02}:{rest // 60:02}:{rest % 60:02}.{time.microseconds:06}"


def _file(name: str) -> str:
    """Return a path as audformat accepts it: with slashes, and without "./" at its beginning."""
    return name.replace("\\", "/").removeprefix("./")
