"""Score a new bundle and linear probes on the test subset, and list the corpora that it was trained on: results.json."""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import Pipeline
from affekt.bundle.text_encoders import load_text_encoders
from affekt.corpora.source import Source
from affekt.evaluation.comparison import compare
from affekt.evaluation.probe import linear_probe, mean_and_std
from affekt.evaluation.scores import Scores, score
from affekt.features.base import Feature
from affekt.features.extract import extract
from affekt.features.whisper import LogMelConfig, LogMelFrames
from affekt.inference.onnx import Graph
from affekt.inference.recognizer import Recognizer
from affekt.progress import Progress
from affekt.protocols import Split, utterance_key
from affekt.runs.selection import RULES
from affekt.training.plan import Plan
from affekt.training.recipe import Probe
from affekt.utterance import Utterance, speakers_of
from affekt.workflows.predict import model_inputs, predict_torch
from affekt.workflows.train_detector import KindResult, score_detector
from affekt.workflows.training_data import TrainingData

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeComparison:
    """The model compared with a linear probe on the same utterances."""

    value: float
    """The difference of UA, model minus probe."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of the difference over speakers; None below 10 speakers."""
    better: int
    """The number of utterances that only the model classifies correctly."""
    worse: int
    """The number of utterances that only the probe classifies correctly."""
    p: float
    """The two-sided p-value of McNemar's exact test."""


@dataclass(frozen=True)
class ProbeScores(Scores):
    """The scores of a linear probe."""

    against: ProbeComparison


@dataclass(frozen=True)
class CorpusResults:
    """The results on the test utterances of one corpus."""

    title: str
    language: str
    style: str
    note: str
    speakers: int | None
    """Number of speakers; None where not all are known."""
    model: Scores
    counts: dict[str, int]
    """Utterances of each emotion."""
    probes: dict[str, ProbeScores]


@dataclass(frozen=True)
class CorpusEntry:
    """A corpus that was trained on."""

    corpus: str
    title: str
    note: str
    license: str
    source: str
    alteration: str
    utterances: int
    speakers: int | None
    """Number of speakers; None where not all are known."""
    by: str
    """The id of the earlier bundle that was trained on it; "" for this one."""


@dataclass(frozen=True)
class Machine:
    """The properties of a machine that must be the same for a bit-identical repetition of a training run."""

    processor: str
    threads: int
    torch: str
    python: str


@dataclass(frozen=True)
class BundleResults:
    """The contents of results.json: all numbers on the model card, and how they were obtained."""

    model: str
    protocol: str
    selection: str
    scores: dict[str, CorpusResults]
    data: list[CorpusEntry]
    agreement: float
    """The largest absolute difference between a probability of the ONNX file and the same probability in torch."""
    machine: Machine
    detector: dict[str, KindResult]
    """Kind of held-out sounds -> how many of them the ONNX file refuses; {} unless the bundle's own detector was trained."""


def score_bundle(
    plan: Plan,
    bundle: Bundle,
    pipeline: Pipeline,
    data: TrainingData,
    split: Split,
    predictions: NDArray[np.float64],
    *,
    progress: Progress | None = None,
) -> BundleResults:
    """Score the bundle's ONNX file and the recipe's probes on the test subset, and list the training corpora.

    Args:
        plan: The plan of the training runs.
        bundle: The bundle, without results.json and card.
        pipeline: The network of the bundle.
        data: The utterances of the corpora.
        split: The split of the runs.
        predictions: The probabilities of the bundle's ONNX file for the test subset, (utterances, emotions).
        progress: Called with the progress of feature extraction for the probes.
    """
    keys = split.subsets["test"]
    utterances, labels = data.select(keys), data.label_indices(keys)
    probes = {probe.name: _probe_predictions(plan, probe, data, split, progress) for probe in plan.recipe.probes}
    corpora = np.array([utterance.corpus for utterance in utterances])
    scores = {}
    for source in plan.recipe.sources:
        in_corpus = corpora == source.id
        if in_corpus.any():
            scores[source.id] = _score_corpus(
                source,
                [utterance for utterance in utterances if utterance.corpus == source.id],
                labels[in_corpus],
                predictions[in_corpus],
                {name: probabilities[in_corpus] for name, probabilities in probes.items()},
                data.labels.emotions,
            )
    return BundleResults(
        model=bundle.id,
        protocol=split.line("test"),
        selection=RULES[plan.recipe.selection],
        scores=scores,
        data=list_training_corpora(plan, data, split),
        agreement=largest_difference(bundle, pipeline, utterances[::20]),
        machine=Machine(_processor(), torch.get_num_threads(), torch.__version__, platform.python_version()),
        detector=score_detector(Recognizer.load(bundle.folder), plan.recipe.detector) if plan.recipe.detector else {},
    )


def _score_corpus(
    source: Source,
    utterances: Sequence[Utterance],
    labels: NDArray[np.int64],
    predictions: NDArray[np.float64],
    probes: Mapping[str, NDArray[np.float64]],
    emotions: Sequence[str],
) -> CorpusResults:
    """Score the model and the probes on one corpus."""
    speakers, units = speakers_of(utterances), [utterance_key(utterance) for utterance in utterances]

    def score_probe(probabilities: NDArray[np.float64]) -> ProbeScores:
        scores = score(labels, probabilities, emotions, speakers, units=units)
        comparison = compare(labels, {0: predictions}, {0: probabilities}, speakers)
        test = comparison.by_seed[0].mcnemar
        interval = comparison.interval if comparison.resampled == "speakers" else None
        return ProbeScores(
            **vars(scores), against=ProbeComparison(comparison.value, interval, test.better, test.worse, test.p)
        )

    return CorpusResults(
        title=source.title,
        language=source.language or source.corpus.language,
        style=source.corpus.style,
        note=source.note,
        speakers=len(set(speakers)) if speakers else None,
        model=score(labels, predictions, emotions, speakers, units=units),
        counts=dict(Counter(emotions[label] for label in labels)),
        probes={name: score_probe(probabilities) for name, probabilities in probes.items()},
    )


def list_training_corpora(plan: Plan, data: TrainingData, split: Split) -> list[CorpusEntry]:
    """Return the corpora that were trained on, followed by those of the bundle that training started from."""
    entries = []
    for source in plan.recipe.sources:
        utterances = [u for u in data.select(split.subsets["train"]) if u.corpus == source.id]
        speakers = speakers_of(utterances)
        entries.append(
            CorpusEntry(
                corpus=source.id,
                title=source.title,
                note=source.note,
                license=source.corpus.license,
                source=source.corpus.source if source.corpus.license else "",
                alteration=source.corpus.alteration if source.is_altered else "",
                utterances=len(utterances),
                speakers=len(set(speakers)) if speakers else None,
                by="",
            )
        )
    if plan.origin:
        for earlier in plan.origin.results.get("data", ()):
            entries.append(CorpusEntry(**{**earlier, "by": earlier["by"] or plan.origin.id}))
    return entries


def largest_difference(bundle: Bundle, pipeline: Pipeline, utterances: Sequence[Utterance]) -> float:
    """Return the largest absolute difference between the pipeline's probabilities and those of the ONNX file.

    Utterances are predicted as a whole, and none is refused.
    """
    graph, encoders = Graph.load(bundle), load_text_encoders(bundle)
    takes_audio = "waveform" in graph.inputs
    exported = [
        graph.run(model_inputs(utterance, takes_audio, encoders), ["probabilities"])["probabilities"][0]
        for utterance in utterances
    ]
    return float(np.abs(predict_torch(pipeline, encoders, utterances) - exported).max(initial=0))


def _probe_predictions(
    plan: Plan, probe: Probe, data: TrainingData, split: Split, progress: Progress | None
) -> NDArray[np.float64]:
    """Train a linear probe on the features from before training, and return its probabilities on the test subset."""
    logger.info("probe: %s", probe.name)
    feature: Feature = LogMelFrames(LogMelConfig())
    name, columns = "log-mel", np.arange(feature.dim)
    if probe.blocks:
        feature, name = plan.frozen_features["speech"], plan.features["speech"].name
        width = feature.dim // feature.num_states
        starts = [feature.config.blocks.index(block) * width for block in probe.blocks]
        columns = np.concatenate([start + np.arange(width) for start in starts])

    def pool_features(subset: str) -> NDArray[np.float64]:
        utterances, device = data.select(split.subsets[subset]), plan.recipe.training.device
        stored = extract(feature, name, utterances, progress=progress, device=device)
        return mean_and_std(frames[:, columns] for frames in stored)

    labels = data.label_indices(split.subsets["train"])
    train, test = pool_features("train"), pool_features("test")
    return linear_probe(train, labels, test, num_emotions=len(data.labels), strength=probe.strength)


def _processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def pretraining_corpora(bundle: Bundle) -> set[str]:
    """Return the ids of the corpora that a bundle was trained on before fine-tuning."""
    return {entry["corpus"] for entry in bundle.results.get("data", ()) if entry["by"]}
