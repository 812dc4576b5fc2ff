"""The cost of trained experiments: parameters, operations and latency, separately for the model and its encoders."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from affekt.batch import Batch, Stream
from affekt.config import encode
from affekt.cost.count import count_operations, on_meta
from affekt.cost.measure import measure
from affekt.cost.page import amount
from affekt.errors import AffektError
from affekt.features.base import Feature
from affekt.reports.compare import CompareResult
from affekt.runs.groups import RunGroup, group_runs
from affekt.training.finetuning import feature_spec
from affekt.training.plan import resolve
from affekt.training.recipe import recipe_of

logger = logging.getLogger(__name__)

SECONDS = 3.0
"""Length of the utterance."""
TEXT = "I think I have a doctor's appointment."
"""The utterance's words: a sentence of CREMA-D."""
RUNS = 5


@dataclass(frozen=True)
class RunCost:
    """The cost of one utterance of 3 s at inference, on one thread of this machine's CPU."""

    parameters: int
    """The trained parameters of the model on top of the encoders."""
    flops: int
    """A multiply-add is two."""
    latency_ms: float | None
    encoder_parameters: int
    encoder_flops: int
    """Matrix products and convolutions of the encoders, and of fixed computations such as a log-mel spectrogram."""
    encoder_latency_ms: float

    @property
    def cells(self) -> dict[str, str]:
        """The columns of a table."""
        return {
            "parameters": f"{self.parameters:,}",
            "FLOPs": amount(self.flops),
            "ms": "" if self.latency_ms is None else f"{self.latency_ms:.1f}",
            "encoder parameters": f"{self.encoder_parameters:,}",
            "encoder FLOPs": amount(self.encoder_flops),
            "encoder ms": f"{self.encoder_latency_ms:.1f}",
        }


def with_costs(result: CompareResult, folders: Sequence[Path]) -> CompareResult:
    """Return a comparison with the costs of its experiments; log why one cannot be measured."""
    labels = {row.folder: row.label for row in result.results.rows}
    costs: dict[str, dict[str, Any]] = {}
    for group in group_runs(folders):
        label = next((label for folder, label in labels.items() if _ends_with(group.folder, folder)), None)
        if label is None or label in costs:
            continue
        try:
            costs[label] = run_cost(group).cells
        except AffektError as error:
            logger.warning("no cost of %s: %s", label, error)
    return replace(result, costs=costs)


def _ends_with(folder: Path, ending: str) -> bool:
    parts = Path(ending).parts
    return folder.parts[-len(parts) :] == parts


def run_cost(group: RunGroup) -> RunCost:
    """Return the cost of an experiment's model and of its encoders.

    Raises:
        BadConfig: The encoders of the recipe are missing.
    """
    plan, emotions = resolve(recipe_of(group.runs[0])), group.folds[0].run.emotions
    features = plan.build_features()
    streams, encoder_flops, encoder_ms = _encode(features)
    model = on_meta(lambda: plan.build_model({s: feature_spec(f) for s, f in features.items()}, emotions))
    on_device = {stream: _to_meta(values) for stream, values in streams.items()}
    frames = {stream: s.values.shape[1] if s.values.ndim == 3 else 0 for stream, s in streams.items()}
    name = group.config["model"].get("name")
    settings = encode(model.config)
    return RunCost(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        flops=count_operations(lambda: model(Batch(on_device))),
        latency_ms=measure(name, settings, len(emotions), frames, 1).latency_ms if name else None,
        encoder_parameters=sum(p.numel() for feature in features.values() for p in feature.parameters()),
        encoder_flops=encoder_flops,
        encoder_latency_ms=encoder_ms,
    )


@torch.inference_mode()
def _encode(features: dict[str, Feature]) -> tuple[dict[str, Stream], int, float]:
    """Return the streams of one utterance, the operations that compute them, and the time in ms."""
    generator = torch.Generator().manual_seed(0)

    def run(feature: Feature) -> Stream:
        if feature.input == "text":
            return feature([TEXT])
        return feature(0.1 * torch.randn(1, int(SECONDS * feature.sample_rate), generator=generator))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with FlopCounterMode(display=False) as counter:
            streams = {stream: run(feature.eval()) for stream, feature in features.items()}
        milliseconds = sum(_time(partial(run, feature)) for feature in features.values())
    finally:
        torch.set_num_threads(threads)
    return streams, int(counter.get_total_flops()), milliseconds


def _to_meta(stream: Stream) -> Stream:
    mask = None if stream.mask is None else stream.mask.to("meta")
    return Stream(stream.values.to("meta"), mask)


def _time(call: Callable[[], object]) -> float:
    """Return the median time of a call in ms."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
