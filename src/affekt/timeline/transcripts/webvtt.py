"""WebVTT (.vtt, https://www.w3.org/TR/webvtt1): cues with voices. Comments, styles, regions and settings are
ignored."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from affekt.errors import BadTranscript
from affekt.tabular.text import split_lines
from affekt.timeline.transcripts.cues import ARROW, parse_times, split_speaker
from affekt.timeline.transcripts.entries import Entry, clean, log_skipped, read_text_file, shorten

SIGNATURE = re.compile(r"\ufeff?WEBVTT(?:[ \t].*)?")
OTHER_BLOCK = re.compile(r"(?:NOTE|STYLE|REGION)(?:[ \t].*)?")
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?(?:[ \t]+([^<>]*))?>|(</v>)")
TAG = re.compile(r"<[^<>]*>")


def read_webvtt(path: Path) -> Iterator[Entry]:
    """Yield the cues that have text; a cue with several voices becomes an entry for each, with the same times.

    Raises:
        BadTranscript: The signature is missing, or a block is neither a cue nor a comment, style or region.
    """
    lines = [line.rstrip("\r\n") for line in split_lines(read_text_file(path))]
    if not SIGNATURE.fullmatch(lines[0]):
        hint = "; rename it to .srt if it is SRT" if any(ARROW in line for line in lines[:3]) else ""
        raise BadTranscript(f"{path}, line 1: {shorten(lines[0])}: expected WebVTT, which begins with WEBVTT{hint}")
    skipped, total = Counter[str](), 0
    for begin, block in _blocks(lines):
        if OTHER_BLOCK.fullmatch(block[0]):
            continue
        times = 0 if ARROW in block[0] else 1
        if len(block) <= times or ARROW not in block[times]:
            raise BadTranscript(
                f"{path}, line {begin}: {shorten(block[0])}: expected a cue's times (00:01.000 --> 00:02.500), or its "
                "name and "
                "then the times; mark comments with NOTE"
            )
        total += 1
        start, end = parse_times(path, begin + times, block[times])
        voices = _voices("\n".join(block[times + 1 :]))
        skipped["without text"] += not voices
        for speaker, text in voices:
            yield Entry(f"line {begin + times}", start, end, speaker, text)
    log_skipped(path, skipped, total)


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the blocks after the header, with the number of the first line. Each line of times begins a cue."""
    header = next((index for index, line in enumerate(lines) if not line.strip() or ARROW in line), len(lines))
    block: list[str] = []
    for index in range(header, len(lines) + 1):
        line = lines[index] if index < len(lines) else ""
        is_next_cue = ARROW in line and any(ARROW in previous for previous in block)
        if block and (not line.strip() or is_next_cue):
            yield index - len(block) + 1, block
            block = []
        if line.strip():
            block.append(line)


def _voices(payload: str) -> list[tuple[str | None, str]]:
    """Return the texts of a cue by speaker, in order. Tags are removed and references of characters replaced."""
    texts: dict[str | None, list[str]] = {}
    speaker, position = None, 0
    for match in [*VOICE.finditer(payload), None]:
        text = payload[position : match.start() if match else len(payload)]
        if cleaned := clean(html.unescape(TAG.sub("", text))):
            named, cleaned = (speaker, cleaned) if speaker else split_speaker(cleaned)
            texts.setdefault(named, []).append(cleaned)
        if match:
            speaker, position = None if match[2] else clean(html.unescape(match[1] or "")), match.end()
    return [(name, " ".join(parts)) for name, parts in texts.items()]
