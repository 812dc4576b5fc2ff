"""What a model costs: parameters, operations by torch's counter and by its paper's rule, and the encoders before it.

Everything is of one utterance at inference, filling the frames that are asked for. Counting allocates no weights; measuring
runs the model in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from affekt.config import decode_named, encode, override
from affekt.cost.count import count_operations, on_meta
from affekt.cost.encoders import EncoderCost, encoders_of
from affekt.cost.measure import Measured, measure
from affekt.cost.sizes import asked_frames, example, usual_frames
from affekt.errors import BadConfig
from affekt.models import models

__all__ = ["Cost", "EncoderCost", "Measured", "cost"]


@dataclass(frozen=True)
class Cost:
    """frames: of each stream, 0 for one without time. parameters: trained; frozen_parameters: within the model, but not.
    paper_flops: by the rule behind the paper's table, None where it prints none. flops: a multiply-add is two.
    latency_ms: median of one utterance on so many threads of this machine's processor; peak_memory_mb: rise of the resident
    memory, weights included, in 2**20 bytes; both None where nothing was measured."""

    model: str
    emotions: int
    frames: Mapping[str, int]
    parameters: int
    frozen_parameters: int
    paper_flops: int | None
    flops: int
    latency_ms: float | None
    peak_memory_mb: float | None
    threads: int | None
    encoders: tuple[EncoderCost, ...]

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"encoders": [asdict(one) for one in self.encoders]}


def cost(
    name: str,
    *,
    frames: Mapping[str, int] | int | None = None,
    emotions: int | None = None,
    settings: Sequence[str] = (),
    measured: bool = False,
    threads: int = 1,
) -> Cost:
    """The cost of a model, or of NAME-PRESET, at its paper's sizes but for what is given.

    frames: of streams by name, or of speech (else the first stream that has time). settings: `key=value` of the model's.
    Raises `UnknownName` for the model, `BadConfig` for settings, streams and sizes that it has not.
    """
    if emotions is not None and emotions < 2:
        raise BadConfig(f"{emotions} classes: expected 2 or more")
    models.resolve(name)  # a misspelt name is said as such, not as a section's
    kind, config = decode_named(models, {**override({}, list(settings)), "name": name}, name)
    emotions = emotions or kind.paper.num_emotions
    asked = asked_frames(kind, config, frames)
    config = kind.for_lengths(config, asked) if asked else config
    model = on_meta(lambda: kind(config, emotions))
    given = {stream: asked.get(stream, usual_frames(model, config, stream)) for stream in model.streams}
    batch = on_meta(lambda: example(model, given))
    found = measure(name, encode(config), emotions, given, threads) if measured else Measured(None, None, None)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Cost(
        model=name,
        emotions=emotions,
        frames=given,
        parameters=trained,
        frozen_parameters=sum(p.numel() for p in model.parameters()) - trained,
        paper_flops=model.paper_flops(given),
        flops=count_operations(lambda: model(batch)),
        latency_ms=found.latency_ms,
        peak_memory_mb=found.peak_memory_mb,
        threads=found.threads,
        encoders=encoders_of(type(model), given),
    )
