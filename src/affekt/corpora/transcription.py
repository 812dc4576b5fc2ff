"""Words for a corpus that has none: what an automatic speech recogniser hears, and marked as such.

The result is a table, which the corpus `table` reads. What was recognised bears the recogniser's name in `text_by`; words
that the corpus brings stay as they are, with "" there, unless all are asked for again. A run that was killed goes on: until
the table is written, its words stand, a line each, in `NAME.partial.jsonl` beside it.

The recogniser is Whisper (Radford et al., 2022) as faster-whisper runs it, from the extra `asr`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from affekt.audio.read import Waveform, load
from affekt.corpora.base import some
from affekt.corpora.export import export
from affekt.corpora.inspection import stretch
from affekt.errors import BadAudio, BadConfig, BadCorpus, BadOutput
from affekt.extras import need
from affekt.utterance import Utterance

SUFFIXES = (".jsonl", ".csv")
NAMED = 3  # failures that an error names; it counts the others


class SpeechRecognizer(Protocol):
    """What writes words down. Any object with these two will do."""

    name: str  # what `text_by` says: "asr:whisper-base"

    def __call__(self, waveform: Waveform, language: str) -> str:
        """The words of (samples,) mono at 16 kHz, "" for none. language: ISO 639-1, or "" to find it out by hearing."""
        raise NotImplementedError


class Whisper:
    """Whisper of any size in CTranslate2's format: a folder, one below AFFEKT_MODELS, or a name on the hub ("small").

    device: "cpu", where its weights are rounded to 8 bits (about twice as fast), or "cuda", where they are as stored.
    It searches by five beams and never samples, so that it gives the same words again. Raises `BadConfig` for a model that
    is not there or is no Whisper, `MissingExtra` without faster-whisper.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        library = need("faster_whisper", extra="asr", purpose="recognising words")
        if device not in ("cpu", "cuda"):
            raise BadConfig(f"device {device!r}: expected cpu or cuda")
        place = _place(model)
        precision = "int8" if device == "cpu" else "default"
        try:
            self._network = library.WhisperModel(
                place, device=device, compute_type=precision, local_files_only=Path(place).is_dir()
            )
        except (ValueError, OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadConfig(f"the recogniser {model!r} cannot be loaded: {reason}") from error
        name = Path(model).name
        self.name = f"asr:{name if 'whisper' in name else f'whisper-{name}'}"

    def __call__(self, waveform: Waveform, language: str) -> str:
        segments, _ = self._network.transcribe(
            waveform,
            language=language or None,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)


def _place(model: str) -> str:
    """The folder of a model, or its name on the hub."""
    below = os.environ.get("AFFEKT_MODELS")
    for folder in (Path(model).expanduser(), *([Path(below) / model] if below else [])):
        if folder.is_dir():
            if not (folder / "model.bin").is_file():
                raise BadConfig(
                    f"{folder} holds no Whisper in CTranslate2's format: expected model.bin, config.json, tokenizer.json "
                    "and vocabulary.txt or .json, as ct2-transformers-converter writes them"
                )
            return str(folder)
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise BadConfig(
            f"{model} is no folder; expected one with a Whisper in CTranslate2's format, or a name on the hub"
        )
    return model


@dataclass(frozen=True)
class Transcription:
    """How many utterances a table holds, and where their words come from."""

    output: Path
    utterances: int
    given: int  # words of the corpus, or of an earlier recogniser, which stay
    recognised: int
    resumed: int  # of the recognised, those of a run that was interrupted
    wordless: int  # of the recognised, those in which no word was found


def transcribe(
    utterances: Sequence[Utterance],
    recogniser: SpeechRecognizer,
    output: Path,
    *,
    again: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Transcription:
    """Write a table of the utterances in which those without words have what the recogniser hears.

    again: also those that have words, which are then the recogniser's.
    progress: told how many are done, and of how many.
    Raises `BadOutput` for an output that exists, or whose journal belongs to another run; `BadCorpus` that counts the
    utterances that cannot be heard, once all others are done.
    """
    check_output(output, utterances)
    wanted = {one.id: one for one in utterances if again or not one.text}
    journal = output.with_name(output.name + ".partial.jsonl")
    words = _resumed(journal, recogniser.name, wanted)
    resumed, failures = len(words), dict[str, str]()
    with journal.open("a", encoding="utf-8", newline="\n") as lines:
        waiting = [one for one in wanted.values() if one.id not in words]
        for one, sound in _sounds(waiting, failures):
            words[one.id] = " ".join(recogniser(sound, one.language).split())
            record = {"by": recogniser.name, "id": one.id, "text": words[one.id]}
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
            lines.flush()
            if progress:
                progress(len(words), len(wanted))
    if failures:
        raise BadCorpus(_told(failures, len(utterances), journal))
    export([_with(one, words, recogniser.name) for one in utterances], output)
    journal.unlink()
    wordless = sum(not text for text in words.values())
    return Transcription(output, len(utterances), len(utterances) - len(words), len(words), resumed, wordless)


def check_output(output: Path, utterances: Sequence[Utterance]) -> None:
    """Before hours are spent: can the table be written there? Raises `BadOutput`."""
    if output.suffix.lower() not in SUFFIXES:
        raise BadOutput(f"{output}: expected a name ending in {' or '.join(SUFFIXES)}")
    if output.exists():
        raise BadOutput(f"{output} exists, and is not written over: name another, or remove it")
    mute = [one.id for one in utterances if one.audio is None]
    if mute and output.suffix.lower() == ".csv":
        raise BadOutput(f"{len(mute)} utterances have no sound, first {mute[0]}: a .csv is of files, write .jsonl")
    output.parent.mkdir(parents=True, exist_ok=True)


def _resumed(journal: Path, name: str, wanted: Mapping[str, Utterance]) -> dict[str, str]:
    """The words of an interrupted run, by utterance; a line that was cut short is cut away."""
    if not journal.exists():
        return {}
    data = journal.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    words = {}
    for line in whole.splitlines():
        record = _record(line, journal)
        if record["by"] != name or record["id"] not in wanted:
            what = f"{record['id']!r} by {record['by']}"
            raise BadOutput(f"{journal} belongs to another run (it holds {what}): name another output, or remove it")
        words[record["id"]] = record["text"]
    if len(whole) < len(data):
        os.truncate(journal, len(whole))
    return words


def _record(line: bytes, journal: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or record.keys() != {"by", "id", "text"}:
        raise BadOutput(f"{journal} holds something else than recognised words: name another output, or remove it")
    return record


def _with(utterance: Utterance, words: Mapping[str, str], name: str) -> Utterance:
    return replace(utterance, text=words[utterance.id], text_by=name) if utterance.id in words else utterance


def _sounds(utterances: Sequence[Utterance], failures: dict[str, str]) -> Iterator[tuple[Utterance, Waveform]]:
    """Every utterance's sound, each file read once; in `failures` why there is none, where it cannot be had."""
    files: dict[Path | None, list[Utterance]] = {}
    for one in utterances:
        files.setdefault(one.audio, []).append(one)
    for path, group in files.items():
        if path is None:
            failures.update({one.id: "it has no sound" for one in group})
            continue
        try:
            whole = load(path)
        except BadAudio as error:
            failures.update({one.id: str(error) for one in group})
            continue
        for one in group:
            try:
                sound = stretch(one, whole)
            except BadAudio as error:
                failures[one.id] = str(error)
            else:
                yield one, sound


def _told(failures: Mapping[str, str], count: int, journal: Path) -> str:
    named = "; ".join(f"{one}: {reason}" for one, reason in list(failures.items())[:NAMED])
    others = f"; and {some(list(failures)[NAMED:])}" if len(failures) > NAMED else ""
    return (
        f"{len(failures)} of {count} utterances cannot be heard: {named}{others}. The words of the others are kept in "
        f"{journal.name}: mend these, or export the corpus to a table and delete their rows, and run again"
    )
