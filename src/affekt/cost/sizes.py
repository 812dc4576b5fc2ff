"""How many frames of which stream a model is given, and the settings and the batch that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from affekt.batch import Batch, Stream
from affekt.errors import BadConfig
from affekt.models.base import EmotionModel
from affekt.registry import did_you_mean


def asked_frames(kind: type[EmotionModel], config: Any, asked: Mapping[str, int] | int | None) -> dict[str, int]:
    """By stream; a number alone is speech's, or the first stream's that has time. Raises `BadConfig`."""
    timed = [stream for stream in kind.streams_of(config) if kind.paper.frames[stream]]
    if isinstance(asked, int):
        asked = {"speech" if "speech" in timed else timed[0]: asked}
    for stream, count in (asked or {}).items():
        if stream not in timed:
            raise BadConfig(
                f"frames of {stream!r}{did_you_mean(stream, timed)}: the model has frames of {' and '.join(timed)}"
            )
        if count < 1:
            raise BadConfig(f"{count} frames of {stream!r}: expected 1 or more")
    return dict(asked or {})


def usual_frames(model: EmotionModel, config: Any, stream: str) -> int:
    """Frames of which the model is given none by name: as many as it takes, where it takes one number, or the paper's."""
    if stream not in model.lengths:
        return model.paper.frames[stream]
    return model.lengths[stream] * int(getattr(config, "stride", 1))


def example(model: EmotionModel, frames: Mapping[str, int]) -> Batch:
    """One utterance of so many frames, all of them real."""
    streams = {}
    for name in model.streams:
        count, dim = frames[name], model.dims[name]
        if count:
            streams[name] = Stream(torch.zeros(1, count, dim), torch.ones(1, count, dtype=torch.bool))
        else:
            streams[name] = Stream(torch.zeros(1, dim))
    return Batch(streams)
