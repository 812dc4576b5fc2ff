"""The user's own recordings in a table (CSV, TSV, JSON lines or Parquet) with a row for each utterance.

Columns are named like the fields of `affekt.utterance.Utterance`, or like their synonyms (NAMES). Other columns can be
mapped: `columns = {audio = "clip"}` reads the field `audio` from the column `clip`, and `{session = ""}` ignores the session.
Paths are relative to the table's folder. Times are seconds, or have audformat's notation, `0 days 00:00:01.500000`.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from affekt.corpora.base import Corpus, read_rows, read_text
from affekt.corpora.emotion_names import EmotionNames
from affekt.errors import BadCorpus
from affekt.extras import need
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

FIELDS = tuple(field.name for field in fields(Utterance) if field.name != "corpus")  # the corpus is the table's name
NAMES = {"audio": ("audio", "file", "path"), "emotion": ("emotion", "label"), "text": ("text", "transcription")}
GENDERS = {"f": "female", "female": "female", "m": "male", "male": "male", "": ""}
TIME = re.compile(r"(?:(?P<days>\d+) days? ?)?(?:(?P<hours>\d+):(?P<minutes>\d\d):)?(?P<seconds>\d+(?:\.\d*)?)?")


def read(
    root: Path,
    columns: Mapping[str, str] | None = None,
    emotions: Mapping[str, str] | None = None,
    language: str = "",
) -> list[Utterance]:
    """Read a table.

    Args:
        root: The table's file.
        columns: Field -> column.
        emotions: Custom label -> emotion.
        language: The language of rows without one, ISO 639-1.
    """
    rows = _rows(root)
    if not rows:
        return []
    selected = _columns(root, rows, columns or {})
    emotion_names, seen = EmotionNames(emotions or {}), dict[tuple[object, ...], int]()
    utterances = []
    for number, row in enumerate(rows, start=1):
        values = {field: row.get(column) for field, column in selected.items()}
        utterance = _Row(root, number, values).utterance(emotion_names, language)
        segment = (utterance.audio, utterance.start, utterance.end)
        if utterance.audio and (first := seen.setdefault(segment, number)) != number:
            raise BadCorpus(
                f"{root}: rows {first} and {number} are the same segment of {utterance.audio}: keep one of them"
            )
        utterances.append(utterance)
    emotion_names.check_used(root)
    return utterances


def _rows(path: Path) -> Sequence[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise BadCorpus(f"{path} is not a table: expected a name ending in {', '.join(READERS)}")
    return READERS[suffix](path)


def _json_lines(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadCorpus(f"{path}, line {number}, is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise BadCorpus(f'{path}, line {number}: expected an object, {{"audio": ..., "emotion": ...}}')
            rows.append(row)
    return rows


def _parquet(path: Path) -> list[Mapping[str, Any]]:
    parquet = need("pyarrow.parquet", extra="parquet", purpose=f"reading {path}")
    arrow = need("pyarrow", extra="parquet", purpose=f"reading {path}")
    try:
        rows: list[Mapping[str, Any]] = parquet.read_table(path).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise BadCorpus(f"{path} is not Parquet: {error}") from error
    return rows


READERS: dict[str, Callable[[Path], Sequence[Mapping[str, Any]]]] = {
    ".csv": read_rows,
    ".tsv": lambda path: read_rows(path, "\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _columns(path: Path, rows: Sequence[Mapping[str, Any]], mapping: Mapping[str, str]) -> dict[str, str]:
    """Return field -> column, for every field that the table has and that the user does not ignore."""
    present = dict.fromkeys(name for row in rows for name in row if name)
    for field, column in mapping.items():
        if field not in FIELDS:
            near = did_you_mean(field, FIELDS)
            raise BadCorpus(f"columns: no field {field!r}{near} (known: {', '.join(FIELDS)})")
        if column and column not in present:
            raise BadCorpus(
                f"{path} has no column {column!r}{did_you_mean(column, present)} (it has: {', '.join(present)})"
            )
    default = {field: next((name for name in NAMES.get(field, (field,)) if name in present), "") for field in FIELDS}
    selected = {field: column for field, column in {**default, **mapping}.items() if column}
    if "emotion" not in selected or not {"audio", "text"} & set(selected):
        raise BadCorpus(
            f"{path} needs columns for emotion and for audio or text; it has: {', '.join(present)}. "
            'Map them: columns = {audio = "...", emotion = "..."}, or --column audio=... on the command line'
        )
    _check_misspelled(path, set(present) - set(selected.values()), set(FIELDS) - set(selected) - set(mapping))
    return selected


def _check_misspelled(path: Path, columns: Collection[str], fields: Collection[str]) -> None:
    """Raise `BadCorpus` if an unused column is named almost like a missing field."""
    for column in sorted(columns):
        for field in difflib.get_close_matches(column.lower(), sorted(fields), n=1, cutoff=0.8):
            raise BadCorpus(
                f"{path}: column {column!r} is not read; did you mean {field!r}? If so, set columns = "
                f'{{{field} = "{column}"}}; if not, set columns = {{{field} = ""}}'
            )


class _Row:
    """One row of a table: its values by field, and its position for error messages."""

    def __init__(self, table: Path, number: int, values: Mapping[str, Any]) -> None:
        self.table, self.number, self.values = table, number, values

    def utterance(self, emotion_names: EmotionNames, language: str) -> Utterance:
        audio, start, end = self.string("audio"), self.seconds("start") or 0.0, self.seconds("end")
        if end is not None and end <= start:
            raise self.error(f"start {start} s, end {end} s: expected an end after the start")
        if not (emotion := self.string("emotion")):
            raise self.error("has no emotion: add one, or remove the row")
        whole = start == 0.0 and end is None
        return Utterance(
            self.string("id") or (audio or f"row {self.number}") + ("" if whole else f"#{start:g}-{_end(end)}"),
            self.table.stem,
            self.table.parent / audio if audio else None,
            emotion_names(emotion),
            speaker=self.string("speaker"),
            gender=self.gender(),
            session=self.string("session"),
            dialogue=self.string("dialogue"),
            language=self.string("language") or language,
            text=self.string("text"),
            text_by=self.string("text_by"),
            start=start,
            end=end,
            split=self.string("split"),
            votes=self.votes(),
        )

    def string(self, field: str) -> str:
        value = self.values.get(field)
        return "" if value is None else str(value).strip()

    def gender(self) -> str:
        if (gender := self.string("gender").lower()) not in GENDERS:
            raise self.error(f"gender {gender!r}: expected female, male or nothing")
        return GENDERS[gender]

    def seconds(self, field: str) -> float | None:
        value = self.values.get(field)
        if isinstance(value, timedelta):  # a duration in Parquet
            return value.total_seconds()
        if (text := self.string(field)).lower() in ("", "nat", "nan"):
            return None
        if not (match := TIME.fullmatch(text)):
            raise self.error(f"{field} {text!r}: expected seconds, such as 1.5, or 0 days 00:00:01.5")
        days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    def votes(self) -> dict[str, float]:
        """Return the fraction of the votes for each label, from an object of numbers (in CSV, as JSON)."""
        value = self.values.get("votes") or {}
        try:
            counts = {label: float(count) for label, count in _mapping(value).items() if count}
        except (ValueError, TypeError):
            raise self.error(f'votes {value!r}: expected {{"happy": 3, "sad": 1}}') from None
        if counts and min(counts.values()) < 0:
            raise self.error(f"votes {value!r}: expected no negative numbers")
        total = sum(counts.values())
        return {label: count / total for label, count in counts.items()}

    def error(self, problem: str) -> BadCorpus:
        return BadCorpus(f"{self.table}, row {self.number}: {problem}")


def _mapping(value: Any) -> Mapping[str, Any]:
    mapping = json.loads(value) if isinstance(value, str) else value
    if not isinstance(mapping, Mapping):
        raise TypeError
    return mapping


def _end(end: float | None) -> str:
    return "" if end is None else f"{end:g}"


TABLE = Corpus(
    name="table",
    title="a table of recordings",
    language="",
    license="",
    source="a CSV, TSV, JSON lines or Parquet file with a column for audio and one for emotion",
    style="",
    reader=read,
    options=("columns", "emotions", "language"),
    is_file=True,
)
