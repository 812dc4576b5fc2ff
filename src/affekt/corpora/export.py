"""Export a corpus as a table, which the corpus `table` can read: JSON lines, or a segmented audformat table in CSV.

audformat (audeering.github.io/audformat): the columns file, start and end are the index, and times are pandas timedeltas.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from affekt.errors import BadOutput
from affekt.files import atomic_write
from affekt.json_text import to_json
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

COLUMNS = ("id", "emotion", "speaker", "gender", "session", "dialogue", "language", "text", "text_by", "split")
"""Columns of an audformat table after its index; empty ones are omitted."""


def export(utterances: Sequence[Utterance], output: Path, format: str | None = None) -> None:
    """Write utterances to a table.

    Paths of audio below the table's folder are relative to it, others absolute. The corpus's name is not written: a
    table is a corpus named after its file.

    Args:
        utterances: The utterances, one per row.
        output: The file to write.
        format: "jsonl" or "audformat"; by default, the suffix of the output decides (.jsonl or .csv).

    Raises:
        BadOutput: The format is unknown, or the file cannot be written.
    """
    format = format or {".jsonl": "jsonl", ".csv": "audformat"}.get(output.suffix.lower())
    if format is None:
        raise BadOutput(f"{output}: expected a name ending in .jsonl or .csv, or a --format ({', '.join(FORMATS)})")
    if format not in FORMATS:
        raise BadOutput(f"no format {format!r}{did_you_mean(format, FORMATS)} (known: {', '.join(FORMATS)})")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as temporary:
            FORMATS[format](utterances, temporary)
    except OSError as error:
        raise BadOutput(f"{output} cannot be written: {error.strerror or error}") from error


def _json_lines(utterances: Sequence[Utterance], output: Path) -> None:
    with output.open("w", encoding="utf-8", newline="\n") as stream:
        for utterance in utterances:
            stream.write(to_json(_record(utterance, output.parent), ascii_only=False) + "\n")


def _record(utterance: Utterance, folder: Path) -> dict[str, Any]:
    """Return the fields that are not empty."""
    record = asdict(utterance) | {"audio": _path(utterance.audio, folder)}
    del record["corpus"]
    return {name: value for name, value in record.items() if value not in ("", None, {}, 0.0)}


def _audformat(utterances: Sequence[Utterance], output: Path) -> None:
    for utterance in utterances:
        if utterance.audio is None:
            raise BadOutput(f"{utterance.id} has no audio, but an audformat table needs files: export to .jsonl")
    columns = [name for name in COLUMNS if any(getattr(utterance, name) for utterance in utterances)]
    with output.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["file", "start", "end", *columns])
        for utterance in utterances:
            index = [_path(utterance.audio, output.parent), timedelta(utterance.start), timedelta(utterance.end)]
            writer.writerow([*index, *(getattr(utterance, name) for name in columns)])


def timedelta(seconds: float | None) -> str:
    """Format seconds like a pandas timedelta, 0 days 00:00:01.500000; "" for None."""
    if seconds is None:
        return ""
    microseconds = round(seconds * 1e6)
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    seconds, fraction = divmod(rest, 1_000_000)
    return f"{days} days {hours:02}:{minutes:02}:{seconds:02}" + (f".{fraction:06}" if fraction else "")


def _path(audio: Path | None, folder: Path) -> str:
    if audio is None:
        return ""
    absolute, base = audio.parent.resolve() / audio.name, folder.resolve()  # a symbolic link to a file is not resolved
    return (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()


FORMATS: dict[str, Callable[[Sequence[Utterance], Path], None]] = {"jsonl": _json_lines, "audformat": _audformat}
