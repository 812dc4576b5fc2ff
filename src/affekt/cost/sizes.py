"""The number of frames of each stream, and a batch of that size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from affekt.batch import Batch, Stream
from affekt.errors import BadConfig
from affekt.models.base import EmotionModel
from affekt.registry import did_you_mean


def requested_frames(
    kind: type[EmotionModel], config: Any, requested: Mapping[str, int] | int | None
) -> dict[str, int]:
    """Return the requested numbers of frames by stream.

    Args:
        kind: The model's class.
        config: The model's settings.
        requested: By stream, or one number for speech, or for the first stream with a time axis if there is no speech.

    Raises:
        BadConfig: The model has no such stream, or the number is not positive.
    """
    timed = [stream for stream in kind.streams_of(config) if kind.paper.frames[stream]]
    if isinstance(requested, int):
        requested = {"speech" if "speech" in timed else timed[0]: requested}
    for stream, count in (requested or {}).items():
        if stream not in timed:
            raise BadConfig(
                f"frames of {stream!r}{did_you_mean(stream, timed)}: the model has frames of {' and '.join(timed)}"
            )
        if count < 1:
            raise BadConfig(f"{count} frames of {stream!r}: expected 1 or more")
    return dict(requested or {})


def default_frames(model: EmotionModel, config: Any, stream: str) -> int:
    """Return the number of frames of a stream if none is requested: the model's fixed number, or else the paper's.

    The fixed number counts frames after a model with a `stride` has averaged every `stride` frames into one.
    """
    if stream not in model.lengths:
        return model.paper.frames[stream]
    return model.lengths[stream] * int(getattr(config, "stride", 1))


def build_zero_batch(model: EmotionModel, frames: Mapping[str, int]) -> Batch:
    """Return a batch of one utterance without padding, whose features are zeros."""
    streams = {}
    for name in model.streams:
        count, dim = frames[name], model.dims[name]
        if count:
            streams[name] = Stream(torch.zeros(1, count, dim), torch.ones(1, count, dtype=torch.bool))
        else:
            streams[name] = Stream(torch.zeros(1, dim))
    return Batch(streams)
