"""The row: the result for one source, the same in Python, JSON, CSV and Parquet.

{"schema": 1, "file": "hello.wav", "start": 0.0, "end": 2.5, "duration": 2.5, "status": "ok", "emotion": "happy",
 "probabilities": {"angry": 0.1, ...}, "model": "default@0123abcd", "error": null}

The row of a source longer than 8 s also has "windows", the rows of its consecutive windows, and "aggregation". A row has
the fields NOTES only if there is something to remark: "truncated" (true) and "seconds_lost" (null if unknown) if audio is
missing, "channels" if a channel was used instead of the mean, "unfamiliar" if the recording is unlike the training data.
A row has the fields APPLIED if something besides the model was applied: "profile", with the profile's "id" and the number of
"recordings" that it was learned from, and "decision", the settings of `affekt.inference.decision`. With a promised error
rate, a row with probabilities has "emotion_set", the emotions that are not excluded, most probable first. If the words are
known, a row has the fields TRANSCRIPT. The rows of the segments of a timeline have further fields, SEGMENT.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from affekt.errors import AffektError
from affekt.inference.decision import decide
from affekt.json_text import to_json

SCHEMA = 1
"""Version of the format, stored in each row."""
KEYS = ("schema", "file", "start", "end", "duration", "status", "emotion", "probabilities", "model", "error")
UNFAMILIAR = "unfamiliar"
"""The field of the distance from the training data, where 1 is the largest usual one, of a recording that is unlike them."""
NOTES = ("truncated", "seconds_lost", "channels", UNFAMILIAR)
"""Fields of a row that has remarks (`affekt.audio.read.Notes`, `affekt.inference.familiarity`)."""
APPLIED = ("profile", "decision")
"""Fields that state what was applied besides the model. They are the same in all rows of a results file."""
EMOTION_SET = "emotion_set"
"""The field of the emotions that are not excluded at the promised error rate."""
TRANSCRIPT = ("text", "text_by", "words")
"""Fields of a row whose words are known: the text, its source, and the words with their times, if these are known. The row of
a recording with windows has only the source."""
SEGMENT = ("speaker", "channel", "speech", *TRANSCRIPT, "steady_emotion")
"""Fields that the row of a segment of a timeline may have (`affekt.timeline.timeline`)."""
Status = Literal["silence", "no_speech", "no_words"]
"""A status of `WITHOUT_EMOTION`."""
WITHOUT_EMOTION: tuple[Status, ...] = ("silence", "no_speech", "no_words")
"""Statuses of a row without an emotion and without an error: digital silence, sound without speech, and speech without words
for a model that needs words."""
AGGREGATION = "mean of the windows' probabilities, weighted by seconds of speech; windows without speech left out"


class Row(dict[str, Any]):
    """One result: a dict, which can be written as JSON directly, with its fields as attributes too."""

    resumed = False
    """True if the row was read from a results file instead of being recognized. It is not part of the dict."""
    source: dict[str, float] | None = None
    """The file's "size" in bytes and time of change, "modified", when it was recognized; None if unknown. It is not part
    of the dict, but of the row's record in a results file."""

    @classmethod
    def read(cls, record: Any) -> Row:
        """Return a record of a results file as a row; its windows are rows too.

        Raises:
            ValueError: The record is not a row.
        """
        try:
            return cls._convert(record)
        except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"expected a row of schema {SCHEMA}") from error

    @classmethod
    def _convert(cls, record: Any) -> Row:
        if not (isinstance(record, Mapping) and set(KEYS) <= set(record) and _is_valid(record)):
            raise ValueError(f"expected a row of schema {SCHEMA}")
        row = cls({key: record[key] for key in KEYS})
        row.update(_read_applied(record))
        if record.get(EMOTION_SET) is not None:
            row[EMOTION_SET] = _read_emotion_set(record)
        row.update(_read_notes(record))
        row.update(_read_segment(record))
        if record.get("windows") is not None:
            row["aggregation"] = record["aggregation"]
            row["windows"] = [cls.read(window) for window in record["windows"]]
        if isinstance(source := record.get("source"), Mapping):
            row.source = {"size": int(source["size"]), "modified": float(source["modified"])}
        return row

    def record(self) -> dict[str, Any]:
        """Return the row as it is written to a results file: with its source, if that is known."""
        return self if self.source is None else {**self, "source": self.source}

    @property
    def file(self) -> str:
        """The path as given; "<bytes>", "<stream>" or "<array>" for other sources."""
        return self["file"]

    @property
    def start(self) -> float:
        """Start in seconds from the beginning of the file."""
        return self["start"]

    @property
    def end(self) -> float:
        """End in seconds from the beginning of the file."""
        return self["end"]

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self["duration"]

    @property
    def status(self) -> str:
        """One of "ok", "unknown", "silence", "no_speech", "no_words" and "error"."""
        return self["status"]

    @property
    def emotion(self) -> str | None:
        """The most probable emotion; None unless the status is "ok"."""
        return self["emotion"]

    @property
    def probabilities(self) -> dict[str, float] | None:
        """The probability of each emotion; None unless the status is "ok" or "unknown"."""
        return self["probabilities"]

    @property
    def model(self) -> str:
        """The bundle's name, "@", and 8 hexadecimal digits of its hash."""
        return self["model"]

    @property
    def profile(self) -> dict[str, Any] | None:
        """The profile that was applied: its "id" and number of "recordings"; None without one."""
        return self.get("profile")

    @property
    def decision(self) -> dict[str, Any] | None:
        """The settings by which the emotion was decided, those that are not the default; None without any."""
        return self.get("decision")

    @property
    def applied(self) -> dict[str, Any]:
        """The fields that state what was applied besides the model; {} if nothing was."""
        return {name: self[name] for name in APPLIED if name in self}

    @property
    def emotion_set(self) -> list[str] | None:
        """The emotions that are not excluded at the promised error rate, most probable first; None without one."""
        return self.get(EMOTION_SET)

    def top(self, count: int | None = None) -> list[tuple[str, float]]:
        """Return the most probable emotions with their probabilities, at most `count`; [] without probabilities."""
        ranked = sorted((self.probabilities or {}).items(), key=lambda item: -item[1])
        return ranked[:count]

    @property
    def text(self) -> str | None:
        """The words; None if they are not known."""
        return self.get("text")

    @property
    def windows(self) -> list[Row]:
        """The rows of the windows; empty for a source of up to 8 s."""
        return self.get("windows", [])

    @property
    def error(self) -> dict[str, str] | None:
        """The error's "code" and "message"; None unless the status is "error"."""
        return self["error"]

    def __str__(self) -> str:
        head = f"{self.file}  {self.start:.2f}-{self.end:.2f} s"
        if self.error:
            return f"{self.file}  error {self.error['code']}: {self.error['message']}"
        if self.probabilities is None:
            return f"{head}  {self.status.replace('_', ' ')}"
        head += "  unknown" if self.status == "unknown" else ""
        return f"{head}  " + "  ".join(f"{emotion} {p:.0%}" for emotion, p in self.top())

    @property
    def remarks(self) -> list[str]:
        """The notes in words."""
        remarks = []
        if self.get("truncated"):
            seconds = self.get("seconds_lost")
            remarks.append("truncated: " + ("audio is missing" if seconds is None else f"{seconds:.2f} s are missing"))
        if UNFAMILIAR in self:
            remarks.append(f"unlike the training data ({self[UNFAMILIAR]:.1f} times the usual distance)")
        return [*remarks, self["channels"]] if "channels" in self else remarks


def _is_valid(record: Mapping[str, Any]) -> bool:
    """Return whether the fields of a record have the types of a row's, and agree; other types may also raise errors."""
    probabilities, error = record["probabilities"], record["error"]
    for text in (record["file"], record["model"], *((error["code"], error["message"]) if error else ())):
        str.encode(text)  # half of a surrogate pair could not be written again
    if not all(map(math.isfinite, (record["start"], record["end"], record["duration"]))):
        return False
    if not math.isfinite(record.get(UNFAMILIAR) or 0.0):
        return False
    if probabilities and not all(map(math.isfinite, probabilities.values())):
        return False
    statuses = ("error",) if error else ("ok", "unknown") if probabilities else WITHOUT_EMOTION
    has_emotion = record["status"] == "ok"
    is_named = record["emotion"] in probabilities if has_emotion else record["emotion"] is None
    return record["schema"] == SCHEMA and record["status"] in statuses and is_named


def _read_applied(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields `APPLIED` of a record. Raises an error if one is invalid."""
    applied: dict[str, Any] = {}
    if (profile := record.get("profile")) is not None:
        str.encode(profile["id"])
        applied["profile"] = {"id": profile["id"], "recordings": int(profile["recordings"])}
    if (decision := record.get("decision")) is not None:
        kinds = {"threshold": float, "emotions": list, "error_rate": float, "min_probability": float}
        applied["decision"] = {
            name: kind(decision[name]) for name, kind in kinds.items() if decision.get(name) is not None
        }
    return applied


def _read_emotion_set(record: Mapping[str, Any]) -> list[str]:
    """Return the field "emotion_set" of a record. Raises `ValueError` if an emotion has no probability."""
    emotions = list(record[EMOTION_SET])
    if not set(emotions) <= set(record["probabilities"]):
        raise ValueError(f"{EMOTION_SET} {emotions} is not a subset of the emotions")
    return emotions


def optional_columns(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Return those optional fields that a row, or a window of one, has, for the columns of a table."""
    return [name for name in names if any(name in row or any(name in part for part in row.windows) for row in rows)]


def _read_notes(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the notes of a record; in a table, a row without notes has empty cells."""
    return {
        name: record.get(name)
        for name in NOTES
        if record.get(name) or (name == "seconds_lost" and record.get("truncated"))
    }


def _read_segment(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields `SEGMENT` of a record. Raises `ValueError` if one is invalid."""
    fields = {name: record[name] for name in SEGMENT if record.get(name) is not None}
    kinds: dict[str, Any] = {"channel": int, "speech": int | float, "words": list}
    for name, value in fields.items():
        if not isinstance(value, kinds.get(name, str)) or isinstance(value, bool):
            raise ValueError(f"{name} {value!r} is invalid")
    if not (math.isfinite(fields.get("speech", 0.0)) and all(map(_is_word, fields.get("words", ())))):
        raise ValueError("speech or words are invalid")
    if fields.get("steady_emotion") not in (None, *(record["probabilities"] or ())):
        raise ValueError(f"steady_emotion {fields['steady_emotion']!r} has no probability")
    return fields


def _is_word(word: Any) -> bool:
    return (
        isinstance(word, Mapping)
        and isinstance(word.get("text"), str)
        and all(isinstance(word.get(key), int | float) and math.isfinite(word[key]) for key in ("start", "end"))
    )


UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that JSON allows unescaped, but that break lines or control a terminal."""


def to_json_line(record: Mapping[str, Any]) -> str:
    """Return a record as a line of JSON, which no character of a file name breaks."""
    text = to_json(record, ascii_only=False)
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def make_row(
    file: str,
    model: str,
    *,
    start: float = 0.0,
    end: float = 0.0,
    probabilities: Mapping[str, float] | None = None,
    error: AffektError | None = None,
    status_without_emotion: Status = "silence",
    applied: Mapping[str, Any] | None = None,
) -> Row:
    """Return a row, whose status is "error" with an error, else `status_without_emotion` without probabilities.

    With probabilities, it is "ok" or "unknown" (`affekt.inference.decision`). Times are in seconds, and are rounded to 4
    digits, probabilities to 6. `applied` are the fields `APPLIED`.
    """
    applied = applied or {}
    rounded = {emotion: round(p, 6) for emotion, p in probabilities.items()} if probabilities else None
    decided: dict[str, Any] = {"status": "error" if error else status_without_emotion, "emotion": None}
    if rounded:
        decided = decide(rounded, applied.get("decision", {}))
    row = Row(
        schema=SCHEMA,
        file=file,
        start=round(start, 4),
        end=round(end, 4),
        duration=round(end - start, 4),
        status=decided.pop("status"),
        emotion=decided.pop("emotion"),
        probabilities=rounded,
        model=model,
        error={"code": error.code, "message": str(error)} if error else None,
    )
    row.update({name: dict(value) for name, value in applied.items()})
    row.update(decided)
    return row
