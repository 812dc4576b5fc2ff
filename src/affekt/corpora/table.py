"""The user's own recordings in a table (CSV, TSV, JSON lines or Parquet) with a row for each utterance.

Columns are named like the fields of `affekt.utterance.Utterance`, or like their synonyms (`affekt.tabular.columns`). Other
columns can be mapped: `columns = {audio = "clip"}` reads the field `audio` from the column `clip`, and `{session = ""}`
ignores the session. Paths are relative to the table's folder. Times are seconds, or have audformat's notation,
`0 days 00:00:01.500000`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from affekt.audio.read import MEDIA_SUFFIXES, SUFFIXES
from affekt.corpora.annotators import Annotation, check_rule, combine
from affekt.corpora.audio_paths import find_audio
from affekt.corpora.base import Corpus
from affekt.corpora.emotion_names import EmotionNames
from affekt.corpora.genders import parse_gender
from affekt.errors import BadCorpus
from affekt.registry import did_you_mean
from affekt.storage import is_url
from affekt.tabular.columns import NAMES, find_column, plain
from affekt.tabular.missing import is_missing, is_missing_label, is_missing_speaker, is_missing_transcript
from affekt.tabular.record import Record
from affekt.tabular.seconds import parse_seconds
from affekt.tabular.table import Table, open_table
from affekt.utterance import Utterance

FIELDS = tuple(field.name for field in fields(Utterance) if field.name != "corpus")  # the corpus is the table's name
STARTS = {"start", "starttime", "begin", "onset", "offset", "t0", "tmin", "xmin"}
ENDS = {"end", "endtime", "stop", "finish", "t1", "tmax", "xmax"}
"""Words for times of segments; they may mean other times, such as a clip's position in a film."""
TIME_WORDS = {
    "time",
    "at",
    "segment",
    "seg",
    "utterance",
    "utt",
    "audio",
    "clip",
    "speech",
    "turn",
    "s",
    "sec",
    "secs",
    "seconds",
}
"""Words that such a name may also contain, as "segment_start (s)" does."""
UNITS = {"ms", "msec", "milliseconds", "ns", "us", "samples", "sample", "frames", "frame", "min", "minutes"}
QUOTES = "'\"`\u00b4\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
PANDAS = re.compile(r"\.\d+$")
"""Suffix that pandas adds to the name of a column that exists already."""
ZERO = re.compile(r"0*\.?0*")
NUM_EXAMPLES = 5
"""Number of values from which a column of audio files is recognized."""


def read(
    root: Path,
    columns: Mapping[str, str] | None = None,
    emotions: Mapping[str, str] | None = None,
    language: str = "",
    delimiter: str = "",
    annotators: str = "error",
) -> list[Utterance]:
    """Read a table.

    Args:
        root: The table's file.
        columns: Field -> column.
        emotions: Custom label -> emotion.
        language: The language of rows without one, ISO 639-1.
        delimiter: The delimiter of a text file; "" to detect it.
        annotators: What to do with several rows of the same segment: see `affekt.corpora.annotators.combine`.

    Raises:
        BadConfig: `annotators` has no such rule.
        BadCorpus: The table cannot be read, lacks a column, or has a row that is not valid.
    """
    check_rule(annotators)
    table = open_table(root, delimiter)
    if not table.columns:
        return []
    selected = _columns(table, columns or {})
    records = table.records(list(dict.fromkeys(selected.values())))
    if not records:
        raise BadCorpus(f"{root} has no rows: expected a row per utterance below the column names")
    _check_keys(records, selected)
    emotion_names, emotions_of_votes = EmotionNames(emotions or {}), EmotionNames(emotions or {})
    annotations = [
        Annotation(record, _Row(number, record, selected).utterance(emotion_names, emotions_of_votes, language))
        for number, record in enumerate(records, start=1)
    ]
    emotion_names.check_used(root)
    emotion_names.log_merged(root)
    return combine(root, annotations, annotators)


def _columns(table: Table, mapping: Mapping[str, str]) -> dict[str, str]:
    """Return field -> column, for every field that the table has and that the user does not ignore."""
    path, present = table.path, dict.fromkeys(name for name in table.columns if name)
    for field, column in mapping.items():
        if field not in FIELDS:
            near = did_you_mean(field, FIELDS)
            raise BadCorpus(f"columns: no field {field!r}{near} (known: {', '.join(FIELDS)})")
        if column and column not in present:
            raise BadCorpus(
                f"{path} has no column {column!r}{did_you_mean(column, present)} (it has: {', '.join(present)})"
            )
    default = {field: find_column(NAMES.get(field, (field,)), present) for field in FIELDS}
    selected = {field: column for field, column in {**default, **mapping}.items() if column}
    unread = set(present) - set(selected.values())
    hint = "" if len(present) > 1 else ". Another delimiter can be given: delimiter = ..., or --delimiter"
    if "emotion" not in selected or not {"audio", "text"} & set(selected):
        raise BadCorpus(
            f"{path} needs columns for emotion and for audio or text; it has: {', '.join(present)}. "
            'Map them: columns = {audio = "...", emotion = "..."}, or --column audio=... on the command line' + hint
        )
    _check_misspelled(path, unread, set(FIELDS) - set(selected) - set(mapping))
    for field, column in selected.items():
        if same := [
            other for other in unread if PANDAS.sub("", plain(other)) == plain(column) and field not in mapping
        ]:
            raise BadCorpus(
                f"{path} has columns {column!r} and {same[0]!r}: rename one of them, or map it ({field} = ...)"
            )
    if "audio" not in selected and "audio" not in mapping:
        _check_unread_audio(table, [name for name in present if name in unread])
    _check_unread_times(table, [name for name in present if name in unread], selected, mapping)
    return selected


def _check_misspelled(path: Path, columns: Collection[str], fields: Collection[str]) -> None:
    """Raise `BadCorpus` if an unused column is named almost like a missing field."""
    for column in sorted(columns):
        for field in difflib.get_close_matches(column.lower(), sorted(fields), n=1, cutoff=0.8):
            raise BadCorpus(
                f"{path}: column {column!r} is not read; did you mean {field!r}? If so, set columns = "
                f'{{{field} = "{column}"}}; if not, set columns = {{{field} = ""}}'
            )


def _check_unread_audio(table: Table, columns: Collection[str]) -> None:
    """Raise `BadCorpus` if a table without a column of audio has one that contains names of audio files."""
    for column in columns:
        if table.is_text(column):
            values = [record.values.get(column) for record in table.records([column])[:NUM_EXAMPLES]]
            if values and all(_is_audio(value) for value in values):
                raise BadCorpus(
                    f"{table.path}: column {column!r} contains audio files and is not read: set columns = "
                    f'{{audio = "{column}"}}, or --column audio={column}; to read the text only, leave it empty (audio=)'
                )


def _check_unread_times(
    table: Table, columns: Collection[str], selected: Mapping[str, str], mapping: Mapping[str, str]
) -> None:
    """Raise `BadCorpus` for an unused column of times: without it, the whole file would have the label of a segment."""
    for column in columns:
        words = set(re.findall(r"[a-z0-9]+", plain(column))) - TIME_WORDS
        unit, name = words & UNITS, "".join(words - UNITS)
        field = "start" if name in STARTS else "end" if name in ENDS else ""
        if name == "offset" and "onset" in map(plain, table.columns):
            field = "end"
        if name == "duration" and {"start", "end"} & {*selected, *mapping} == {"start"}:
            field = "end"
        if not field or field in selected or field in mapping or not _has_times(table, column):
            continue
        cure = f'set columns = {{{field} = "{column}"}}, or --column {field}={column}' if not unit else "write seconds"
        if name == "duration":
            cure = "write a column end, which is start + duration"
        raise BadCorpus(
            f"{table.path}: column {column!r} looks like times, and is not read. If it is the {field} of a segment in the "
            f'audio file, {cure}; if not, ignore it: --column {field}= (in a recipe, columns = {{{field} = ""}})'
        )


def _has_times(table: Table, column: str) -> bool:
    values = (record.values.get(column) for record in table.records([column]))
    return any(not is_missing(value) and not ZERO.fullmatch(str(value).strip()) for value in values)


def _is_audio(value: Any) -> bool:
    return isinstance(value, str) and Path(value.strip()).suffix.lower() in {*SUFFIXES, *MEDIA_SUFFIXES}


def _check_keys(records: Collection[Record], selected: Mapping[str, str]) -> None:
    """Raise `BadCorpus` if a line of JSON lacks a column but has a similar one, which would not be read."""
    names = {name: column for field, column in selected.items() for name in (*NAMES.get(field, ()), plain(column))}
    near = cache(lambda key: difflib.get_close_matches(plain(key), names, n=1, cutoff=0.8))
    columns = set(selected.values())
    for record in records:
        if lacking := columns - record.values.keys():
            for key in record.values.keys() - columns:
                for name in near(key):
                    if names[name] in lacking:
                        raise record.error(f"has {key!r} but no {names[name]!r}, as other lines have: rename it")


@dataclass(frozen=True)
class _Row:
    """One row of a table, read by field."""

    number: int
    """The row's number, counted from 1."""
    record: Record
    columns: Mapping[str, str]
    """Field -> column."""

    def utterance(self, emotion_names: EmotionNames, emotions_of_votes: EmotionNames, language: str) -> Utterance:
        audio, start, end = self.audio(), self.seconds("start") or 0.0, self.seconds("end")
        if end is not None and end <= start:
            raise self.record.error(f"start {start} s, end {end} s: expected an end after the start")
        emotion = self.emotion(emotion_names)
        text = self.transcript()
        if not audio and not text:
            raise self.record.error(f"has neither audio nor text{self._written('audio')}: add one, or remove the row")
        whole = start == 0.0 and end is None
        return Utterance(
            self.string("id") or (audio or f"row {self.number}") + ("" if whole else f"#{start:g}-{_end(end)}"),
            self.record.path.stem,
            find_audio(self.record.path.parent, audio) if audio else None,
            emotion_names(emotion),
            speaker=self.speaker(),
            gender=parse_gender(self.record, self.columns["gender"]) if "gender" in self.columns else "",
            session=self.string("session"),
            dialogue=self.string("dialogue"),
            language=self.string("language") or language,
            text=text,
            text_by=self.string("text_by"),
            start=start,
            end=end,
            split=self.string("split"),
            votes=self.votes(emotions_of_votes),
        )

    def string(self, field: str) -> str:
        return self.record.text(self.columns[field]) if field in self.columns else ""

    def audio(self) -> str:
        """Return the name of the audio file."""
        name = self.string("audio")
        if is_url(name):
            raise self.record.error(f"audio {name!r} is a URL: download the file, and write its path")
        if _is_in_quotes(name):
            raise self.record.error(f"audio {name!r} is in quotes: remove them, or use double quotes")
        return name

    def speaker(self) -> str:
        """Return the speaker; equal names in different Unicode forms are one speaker."""
        name = unicodedata.normalize("NFC", self.string("speaker"))
        return "" if is_missing_speaker(name) else name

    def emotion(self, emotion_names: EmotionNames) -> str:
        """Return the label; a word for a missing value counts as one only if it is mapped, such as "none" to "neutral"."""
        label = self.string("emotion")
        label = "" if is_missing_label(label) else label
        if not label and emotion_names.maps(written := self.record.as_written(self.columns["emotion"])):
            label = written
        if not label:
            raise self.record.error(
                f"has no emotion{self._written('emotion')}: add one, or remove the row; a word for a missing value can be "
                "mapped, as in --emotion none=neutral"
            )
        if ('"' in label or _is_in_quotes(label)) and not emotion_names.maps(label):
            raise self.record.error(f"the emotion {label!r} contains a quote: remove it, or map the label")
        return label

    def transcript(self) -> str:
        text = self.record.as_written(self.columns["text"]) if "text" in self.columns else ""
        return "" if is_missing_transcript(text) else text

    def seconds(self, field: str) -> float | None:
        return parse_seconds(self.record, self.columns[field], field) if field in self.columns else None

    def votes(self, emotion_names: EmotionNames) -> dict[str, float]:
        """Return the fraction of the votes for each emotion, from an object of numbers (in CSV, as JSON)."""
        value = self.record.values.get(self.columns["votes"]) if "votes" in self.columns else None
        if is_missing(value):
            return {}
        try:
            given = {
                label.strip(): 0.0 if is_missing(number) else float(number) for label, number in _mapping(value).items()
            }
        except (ValueError, TypeError, RecursionError, OverflowError):
            raise self.record.error(f'votes {value!r}: expected {{"happy": 3, "sad": 1}}') from None
        counts: dict[str, float] = {}
        for label, number in given.items():
            if number < 0 or not math.isfinite(number):
                raise self.record.error(f"votes {value!r}: expected finite numbers that are not negative")
            if number and not is_missing(label):  # votes for a missing label are those of raters without an answer
                emotion = emotion_names(label)
                counts[emotion] = counts.get(emotion, 0.0) + number
        total = sum(counts.values())
        return {emotion: number / total for emotion, number in counts.items()}

    def _written(self, field: str) -> str:
        """Return how a missing value is written, for a message; "" if it is empty."""
        value = self.record.values.get(self.columns.get(field, ""))
        return f" ({value!r} is a missing value)" if isinstance(value, str) and value.strip() else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    mapping = json.loads(value) if isinstance(value, str) else value
    if not isinstance(mapping, Mapping):
        raise TypeError
    return mapping


def _is_in_quotes(text: str) -> bool:
    return len(text) > 1 and text[0] in QUOTES and text[-1] in QUOTES


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
    options=("columns", "emotions", "language", "delimiter", "annotators"),
    is_file=True,
)
