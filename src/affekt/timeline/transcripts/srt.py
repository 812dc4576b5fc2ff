"""SubRip (.srt): numbered cues. Its text may have tags and blank lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from affekt.errors import BadTranscript
from affekt.tabular.text import split_lines
from affekt.timeline.transcripts.cues import ARROW, LOOKS_LIKE_TIMES, parse_times, split_speaker
from affekt.timeline.transcripts.entries import Entry, clean, log_skipped, read_text_file, shorten

MARKUP = re.compile(r"</?(?:i|b|u|s|font|c|v)(?:[\s=.][^<>]*)?>|\{\\[^{}]*\}", re.IGNORECASE)
"""Tags of HTML and of SubStation Alpha (`{\\an8}`), which subtitles contain."""


def read_srt(path: Path) -> Iterator[Entry]:
    """Yield the cues that have text.

    Raises:
        BadTranscript: A line of times is damaged, or text precedes the first cue.
    """
    lines = [line.rstrip("\r\n") for line in split_lines(read_text_file(path))]
    starts = [index for index, line in enumerate(lines) if _is_times(path, index + 1, line)]
    _check_beginning(path, lines, starts)
    skipped = Counter[str]()
    for index, following in zip(starts, [*starts[1:], len(lines)], strict=True):
        start, end = parse_times(path, index + 1, lines[index])
        last = following - 1 if following < len(lines) and _is_number(lines[following - 1]) else following
        _check_numbers(path, lines, index, last)
        speaker, text = split_speaker(MARKUP.sub("", " ".join(lines[index + 1 : last])).strip())
        if cleaned := clean(text):
            yield Entry(f"line {index + 1}", start, end, speaker, cleaned)
        else:
            skipped["without text"] += 1
    log_skipped(path, skipped, len(starts))


def _is_times(path: Path, number: int, line: str) -> bool:
    """Return whether a line has the times of a cue; raise `BadTranscript` if it seems to have damaged ones."""
    if ARROW in line:
        parse_times(path, number, line)
        return True
    if LOOKS_LIKE_TIMES.fullmatch(line):
        parse_times(path, number, line)  # raises an error: there is no arrow
    return False


def _is_number(line: str) -> bool:
    return line.strip().isdecimal() and len(line) < 20


def _check_numbers(path: Path, lines: list[str], times: int, last: int) -> None:
    """Raise `BadTranscript` if the text of a cue seems to contain the next cue: a blank line, and the next number."""
    if times == 0 or not _is_number(lines[times - 1]):
        return
    following = str(int(lines[times - 1]) + 1)
    for index in range(times + 2, last - 1):
        if lines[index].strip() == following and not lines[index - 1].strip() and lines[index + 1].strip():
            raise BadTranscript(
                f"{path}, line {index + 2}: {shorten(lines[index + 1])}: subtitle {following} has no times: expected "
                "00:01:02,500 --> 00:01:04,000; add the line"
            )


def _check_beginning(path: Path, lines: list[str], starts: list[int]) -> None:
    first = next(index for index, line in enumerate(lines) if line.strip())
    if starts and (first == starts[0] or (first == starts[0] - 1 and _is_number(lines[first]))):
        return
    hint = "; rename it to .vtt if it is WebVTT" if lines[first].startswith("WEBVTT") else ""
    raise BadTranscript(
        f"{path}, line {first + 1}: {shorten(lines[first])}: expected SRT, which begins with a number, and "
        "00:00:01,000 --> "
        f"00:00:02,500 in the next line{hint}"
    )
