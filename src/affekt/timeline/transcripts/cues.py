"""Cues, which SRT and WebVTT have in common: a line of times, and lines of text."""

from __future__ import annotations

import re
from pathlib import Path

from affekt.errors import BadTranscript
from affekt.timeline.transcripts.entries import shorten

ARROW = "-->"
TIMES = re.compile(r"\s*(\S.*?)\s*-->\s*(\S+)(?:\s.*)?")
TIME = re.compile(r"(-?)(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})(?:[,.](\d{1,9}))?")
LOOKS_LIKE_TIMES = re.compile(r"\s*-?(?:\d+:)?\d{1,2}:\d{1,2}[,.]\d+\W{0,6}(?:(?:\d+:)?\d{1,2}:\d{1,2}[,.]\d+.*)?")
"""A line of times with a damaged arrow, or with one time."""
DIARIZED = re.compile(r"\[(SPEAKER_\d+)\]:\s*")
"""The speaker at the beginning of a cue's text in the subtitles that WhisperX writes."""


def parse_times(path: Path, number: int, line: str) -> tuple[float, float]:
    """Return start and end of a cue in seconds.

    Raises:
        BadTranscript: The line has other contents.
    """
    match = TIMES.fullmatch(line)
    if not match:
        raise _bad_times(path, number, line)
    return _seconds(path, number, match[1]), _seconds(path, number, match[2])


def _seconds(path: Path, number: int, text: str) -> float:
    match = TIME.fullmatch(text)
    if not match or int(match[3]) > 59 or int(match[4]) > 59:
        raise _bad_times(path, number, text)
    sign, hours, minutes, seconds, fraction = match.groups()
    time = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{fraction or 0}")
    return -time if sign else time


def _bad_times(path: Path, number: int, text: str) -> BadTranscript:
    return BadTranscript(
        f"{path}, line {number}: {shorten(text.strip())} has no valid times: expected 00:01:02,500 --> 00:01:04,000 "
        "(in WebVTT "
        "with a point); correct the line"
    )


def split_speaker(text: str) -> tuple[str | None, str]:
    """Return the speaker that WhisperX writes before the text, or None, and the text without it."""
    match = DIARIZED.match(text)
    return (match[1], text[match.end() :]) if match else (None, text)
