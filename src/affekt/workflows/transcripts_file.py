"""A file of recognized transcripts beside a results file, so that no recording is transcribed twice."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from affekt.audio.read import name_of
from affekt.inference.row import to_json_line
from affekt.inference.transcript import Transcript
from affekt.interval import Interval, Word
from affekt.workflows.recognize_files import file_version, is_stream

logger = logging.getLogger(__name__)


def transcripts_path(output: Path) -> Path:
    """Return the file of the transcripts of a results file: NAME.transcripts.jsonl."""
    return output.with_name(f"{output.stem}.transcripts.jsonl")


class TranscriptsFile:
    """Transcripts in a file with one line of JSON for each; a later line of the same recording replaces an earlier one.

    A transcript is used again only for the same version of the recording, the same speech-to-text model and the same
    language. Lines that are damaged are ignored, and a file that cannot be written is logged.

    Args:
        path: The file, which need not exist.
        recognizer_name: The name of the speech-to-text model.
        language: The language that it is told, "" to detect it.
    """

    def __init__(self, path: Path, recognizer_name: str, language: str) -> None:
        self.path, self._key = path, {"by": recognizer_name, "language": language}
        data = _read_bytes(path)
        self._is_cut_off = not data.endswith(b"\n") and bool(data)
        self._stored = {
            record["file"]: (record["source"], transcript)
            for record, transcript in _parse(data)
            if self._key.items() <= record.items()
        }

    def find(self, recording: Path) -> Transcript | None:
        """Return the transcript of a recording; None if there is none of this version of it."""
        version, transcript = self._stored.get(name_of(recording), (None, None))
        return transcript if version and version == _version(recording) else None

    def add(self, recording: Path, transcript: Transcript) -> None:
        """Add the transcript of a recording; that of a stream is not kept."""
        if (version := _version(recording)) is None:
            return
        intervals = [
            {
                "start": interval.start,
                "end": interval.end,
                "text": interval.text,
                "words": [{"start": word.start, "end": word.end, "text": word.text} for word in interval.words],
            }
            for interval in transcript.intervals
        ]
        record = {"file": name_of(recording), "source": version, **self._key, "intervals": intervals}
        self._stored[record["file"]] = (version, transcript)
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write("\n" * self._is_cut_off + to_json_line(record))
            self._is_cut_off = False
        except OSError as error:
            logger.warning("%s cannot be written: %s", self.path, error.strerror or error)


def _version(recording: Path) -> dict[str, float] | None:
    return None if is_stream(recording) else file_version(recording)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parse(data: bytes) -> Iterator[tuple[dict[str, Any], Transcript]]:
    """Yield the records of a file with their transcripts, without lines that are damaged."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
            intervals = tuple(_read_interval(interval) for interval in record["intervals"])
            complete = {**record, "file": str(record["file"]), "source": dict(record["source"])}
        except (KeyError, RecursionError, TypeError, ValueError):
            continue
        yield complete, Transcript(str(record["by"]), intervals)


def _read_interval(record: dict[str, Any]) -> Interval:
    words = tuple(Word(float(word["start"]), float(word["end"]), str(word["text"])) for word in record["words"])
    return Interval(float(record["start"]), float(record["end"]), text=str(record["text"]), words=words)
