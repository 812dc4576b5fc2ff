"""RTTM (NIST's Rich Transcription Time Marked): who speaks when, a line per turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from affekt.errors import BadTranscript
from affekt.tabular.text import split_lines
from affekt.timeline.transcripts.entries import Entry, choose_recording, log_skipped, read_text_file, shorten

EXAMPLE = "SPEAKER call 1 0.50 2.25 <NA> <NA> anna <NA> <NA>"
NUM_FIELDS = (9, 10)
"""Numbers of fields of a line; the last one, the time of looking ahead, is newer."""
TYPES = {
    "LEXEME",
    "NON-LEX",
    "NON-SPEECH",
    "SEGMENT",
    "SPKR-INFO",
    "NOSCORE",
    "NO_RT_METADATA",
    "A/P",
    "CB",
    "EDIT",
    "FILLER",
    "IP",
    "SU",
}
"""Types of lines beside SPEAKER, which do not say who speaks when."""


def read_lines(path: Path, *, file_id: str | None = None) -> Iterator[Entry]:
    """Yield the turns of a recording.

    Raises:
        BadTranscript: A line is not RTTM, or there are several recordings and none of them is this one.
    """
    turns, skipped = [], Counter[str]()
    for number, line in enumerate(split_lines(read_text_file(path)), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        if fields[0] in TYPES:
            skipped[f"of type {fields[0]}"] += 1
        else:
            turns.append(_parse(path, number, fields))
    name = choose_recording(path, (recording for recording, _ in turns), file_id)
    log_skipped(path, skipped, len(turns) + skipped.total())
    yield from (entry for recording, entry in turns if recording == name)


def _parse(path: Path, number: int, fields: list[str]) -> tuple[str, Entry]:
    if fields[0] != "SPEAKER" or len(fields) not in NUM_FIELDS:
        spaces = ", and names without spaces" if fields[0] == "SPEAKER" else ""
        raise BadTranscript(
            f"{path}, line {number}: {shorten(' '.join(fields))}: expected RTTM with 10 fields{spaces}, such as "
            f"{EXAMPLE}"
        )
    try:
        start, seconds = float(fields[3]), float(fields[4])
    except ValueError:
        raise BadTranscript(
            f"{path}, line {number}: {fields[3]!r} and {fields[4]!r}: expected the start and the duration in seconds, "
            "such as "
            f"{EXAMPLE}"
        ) from None
    speaker = None if fields[7] == "<NA>" else fields[7]
    return fields[1], Entry(f"line {number}", start, round(start + seconds, 6), speaker)
