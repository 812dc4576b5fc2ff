"""Transcripts for a corpus without text, from automatic speech recognition and marked as such.

The result is a table, which the corpus `table` reads. Recognized text has the recognizer's name in `text_by`; the corpus's
own text is kept, with an empty `text_by`, unless everything is transcribed again. An interrupted run resumes: until the table
is written, its transcripts are in the journal `NAME.partial.jsonl` beside it, one per line.

"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affekt.asr import SpeechRecognizer
from affekt.audio.read import Waveform
from affekt.corpora.base import join_names
from affekt.corpora.export import export
from affekt.corpora.waveforms import read_waveforms
from affekt.corpora.word_errors import WordErrors, count_word_errors
from affekt.errors import BadAudio, BadCorpus, BadOutput
from affekt.json_text import to_json
from affekt.lock import FileLock, Locked
from affekt.plural import quantity
from affekt.progress import Progress
from affekt.utterance import Utterance

SUFFIXES = (".jsonl", ".csv")
MAX_REASONS = 3
"""Number of failures for which an error message states the reason; the others are listed by id."""


@dataclass(frozen=True)
class Transcription:
    """The number of utterances in a table, by the source of their text."""

    output: Path
    utterances: int
    kept: int
    """Utterances whose existing text is kept, from the corpus or an earlier recognizer."""
    recognized: int
    """Utterances whose text is from this recognizer, including `resumed`."""
    resumed: int
    """Recognized utterances from an interrupted run."""
    wordless: int
    """Recognized utterances in which no word was found."""
    word_errors: WordErrors | None = None
    """Errors of the recognizer, measured on the utterances whose text the corpus has; None if there are none."""


def transcribe(
    utterances: Sequence[Utterance],
    recognizer: SpeechRecognizer,
    output: Path,
    *,
    again: bool = False,
    progress: Progress | None = None,
) -> Transcription:
    """Write a table of the utterances in which missing text is filled in by the recognizer.

    Args:
        utterances: All utterances of the table, with and without text.
        recognizer: The speech-to-text model.
        output: The table, .jsonl or .csv.
        again: Also transcribe utterances that already have text, and replace it.
        progress: Called after each utterance.

    Raises:
        BadOutput: The output exists, is being written by another run, or its journal belongs to another run.
        BadCorpus: Some utterances cannot be read; raised after all others are transcribed.
    """
    check_output(output, utterances)
    selected = {utterance.id: utterance for utterance in utterances if again or not utterance.text}
    try:
        lock = FileLock(output)
    except Locked as error:
        raise BadOutput(
            f"{output} is being written by another run: wait until it has ended, or choose another output"
        ) from error
    try:
        return _transcribe(utterances, selected, recognizer, output, progress)
    finally:
        lock.release()


def _transcribe(
    utterances: Sequence[Utterance],
    selected: Mapping[str, Utterance],
    recognizer: SpeechRecognizer,
    output: Path,
    progress: Progress | None,
) -> Transcription:
    journal = output.with_name(output.name + ".partial.jsonl")
    texts = _read_journal(journal, recognizer.name, selected)
    resumed, failures = len(texts), dict[str, str]()
    with journal.open("a", encoding="utf-8", newline="\n") as lines:
        remaining = {key: utterance for key, utterance in selected.items() if key not in texts}
        for utterance, waveform in _waveforms(remaining, failures):
            text = texts[utterance.id] = " ".join(recognizer(waveform, utterance.language).split())
            record = {"by": recognizer.name, "id": utterance.id, "text": text}
            lines.write(to_json(record, ascii_only=False) + "\n")
            lines.flush()
            if progress:
                progress("transcribing", len(texts), len(selected))
    if failures:
        raise BadCorpus(_failure_message(failures, len(utterances), journal))
    export([_with_text(utterance, texts, recognizer.name) for utterance in utterances], output)
    journal.unlink()
    wordless = sum(not text for text in texts.values())
    errors = count_word_errors((u.text, texts[u.id]) for u in selected.values() if u.text and not u.text_by)
    return Transcription(output, len(utterances), len(utterances) - len(texts), len(texts), resumed, wordless, errors)


def check_output(output: Path, utterances: Sequence[Utterance]) -> None:
    """Raise `BadOutput` if the table cannot be written: to be called before hours of transcription."""
    if output.suffix.lower() not in SUFFIXES:
        raise BadOutput(f"{output}: expected a name ending in {' or '.join(SUFFIXES)}")
    if output.exists():
        raise BadOutput(f"{output} exists and is not overwritten: choose another file, or remove this one")
    without_audio = [utterance.id for utterance in utterances if utterance.audio is None]
    if without_audio and output.suffix.lower() == ".csv":
        raise BadOutput(
            f"{quantity(len(without_audio), 'utterance')} without audio (first: {without_audio[0]}), "
            "which a .csv table cannot contain: choose a .jsonl file"
        )
    output.parent.mkdir(parents=True, exist_ok=True)


def _read_journal(journal: Path, recognizer_name: str, selected: Mapping[str, Utterance]) -> dict[str, str]:
    """Return the transcripts of an interrupted run by utterance, and truncate a last line that is incomplete."""
    if not journal.exists():
        return {}
    data = journal.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    texts = {}
    for line in complete.splitlines():
        record = _parse_record(line, journal)
        if record["by"] != recognizer_name or record["id"] not in selected:
            entry = f"{record['id']!r} by {record['by']}"
            raise BadOutput(
                f"{journal} belongs to another run (it has {entry}): choose another output, or remove {journal.name}"
            )
        texts[record["id"]] = record["text"]
    if len(complete) < len(data):
        os.truncate(journal, len(complete))
    return texts


def _parse_record(line: bytes, journal: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.keys() != {"by", "id", "text"}:
        raise BadOutput(f"{journal} is not a journal of transcripts: choose another output, or remove {journal.name}")
    return record


def _with_text(utterance: Utterance, texts: Mapping[str, str], recognizer_name: str) -> Utterance:
    if utterance.id not in texts:
        return utterance
    return replace(utterance, text=texts[utterance.id], text_by=recognizer_name)


def _waveforms(utterances: Mapping[str, Utterance], failures: dict[str, str]) -> Iterator[tuple[Utterance, Waveform]]:
    """Yield each utterance with its waveform; if the audio cannot be read, add the reason to `failures` instead."""
    for key, waveform in read_waveforms(utterances):
        if isinstance(waveform, BadAudio):
            failures[key] = str(waveform)
        else:
            yield utterances[key], waveform


def _failure_message(failures: Mapping[str, str], count: int, journal: Path) -> str:
    named = "; ".join(f"{key}: {reason}" for key, reason in list(failures.items())[:MAX_REASONS])
    others = f"; and {join_names(list(failures)[MAX_REASONS:])}" if len(failures) > MAX_REASONS else ""
    return (
        f"{len(failures)} of {count} utterances cannot be read: {named}{others}. Repair the unreadable files, or "
        f"export the corpus to a table and delete their rows; then run again. All other transcripts are kept in "
        f"{journal.name}"
    )
