"""JSON of speech recognizers: segments of faster-whisper, openai-whisper and WhisperX, and our own timelines.

The file is a list of segments, or an object with such a list as "segments". A segment has "start" and "end" in seconds, and
may have "text", "speaker" and "words". A word has "word" or "text", and may have "start", "end" and "speaker".
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from affekt.errors import BadTranscript
from affekt.interval import Word, join_word_parts
from affekt.plural import quantity
from affekt.tabular.missing import is_missing_speaker
from affekt.timeline.transcripts.entries import Entry, clean, log_skipped, read_text_file, shorten

EXPECTED = 'expected a list of segments, or {"segments": [{"start": 0.0, "end": 2.5, "text": "..."}, ...]}'

logger = logging.getLogger(__name__)


def read_json(path: Path) -> Iterator[Entry]:
    """Yield the segments that have text, or no field for it.

    Raises:
        BadTranscript: The file is not JSON, or a segment lacks a time.
    """
    segments = _segments(path, _load(path))
    skipped, untimed = Counter[str](), 0
    for number, segment in enumerate(segments, start=1):
        position = f"segment {number}"
        if not isinstance(segment, Mapping):
            raise BadTranscript(
                f"{path}, {position} is {_kind(segment)}: expected an object; write segments as segment._asdict() or "
                "dataclasses.asdict(segment)"
            )
        start, end = (_time(path, position, segment, key) for key in ("start", "end"))
        words = _list(path, position, segment)
        untimed += sum(not _is_timed(word) for word in words)
        text = _text(path, position, segment, "text") or clean(" ".join(_word_text(word) for word in words))
        if text is None and segment.get("text") is not None:
            skipped["without text"] += 1
            continue
        yield Entry(position, start, end, _speaker(segment, words), text, _words(path, position, words, start, end))
    if untimed:
        logger.info("%s: %s without times lie between their neighbors", path, quantity(untimed, "word"))
    log_skipped(path, skipped, len(segments))


def _load(path: Path) -> Any:
    try:
        return json.loads(read_text_file(path))
    except json.JSONDecodeError as error:
        hint = "; rename it to .jsonl if each line is a segment" if error.msg == "Extra data" else ""
        raise BadTranscript(f"{path}, line {error.lineno}: is not JSON ({error.msg}): {EXPECTED}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise BadTranscript(f"{path} is not JSON ({error}): {EXPECTED}") from error


def _segments(path: Path, content: Any) -> Sequence[Any]:
    segments = content.get("segments") if isinstance(content, Mapping) else content
    if not isinstance(segments, list):
        keys = f" with {', '.join(map(repr, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise BadTranscript(f"{path} is {_kind(content)}{keys}: {EXPECTED}")
    return segments


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}.get(
        type(value), "a number"
    )


def _time(path: Path, position: str, segment: Mapping[str, Any], key: str) -> float:
    value = segment.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        problem = f"{key} is {_kind(value)}" if key in segment else f"{key} is missing"
        raise BadTranscript(f"{path}, {position}: {problem}: expected seconds, such as 1.5")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _text(path: Path, position: str, segment: Mapping[str, Any], key: str) -> str | None:
    value = segment.get(key)
    if value is not None and not isinstance(value, str):
        raise BadTranscript(f"{path}, {position}: {key} is {_kind(value)}: expected a text")
    return clean(value)


def _list(path: Path, position: str, segment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    words = segment.get("words") or []
    if not isinstance(words, list) or not all(isinstance(word, Mapping) for word in words):
        raise BadTranscript(f"{path}, {position}: words are {shorten(str(words))}: expected a list of objects")
    return [word for word in words if _word_text(word)]


def _word_text(word: Mapping[str, Any]) -> str:
    text = word.get("word", word.get("text"))
    return clean(text) or "" if isinstance(text, str) else ""


def _spaced_text(word: Mapping[str, Any]) -> str:
    """Return the text of a word, with a space before it if the file has one there."""
    text = word.get("word", word.get("text"))
    return " " * (isinstance(text, str) and text[:1].isspace()) + _word_text(word)


def _speaker(segment: Mapping[str, Any], words: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the speaker of a segment, or else the one of most of its words."""
    names = [segment.get("speaker")]
    if is_missing_speaker(names[0]):
        names = [word.get("speaker") for word in words]
    counts = Counter(str(name) for name in names if not is_missing_speaker(name))
    return clean(counts.most_common(1)[0][0]) if counts else None


def _is_timed(word: Mapping[str, Any]) -> bool:
    return word.get("start") is not None and word.get("end") is not None


def _words(path: Path, position: str, words: Sequence[Mapping[str, Any]], start: float, end: float) -> tuple[Word, ...]:
    """Return the words with their times; a run of words without times divides the gap in which it lies. () without
    any."""
    if not any(map(_is_timed, words)):
        return ()
    times: list[tuple[float, float] | None] = [None] * len(words)
    for index, word in enumerate(words):
        if _is_timed(word):
            where = f"{position}, word {index + 1}"
            times[index] = (_time(path, where, word, "start"), _time(path, where, word, "end"))
            if not times[index][0] <= times[index][1]:  # type: ignore[index]  # also false for NaN
                raise BadTranscript(f"{path}, {where}: its end is before its start; correct them")
    filled = _fill(times, start, end)
    return join_word_parts(Word(*pair, _spaced_text(word)) for pair, word in zip(filled, words, strict=True))


def _fill(times: Sequence[tuple[float, float] | None], start: float, end: float) -> list[tuple[float, float]]:
    filled: list[tuple[float, float]] = []
    for index, pair in enumerate(times):
        if pair is None:
            left = filled[-1][1] if filled else start
            run = next((k for k, later in enumerate(times[index:]) if later is not None), len(times) - index)
            following = times[index + run] if index + run < len(times) else None
            right = max(left, following[0] if following else end)
            pair = (left, left + (right - left) / run)
        filled.append(pair)
    return filled
