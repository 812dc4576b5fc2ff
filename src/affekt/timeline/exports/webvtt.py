"""A timeline as WebVTT: subtitles with the emotion and the text of each segment, and the speaker as the voice."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from affekt.files import atomic_write_text
from affekt.inference.row import Row
from affekt.plural import quantity
from affekt.timeline.colors import emotion_colors
from affekt.timeline.segment import label_of, text_of
from affekt.timeline.timeline import Timeline

logger = logging.getLogger(__name__)


def write_webvtt(timeline: Timeline, path: Path) -> None:
    """Write a cue per segment with an emotion or a text: `<v Anna><c.happy>[happy]</c> We won!`."""
    cues = [cue for segment in timeline.segments if (cue := _cue(segment))]
    if without := len(timeline.segments) - len(cues):
        logger.info("%s: %s without emotion and text have no cue", path, quantity(without, "segment"))
    styles = "\n".join(
        f"::cue(c.{_css_class(emotion)}) {{ color: {color}; }}"
        for emotion, color in emotion_colors(timeline.emotions).items()
    )
    numbered = (f"{number}\n{cue}" for number, cue in enumerate(cues, start=1))
    note = f"NOTE emotions by {_escape(timeline.model)}, {_escape(timeline.segmentation)}"
    atomic_write_text(path, "\n\n".join(["WEBVTT", note, f"STYLE\n{styles}", *numbered]) + "\n")


def _cue(segment: Row) -> str | None:
    label, text = label_of(segment), text_of(segment)
    if not (label or text):
        return None
    emotion = f"<c.{_css_class(label)}>[{_escape(label)}]</c>" if label else ""
    payload = " ".join(filter(None, (emotion, _escape(text))))
    speaker = " ".join(segment.get("speaker", "").split())
    voice = f"<v {_escape(speaker)}>" if speaker else ""
    return f"{_time(segment.start)} --> {_time(segment.end)}\n{voice}{payload}"


def _time(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest / 1000:06.3f}"


def _escape(text: str) -> str:
    """Return a text in which nothing is markup, and no arrow looks like a line of times."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _css_class(emotion: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", emotion)
