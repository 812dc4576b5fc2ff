"""The rule that decides whether a waveform gets an emotion: the same for short clips, windows and segments of a timeline.

- Digital silence has the status `silence`, whatever the setting.
- With `vad="off"`, everything else gets an emotion.
- With `vad="auto"`, sound without speech has the status `no_speech`. In a recording that is recognized as a whole, or in
  windows cut at pauses, the pauses by energy and the model's own speech detector decide. In a timeline, voice activity
  detection (`affekt.inference.voice_activity`) and the model's detector decide: both must find speech.
- With `vad="on"`, voice activity detection also judges recordings as a whole and their windows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast, get_args

from affekt.audio.read import SAMPLE_RATE
from affekt.errors import BadConfig
from affekt.inference.row import Status
from affekt.inference.segments import Segment

Vad = Literal["off", "auto", "on"]


def check_vad(vad: str) -> Vad:
    """Return the setting `vad`. Raises `BadConfig` if it is unknown."""
    if vad not in get_args(Vad):
        raise BadConfig(f"vad {vad!r}: expected {', '.join(get_args(Vad))}")
    return cast(Vad, vad)


def judge_window(segment: Segment, vad: Vad) -> Segment:
    """Return a window, cut by energy, with the seconds of speech that it has by the setting `vad`; 0 for no speech."""
    if vad == "off":
        return replace(segment, speech=segment.speech or segment.waveform.size / SAMPLE_RATE)
    if vad == "on" and segment.speech:
        from affekt.inference.voice_activity import has_speech

        return segment if has_speech(segment.waveform) else replace(segment, speech=0.0)
    return segment


def find_status(*, is_silent: bool, speech: float) -> Status | None:
    """Return the status of a segment that gets no emotion; None for one that is passed to the model.

    Args:
        is_silent: Whether it is digital silence.
        speech: Its seconds of speech.
    """
    if is_silent:
        return "silence"
    return None if speech else "no_speech"
