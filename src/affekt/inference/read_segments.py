"""Read a source as the windows that are recognized one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from affekt.audio.read import AudioSource, Notes, blocks
from affekt.audio.time_limit import limited_blocks
from affekt.inference.segments import Segment, cut_segments
from affekt.inference.speech_rule import Vad, judge_window


def read_segments(
    source: AudioSource,
    sample_rate: float | None,
    *,
    vad: Vad,
    lenient: bool,
    timeout: float | None,
    notes: Notes,
    max_seconds: float | None = None,
) -> Iterator[Segment]:
    """Yield the windows of a source, with their seconds of speech by the setting `vad`."""
    options: dict[str, Any] = {"lenient": lenient, "notes": notes, "max_seconds": max_seconds}
    if timeout is None:
        read = blocks(source, sample_rate, **options)
    else:
        read = limited_blocks(source, sample_rate, timeout=timeout, with_consumer=True, **options)
    return (judge_window(segment, vad) for segment in cut_segments(read))
