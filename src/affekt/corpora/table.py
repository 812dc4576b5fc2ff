"""One's own recordings in a table: CSV, TSV, JSON lines or Parquet, a row an utterance.

Columns are the fields of `affekt.utterance.Utterance`; some go by other names too (NAMES), and any may be named:
columns = {audio = "path"} reads the field `audio` from the column `path`, {session = ""} reads no session.
Paths are relative to the table's folder. Times are seconds, or as audformat writes them, `0 days 00:00:01.500000`.
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

from affekt.corpora.base import Corpus, rows_of, text_of
from affekt.corpora.emotion_names import EmotionNames
from affekt.errors import BadCorpus
from affekt.extras import need
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

FIELDS = tuple(field.name for field in fields(Utterance) if field.name != "corpus")  # that is the table's own name
NAMES = {"audio": ("audio", "file", "path"), "emotion": ("emotion", "label"), "text": ("text", "transcription")}
GENDERS = {"f": "female", "female": "female", "m": "male", "male": "male", "": ""}
TIME = re.compile(r"(?:(?P<days>\d+) days? ?)?(?:(?P<hours>\d+):(?P<minutes>\d\d):)?(?P<seconds>\d+(?:\.\d*)?)?")


def read(
    root: Path,
    columns: Mapping[str, str] | None = None,
    emotions: Mapping[str, str] | None = None,
    language: str = "",
) -> list[Utterance]:
    rows = _rows(root)
    if not rows:
        return []
    chosen = _columns(root, rows, columns or {})
    words, seen = EmotionNames(emotions or {}), dict[tuple[object, ...], int]()
    utterances = []
    for number, row in enumerate(rows, start=1):
        values = {field: row.get(column) for field, column in chosen.items()}
        utterance = _Row(root, number, values).utterance(words, language)
        stretch = (utterance.audio, utterance.start, utterance.end)
        if utterance.audio and (first := seen.setdefault(stretch, number)) != number:
            raise BadCorpus(
                f"{root}: rows {first} and {number} are the same stretch of {utterance.audio}: keep one of them"
            )
        utterances.append(utterance)
    words.check_used(root)
    return utterances


def _rows(path: Path) -> Sequence[Mapping[str, Any]]:
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise BadCorpus(f"{path} is no table: expected a name ending in {', '.join(READERS)}")
    return READERS[suffix](path)


def _json_lines(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(text_of(path).split("\n"), start=1):
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
    ".csv": rows_of,
    ".tsv": lambda path: rows_of(path, "\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}


def _columns(path: Path, rows: Sequence[Mapping[str, Any]], given: Mapping[str, str]) -> dict[str, str]:
    """Field -> the table's column, for every field that the table has and the user does not shut out."""
    there = dict.fromkeys(name for row in rows for name in row if name)
    for field, column in given.items():
        if field not in FIELDS:
            near = did_you_mean(field, FIELDS)
            raise BadCorpus(f"columns: there is no field {field!r}{near} (known: {', '.join(FIELDS)})")
        if column and column not in there:
            raise BadCorpus(
                f"{path} has no column {column!r}{did_you_mean(column, there)} (it has: {', '.join(there)})"
            )
    found = {field: next((name for name in NAMES.get(field, (field,)) if name in there), "") for field in FIELDS}
    chosen = {field: column for field, column in {**found, **given}.items() if column}
    if "emotion" not in chosen or not {"audio", "text"} & set(chosen):
        raise BadCorpus(
            f"{path} needs columns for emotion and for audio or text; it has: {', '.join(there)}. "
            'Name them: columns = {audio = "...", emotion = "..."}, or --column audio=... on the command line'
        )
    _check_misspelt(path, set(there) - set(chosen.values()), set(FIELDS) - set(chosen) - set(given))
    return chosen


def _check_misspelt(path: Path, columns: Collection[str], fields: Collection[str]) -> None:
    """Raise `BadCorpus` for a column that is not read, if it has nearly the name of a field that is not there."""
    for column in sorted(columns):
        for field in difflib.get_close_matches(column.lower(), sorted(fields), n=1, cutoff=0.8):
            raise BadCorpus(
                f"{path}: column {column!r} is not read; did you mean {field!r}? Then say columns = "
                f'{{{field} = "{column}"}}; if not, {{{field} = ""}}'
            )


class _Row:
    """One row of the table, by the fields that it has, and where it stands, for messages."""

    def __init__(self, table: Path, number: int, values: Mapping[str, Any]) -> None:
        self.table, self.number, self.values = table, number, values

    def utterance(self, words: EmotionNames, language: str) -> Utterance:
        audio, start, end = self.word("audio"), self.seconds("start") or 0.0, self.seconds("end")
        if end is not None and end <= start:
            raise self.bad(f"start {start} s, end {end} s: expected an end after the start")
        if not (emotion := self.word("emotion")):
            raise self.bad("has no emotion: give one, or leave the row out")
        whole = start == 0.0 and end is None
        return Utterance(
            self.word("id") or (audio or f"row {self.number}") + ("" if whole else f"#{start:g}-{_end(end)}"),
            self.table.stem,
            self.table.parent / audio if audio else None,
            words(emotion),
            speaker=self.word("speaker"),
            gender=self.gender(),
            session=self.word("session"),
            dialogue=self.word("dialogue"),
            language=self.word("language") or language,
            text=self.word("text"),
            text_by=self.word("text_by"),
            start=start,
            end=end,
            split=self.word("split"),
            votes=self.votes(),
        )

    def word(self, field: str) -> str:
        value = self.values.get(field)
        return "" if value is None else str(value).strip()

    def gender(self) -> str:
        if (word := self.word("gender").lower()) not in GENDERS:
            raise self.bad(f"gender {word!r}: expected female, male or nothing")
        return GENDERS[word]

    def seconds(self, field: str) -> float | None:
        value = self.values.get(field)
        if isinstance(value, timedelta):  # a duration in Parquet
            return value.total_seconds()
        if (word := self.word(field)).lower() in ("", "nat", "nan"):
            return None
        if not (match := TIME.fullmatch(word)):
            raise self.bad(f"{field} {word!r}: expected seconds, such as 1.5, or 0 days 00:00:01.5")
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    def votes(self) -> dict[str, float]:
        """The shares of the votes: an object of numbers, which CSV holds as JSON."""
        value = self.values.get("votes") or {}
        try:
            counts = {word: float(count) for word, count in _mapping(value).items() if count}
        except (ValueError, TypeError):
            raise self.bad(f'votes {value!r}: expected {{"happy": 3, "sad": 1}}') from None
        if counts and min(counts.values()) < 0:
            raise self.bad(f"votes {value!r}: expected none below zero")
        total = sum(counts.values())
        return {word: count / total for word, count in counts.items()}

    def bad(self, what: str) -> BadCorpus:
        return BadCorpus(f"{self.table}, row {self.number}: {what}")


def _mapping(value: Any) -> Mapping[str, Any]:
    found = json.loads(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise TypeError
    return found


def _end(end: float | None) -> str:
    return "" if end is None else f"{end:g}"


TABLE = Corpus(
    name="table",
    title="a table of recordings",
    language="",
    licence="",
    source="a CSV, TSV, JSON lines or Parquet file with a column for audio and one for emotion",
    style="",
    reader=read,
    options=("columns", "emotions", "language"),
    is_file=True,
)
