"""The plan of a reproduction: counts of the corpora, encoders, disk and expected time, before anything is computed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from affekt.batch import Batch, Stream
from affekt.corpora.inspection import describe
from affekt.corpora.source import Source
from affekt.cost.count import count_operations, on_meta
from affekt.cost.sizes import build_zero_batch, default_frames
from affekt.errors import BadConfig, BadCorpus, BadOutput
from affekt.files import cache_root
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.plural import quantity
from affekt.protocols import Split
from affekt.training.plan import Plan
from affekt.utterance import Utterance
from affekt.workflows.paper_encoders import MeasuredEncoder, encoder_key, measure_encoders
from affekt.workflows.reproduction import Row, Unit
from affekt.workflows.training_data import TrainingData

TOKENS = 20
"""Assumed tokens of an utterance, for the size of stored text features."""
COPIES_OF_WEIGHTS = 5
"""Two files of weights (last and selected epoch), and a checkpoint with weights and both moments of Adam."""
BLOCK = 4096
"""Smallest number of bytes that a stored array occupies on disk."""
MEASURED_BATCH = 8
"""Largest number of utterances in a training step that is timed."""


@dataclass(frozen=True)
class CorpusPlan:
    """A corpus with the label set of some rows."""

    name: str
    root: Path
    labels: str
    utterances: int
    published: int | None
    """The published number of utterances of the label set; None if unknown."""
    hours: float

    @property
    def count(self) -> str:
        """The number of utterances beside the published one."""
        if self.published is None or self.utterances == self.published:
            checked = ", as published" if self.published else ""
            return f"{self.utterances:,} utterances{checked}"
        return f"{self.utterances:,} of {self.published:,} published utterances: NOT the paper's data"

    @property
    def is_complete(self) -> bool:
        return self.published in (None, self.utterances)


@dataclass(frozen=True)
class RowPlan:
    """The runs of a row, with their size and cost."""

    row: Row
    corpora: Sequence[CorpusPlan]
    splits: Sequence[tuple[int, Split]]
    folder: Path
    parameters: int
    """Number of parameters of the largest network."""
    utterance_operations: int
    """Floating-point operations of a prediction of the first network for one utterance."""
    operations: float
    """Floating-point operations of all epochs of one unit."""

    @cached_property
    def units(self) -> list[Unit]:
        """The units, seed after seed."""
        return [
            Unit(fold, seed, self.folder / f"fold-{fold:02}" / f"seed-{seed}")
            for seed in self.row.seeds
            for fold, _ in self.splits
        ]

    @property
    def unfinished(self) -> list[Unit]:
        return [unit for unit in self.units if not self.row.is_finished(unit)]

    @property
    def num_bytes(self) -> int:
        """The size of all run folders."""
        networks = sum(number for _, number in self.row.networks)
        return 4 * COPIES_OF_WEIGHTS * self.parameters * networks * len(self.units)


@dataclass(frozen=True)
class ReproductionPlan:
    """The runs of all rows, with the corpora, features and expected cost."""

    target: str
    folder: Path
    rows: Sequence[RowPlan]
    encoders: Mapping[str, MeasuredEncoder]
    extraction_seconds: float
    feature_bytes: int
    speed: float
    """Floating-point operations per second of training on this machine."""

    def seconds(self, row_plan: RowPlan) -> float:
        """Return the expected duration of the training that is left of a row."""
        return row_plan.operations * len(row_plan.unfinished) / self.speed

    @property
    def training_seconds(self) -> float:
        return sum(map(self.seconds, self.rows))

    @property
    def run_bytes(self) -> int:
        return sum(row_plan.num_bytes for row_plan in self.rows)

    def check_disk(self) -> None:
        """Raise `BadOutput` if the features or the runs do not fit on their disk."""
        for purpose, folder, needed in (
            ("stored features", cache_root(), self.feature_bytes),
            ("run folders", self.folder, self.run_bytes),
        ):
            if needed > (free := free_bytes(folder)):
                raise BadOutput(
                    f"the {purpose} in {folder} need up to {size(needed)}, and {size(free)} are free: free some space, or "
                    "choose another folder with --run or AFFEKT_CACHE, fewer --seeds or fewer --folds"
                )


def make_plan(target: str, rows: Sequence[Row], folder: Path) -> ReproductionPlan:
    """Check corpora and encoders of all rows, and estimate disk and time.

    Raises:
        BadCorpus: A corpus cannot be read.
        BadConfig: An encoder is missing, a setting is wrong, or a folder contains runs of other settings.
    """
    encoders = measure_encoders([(plan, row.encoders) for row in rows for plan, _ in row.networks])
    data: dict[str, TrainingData] = {}
    corpora: dict[tuple[Source, str], CorpusPlan] = {}
    planned = []
    for row in rows:
        recipe = row.plan.recipe
        key = repr((recipe.labels, recipe.corpora))
        if key not in data:
            data[key] = TrainingData.read(recipe)
        for source in recipe.sources:
            if (source, recipe.labels) not in corpora:
                corpora[source, recipe.labels] = _plan_corpus(source, data[key].labels, recipe.labels)
        counted = [corpora[source, recipe.labels] for source in recipe.sources]
        planned.append(_plan_row(row, counted, data[key], encoders, folder))
    first = planned[0].row.plan.recipe
    speed = _measure_speed(planned[0], encoders, data[repr((first.labels, first.corpora))].labels)
    return ReproductionPlan(target, folder, planned, encoders, *_plan_features(planned, encoders), speed)


def _plan_corpus(source: Source, labels: LabelSet, name: str) -> CorpusPlan:
    description = describe(source, labels)
    matching = [entry for entry in source.corpus.published if entry.labels == name]
    matching = matching or [entry for entry in source.corpus.published if not entry.labels]
    published = sum(entry.utterances for entry in matching) or None
    return CorpusPlan(source.id, source.path, name, description.utterances, published, description.hours)


def _plan_row(
    row: Row, corpora: Sequence[CorpusPlan], data: TrainingData, encoders: Mapping[str, MeasuredEncoder], folder: Path
) -> RowPlan:
    _check_inputs(row, list(data.utterances.values()))
    splits = data.folds(row.plan)
    train = len(splits[0][1].subsets["train"])
    parameters, operations, counts = 0, 0.0, list[int]()
    for plan, number in row.networks:
        try:
            model, network_operations = _count(plan, encoders, data.labels)
        except BadConfig as error:
            raise BadConfig(f"{row.recipe.name}: {error}") from error
        counts.append(network_operations)
        parameters = max(parameters, sum(parameter.numel() for parameter in model.parameters()))
        # A step costs three times as much as a prediction: forward, and gradients of activations and of weights.
        operations += 3.0 * network_operations * train * plan.recipe.training.epochs * number
    return RowPlan(row, corpora, splits, folder / row.recipe.name, parameters, counts[0], operations)


def _check_inputs(row: Row, utterances: Sequence[Utterance]) -> None:
    """Raise `BadCorpus` if utterances lack the audio or the text that the row's networks need."""
    inputs = {plan.features[stream].kind.input for plan, _ in row.networks for stream in plan.streams}
    lacking = {
        "audio": [utterance for utterance in utterances if utterance.audio is None],
        "text": [utterance for utterance in utterances if not utterance.text],
    }
    for kind in sorted(inputs):
        if missing := lacking[kind]:
            raise BadCorpus(
                f"{row.recipe.name} needs {kind}, which {len(missing)} of {len(utterances)} utterances of "
                f"{missing[0].corpus} lack (first {missing[0].id}): complete the corpus, or name another copy with --corpus"
            )


def _count(plan: Plan, encoders: Mapping[str, MeasuredEncoder], labels: LabelSet) -> tuple[EmotionModel, int]:
    """Return a network without weights, and the number of operations for one utterance."""
    specs = {stream: encoders[encoder_key(plan, stream)].spec for stream in plan.streams}
    model = on_meta(lambda: plan.build_model(specs, labels.emotions))
    frames = {stream: default_frames(model, plan.model.config, stream) for stream in model.streams}
    batch = on_meta(lambda: build_zero_batch(model, frames))
    return model, count_operations(lambda: model(batch))


def _measure_speed(row_plan: RowPlan, encoders: Mapping[str, MeasuredEncoder], labels: LabelSet) -> float:
    """Return the operations per second of a row's first network in training, from its fastest step.

    A step has at most MEASURED_BATCH utterances: fewer would mostly measure the time of calls, more would take too long on a
    network of the paper's size.
    """
    plan = row_plan.row.plan
    device, size = plan.recipe.training.device, min(plan.recipe.training.batch_size, MEASURED_BATCH)
    specs = {stream: encoders[encoder_key(plan, stream)].spec for stream in plan.streams}
    model = plan.build_model(specs, labels.emotions).to(device)
    streams = {}
    for stream in model.streams:
        frames = default_frames(model, plan.model.config, stream)
        shape = (size, frames, model.dims[stream]) if frames else (size, model.dims[stream])
        mask = torch.ones(size, frames, dtype=torch.bool, device=device) if frames else None
        streams[stream] = Stream(torch.randn(shape, device=device), mask)
    times: list[float] = []
    while len(times) < 2 or (len(times) < 6 and sum(times[1:]) < 2.0):  # the first step also compiles kernels
        start = time.perf_counter()
        model(Batch(streams)).sum().backward()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 3.0 * row_plan.utterance_operations * size / min(times)


def _plan_features(rows: Sequence[RowPlan], encoders: Mapping[str, MeasuredEncoder]) -> tuple[float, int]:
    """Return the expected seconds of feature extraction and the bytes of the stored features, each encoder counted once."""
    extractions = {
        (encoder_key(plan, stream), corpus): plan.features[stream].kind.input
        for row_plan in rows
        for plan, _ in row_plan.row.networks
        for stream in plan.streams
        for corpus in row_plan.corpora
    }
    seconds, num_bytes = 0.0, 0
    for (key, corpus), kind in extractions.items():
        encoder = encoders[key]
        amount = corpus.utterances if kind == "text" else 3600 * corpus.hours
        seconds += encoder.seconds * amount
        frames = corpus.utterances * (TOKENS if kind == "text" else 1)
        if encoder.spec.has_time and encoder.spec.frame_rate:
            frames = int(3600 * corpus.hours * encoder.spec.frame_rate)
        num_bytes += 2 * frames * encoder.spec.dim + BLOCK * corpus.utterances
    return seconds, num_bytes


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that a folder, which may not exist yet, is on."""
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def size(num_bytes: float) -> str:
    """Format a size: "3.2 GB"."""
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 1000 or unit == "GB":
            break
    return f"{num_bytes:.1f} {unit}"


def duration(seconds: float) -> str:
    """Format a duration with its largest unit: "4 min", "2.5 h", "3.1 days"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def format_plan(plan: ReproductionPlan) -> str:
    """Return the plan as text."""
    rows, lines = plan.rows, [f"{plan.target}: {quantity(len(plan.rows), 'recipe')}"]
    lines += [f"  {remark}; NOT comparable with the paper" for remark in dict.fromkeys(_remarks(rows))]
    lines.append("corpora")
    for corpus in dict.fromkeys(corpus for row_plan in rows for corpus in row_plan.corpora):
        lines.append(f"  {corpus.name}  {corpus.root}: {corpus.count} ({corpus.labels}), {corpus.hours:.2f} h")
    lines.append("encoders")
    lines += [f"  {line}" for line in dict.fromkeys(line for row_plan in rows for line in _encoder_lines(row_plan.row))]
    lines.append("recipes")
    for row_plan in rows:
        lines += [f"  {line}" for line in _row_lines(plan, row_plan)]
    total = plan.extraction_seconds + plan.training_seconds
    lines += [
        f"expected time on {rows[0].row.plan.recipe.training.device}, one process: at least {duration(total)} "
        f"(features {duration(plan.extraction_seconds)} unless stored already, training {duration(plan.training_seconds)})",
        f"disk: features up to {size(plan.feature_bytes)} in {cache_root()} ({size(free_bytes(cache_root()))} free), "
        f"runs up to {size(plan.run_bytes)} in {plan.folder} ({size(free_bytes(plan.folder))} free)",
    ]
    return "\n".join(lines)


def _remarks(rows: Sequence[RowPlan]) -> list[str]:
    return [remark for row_plan in rows for remark in row_plan.row.remarks]


def _encoder_lines(row: Row) -> list[str]:
    return [
        f"{stream}: {row.encoders[stream].title(plan.features[stream].name)}"
        + (f" ({plan.features[stream].path})" if plan.features[stream].folder else "")
        for plan, _ in row.networks
        for stream in plan.streams
    ]


def _row_lines(plan: ReproductionPlan, row_plan: RowPlan) -> list[str]:
    """Return the lines about a row: the paper's figures, what is trained, and the assumptions."""
    published, recipe = row_plan.row.published, row_plan.row.plan.recipe
    scores = ", ".join(f"{name} {round(100 * value, 2):g}" for name, value in published.scores.items())
    confidences = [assumption.confidence for assumption in row_plan.row.recipe.assumptions]
    low = [assumption.setting for assumption in row_plan.row.recipe.assumptions if assumption.confidence == "low"]
    return [
        f"{row_plan.row.recipe.name}: {published.source}, {published.row}; the paper: {scores or 'plotted only'}",
        f"  {row_plan.splits[0][1].name}, {quantity(len(row_plan.splits), 'fold')} x "
        f"{quantity(len(row_plan.row.seeds), 'seed')}, {recipe.training.epochs} epochs, batches of "
        f"{recipe.training.batch_size}, {row_plan.parameters / 1e6:.2f} M parameters; "
        f"{len(row_plan.units) - len(row_plan.unfinished)} of {quantity(len(row_plan.units), 'run')} finished; "
        f"at least {duration(plan.seconds(row_plan))}",
        f"  {quantity(len(confidences), 'assumption')} where the paper is silent, {len(low)} of low confidence"
        + (f": {', '.join(low)}" if low else ""),
    ]
