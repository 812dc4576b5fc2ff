"""A timeline as JSON, with its summary; the only format from which a timeline is read again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from affekt.errors import BadTranscript
from affekt.files import atomic_write_text
from affekt.inference.row import SCHEMA, Row, to_json_line
from affekt.timeline.timeline import Timeline


def write_json(timeline: Timeline, path: Path) -> None:
    """Write a timeline as JSON, with one segment per line."""
    head = {
        field.name: getattr(timeline, field.name) for field in dataclasses.fields(timeline) if field.name != "segments"
    }
    summary = dataclasses.asdict(timeline.summary())
    opening = to_json_line({"schema": SCHEMA, **head, "summary": summary}).removesuffix("}\n")
    segments = ",\n".join(to_json_line(segment).rstrip("\n") for segment in timeline.segments)
    atomic_write_text(path, f'{opening},\n"segments": [\n{segments}\n]}}\n')


def read_timeline(path: Path) -> Timeline:
    """Read a timeline from the JSON that `export_timeline` wrote.

    Raises:
        BadTranscript: The file cannot be read or is not a timeline.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadTranscript(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadTranscript(f"{path} is not JSON ({error}): expected a timeline that affekt wrote") from error
    if (
        not isinstance(content, Mapping)
        or content.get("schema") != SCHEMA
        or not isinstance(content.get("segments"), list)
    ):
        raise BadTranscript(
            f'{path}: expected a timeline that affekt wrote, {{"schema": {SCHEMA}, ..., "segments": [...]}}'
        )
    segments = []
    for number, record in enumerate(content["segments"], start=1):
        try:
            segments.append(Row.read(record))
        except (ValueError, AttributeError) as error:
            raise BadTranscript(f"{path}, segment {number}: {error}; write the timeline again") from error
    return Timeline(**_read_head(path, content), segments=tuple(segments))


def _read_head(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a timeline beside its segments."""
    import msgspec

    types = get_type_hints(Timeline)
    head = {}
    for field in dataclasses.fields(Timeline):
        if field.name == "segments" or (field.name not in content and field.default is not dataclasses.MISSING):
            continue
        try:
            head[field.name] = msgspec.convert(content.get(field.name), types[field.name])
        except msgspec.ValidationError as error:
            raise BadTranscript(
                f"{path}: {field.name} is missing or invalid ({error}); write the timeline again"
            ) from error
    return head
