"""The cost of a model: parameters, operations by torch's counter and by its paper's rule, and the encoders before it.

All numbers are for one utterance at inference. Counting allocates no weights. Measuring runs the model in a separate process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from affekt.config import decode_named, encode, override
from affekt.cost.count import count_operations, on_meta
from affekt.cost.encoders import EncoderCost, encoders_of
from affekt.cost.measure import Measurement, measure
from affekt.cost.sizes import build_zero_batch, default_frames, requested_frames
from affekt.errors import BadConfig
from affekt.models import models

__all__ = ["Cost", "EncoderCost", "Measurement", "cost"]


@dataclass(frozen=True)
class Cost:
    """The cost of one model."""

    model: str
    emotions: int
    """The number of emotions."""
    frames: Mapping[str, int]
    """Frames by stream; 0 for a stream without a time axis."""
    parameters: int
    """The number of trained parameters."""
    frozen_parameters: int
    """The number of parameters in the model that are not trained."""
    paper_flops: int | None
    """Operations by the counting rule of the paper's table; None if the paper states no number."""
    flops: int
    """Operations by torch's counter; a multiply-add is two."""
    latency_ms: float | None
    """The median time for one utterance; None if it was not measured."""
    peak_memory_mb: float | None
    """The increase of the resident memory, including weights, in 2**20 bytes; None if it was not measured."""
    threads: int | None
    """The number of threads that the measurements used."""
    encoders: tuple[EncoderCost, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content for JSON."""
        return asdict(self) | {"encoders": [asdict(encoder) for encoder in self.encoders]}


def cost(
    name: str,
    *,
    frames: Mapping[str, int] | int | None = None,
    emotions: int | None = None,
    settings: Sequence[str] = (),
    measured: bool = False,
    threads: int = 1,
) -> Cost:
    """Return the cost of a model, at its paper's sizes unless they are given.

    Args:
        name: A model, or one of its presets ("mstr-small").
        frames: The number of frames by stream, or that of speech (of the first stream with a time axis, if
            there is no speech).
        emotions: The number of emotions; None for the paper's.
        settings: Assignments `key=value` to the model's config.
        measured: Also measure latency and memory.
        threads: The number of threads to measure with.

    Raises:
        UnknownName: There is no such model.
        BadConfig: The model does not have these settings, streams or sizes.
    """
    if emotions is not None and emotions < 2:
        raise BadConfig(f"{emotions} classes: expected 2 or more")
    models.resolve(name)  # an unknown name raises UnknownName here; decode_named would raise BadConfig
    kind, config = decode_named(models, {**override({}, list(settings)), "name": name}, name)
    emotions = emotions or kind.paper.num_emotions
    requested = requested_frames(kind, config, frames)
    config = kind.for_lengths(config, requested) if requested else config
    model = on_meta(lambda: kind(config, emotions))
    num_frames = {stream: requested.get(stream, default_frames(model, config, stream)) for stream in model.streams}
    batch = on_meta(lambda: build_zero_batch(model, num_frames))
    result = measure(name, encode(config), emotions, num_frames, threads) if measured else Measurement(None, None, None)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Cost(
        model=name,
        emotions=emotions,
        frames=num_frames,
        parameters=trained,
        frozen_parameters=sum(p.numel() for p in model.parameters()) - trained,
        paper_flops=model.paper_flops(num_frames),
        flops=count_operations(lambda: model(batch)),
        latency_ms=result.latency_ms,
        peak_memory_mb=result.peak_memory_mb,
        threads=result.threads,
        encoders=encoders_of(type(model), num_frames),
    )
