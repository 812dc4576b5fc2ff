"""From finished runs to a bundle: weights rounded, exported to ONNX, scored as a user would run it, and described."""

from __future__ import annotations

import copy
import json
import logging
import platform
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import affekt
from affekt.bundle.export import export_onnx
from affekt.bundle.folder import Bundle, write_labels
from affekt.bundle.pipeline import Pipeline, round_to_half, save_weights
from affekt.config import encode, to_toml
from affekt.corpora.source import Source
from affekt.errors import BadOutput
from affekt.evaluation.calibration import fit_temperature
from affekt.evaluation.comparison import Comparison, compare
from affekt.evaluation.probe import linear_probe, mean_and_std
from affekt.evaluation.scores import Scores, score
from affekt.features.base import Feature
from affekt.features.extract import extract
from affekt.features.whisper import LogMelConfig, LogMelFrames
from affekt.files import atomic_folder
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.progress import Progress
from affekt.protocols import Split, key
from affekt.reports.card import card
from affekt.runs.folder import Run
from affekt.runs.selection import RULES, select_epoch
from affekt.training.checkpoint import load_state
from affekt.training.finetuning import FineTuned, feature_spec
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Probe, Recipe
from affekt.utterance import Utterance
from affekt.workflows.predict import predict_onnx, predict_torch, text_encoders
from affekt.workflows.train import check_one_model
from affekt.workflows.training_data import TrainingData, speakers_of

logger = logging.getLogger(__name__)


def make_bundle(
    recipe: Recipe | Plan,
    runs: Sequence[Run],
    folder: Path,
    *,
    data: TrainingData | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Bundle:
    """Make a bundle of a recipe's finished runs of one fold.

    The bundle is built in another folder and renamed when it is complete.

    Args:
        recipe: The recipe of the runs, or the plan that it resolves to.
        runs: The runs, one for each seed.
        folder: The bundle's folder.
        data: The recipe's training data, if they were read already.
        command: The command that makes the bundle, if it is not the training of the recipe.
        progress: Called with the progress of feature extraction.

    Raises:
        BadConfig: The runs do not make one model.
        BadOutput: The folder holds something that is not a bundle.
    """
    check_output(folder)
    folder = folder.resolve()
    plan = recipe if isinstance(recipe, Plan) else resolve(recipe)
    data = data or TrainingData.read(plan.recipe)
    pipeline, epochs = assemble_pipeline(plan, runs, data.labels)
    pipeline = copy.deepcopy(pipeline)  # the plan's frozen features, which are rounded here, are used again
    round_to_half(pipeline)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder, replace=True) as building:
        save_weights(pipeline, building / "model.safetensors")
        logger.info("exporting to ONNX")
        export_onnx(pipeline, building / "model.onnx", data.labels.emotions)
        write_labels(building, plan.recipe.name, data.labels.emotions)
        for notice in {feature.notice for feature in pipeline.features.values() if feature.notice}:
            shutil.copyfile(notice, building / notice.name)
        split = runs[0].split
        split.save(building / "split.json")
        config = _config(plan, pipeline, data.labels, split, epochs)
        if command:
            config["command"] = command
        (building / "config.toml").write_text(to_toml(config), encoding="utf-8")
        results = describe(plan, Bundle.open(building), pipeline, data, split, progress=progress)
        (building / "results.json").write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")
        (building / "README.md").write_text(card(Bundle.open(building)), encoding="utf-8")
    return Bundle.open(folder)


def check_output(folder: Path) -> None:
    """Raise `BadOutput` if a bundle would overwrite something else: a bundle's folder is replaced as a whole."""
    if (folder / "labels.json").is_file() and (folder / "config.toml").is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadOutput(f"{folder} exists and is not a bundle; choose a new folder so that nothing is overwritten")


def _config(plan: Plan, pipeline: Pipeline, labels: LabelSet, split: Split, epochs: Sequence[int]) -> dict[str, Any]:
    """Return the contents of config.toml."""
    computed = {
        stream: {"name": plan.features[stream].name, **encode(feature.config)}
        for stream, feature in pipeline.features.items()
    }
    config = {
        "name": plan.recipe.name,
        "version": affekt.__version__,
        "members": len(pipeline.models),
        # Text encoders are not in the graph: they are found again by the folder of their weights.
        "features": {**computed, **{stream: _written_section(plan, stream) for stream in pipeline.inputs}},
        "model": {"name": plan.model.name, **encode(pipeline.first.config)},
        "lengths": dict(pipeline.first.lengths),  # frames, of the streams that are cut or padded to one length
        "labels": {"merge": dict(labels.merge), "dialogues": labels.dialogues},
        "protocol": {
            "name": split.title,
            "hash": split.hash,
            "verdict": split.verdict,
            "selection": plan.recipe.selection,
            "epochs": list(epochs),
        },
        "temperature": float(pipeline.temperature),
        "weights": weights_name(plan),
        # The folders of the runs in weights_from are of no use elsewhere: the bundle has their weights.
        "recipe": {name: value for name, value in encode(plan.recipe).items() if name != "weights_from"},
    }
    if plan.origin:
        config["start"] = {"id": plan.origin.id, "name": plan.origin.name}
    return config


def _written_section(plan: Plan, stream: str) -> dict[str, Any]:
    """Return the section of a feature as the recipe, or the bundle to start from, has it."""
    sections = plan.origin.config["features"] if plan.origin else plan.recipe.features
    return dict(sections[stream])


def weights_name(plan: Plan) -> str:
    """Return the name of the speech encoder's weights, also of those in the bundle to start from; "" for none."""
    if plan.origin:
        return str(plan.origin.config.get("weights", ""))
    speech = plan.features.get("speech")
    return Path(speech.folder or "").name if speech else ""


def pretraining_corpora(bundle: Bundle) -> set[str]:
    """Return the corpora of the bundles from which this one was fine-tuned."""
    return {entry["corpus"] for entry in bundle.results.get("data", ()) if entry["by"]}


def assemble_pipeline(plan: Plan, runs: Sequence[Run], labels: LabelSet) -> tuple[Pipeline, list[int]]:
    """Return the runs' selected models behind their features, and the selected epochs."""
    check_one_model(plan.recipe, len({run.split.hash for run in runs}))
    features, members, epochs = plan.build_features(), list[EmotionModel](), []
    for run in runs:
        epochs.append(select_epoch(run, plan.recipe.selection))
        members.append(load_trained_model(plan, run, epochs[-1], features, labels.emotions))
    temperature = plan.recipe.temperature
    if temperature == "fitted":
        predictions = [run.predictions(epoch)["validation"] for run, epoch in zip(runs, epochs, strict=True)]
        temperature = fit_temperature(runs[0].labels("validation"), predictions)
    return join_pipeline(features, members, temperature), epochs


def join_pipeline(
    features: Mapping[str, Feature], members: Sequence[EmotionModel], temperature: float = 1.0
) -> Pipeline:
    """Return a pipeline of the features that take audio and of the models; text streams are its inputs."""
    audio = {stream: feature for stream, feature in features.items() if feature.input == "audio"}
    return Pipeline(audio, members, temperature=temperature).eval()


def load_trained_model(
    plan: Plan, run: Run, epoch: int, features: Mapping[str, Feature], emotions: Sequence[str]
) -> EmotionModel:
    """Return the model of a run's epoch; the weights of a fine-tuned encoder are loaded into the speech feature."""
    specs = {stream: feature_spec(feature) for stream, feature in features.items()}
    model, weights = plan.build_model(specs, emotions), load_state(run.weights_path(epoch))
    if plan.recipe.training.tune == "all":
        FineTuned(features["speech"], model).load(weights)
    else:
        model.load_state_dict(weights)
    return model


@dataclass(frozen=True)
class ProbeScores(Scores):
    """The scores of a linear probe."""

    against: Comparison
    """The model compared with the probe."""


@dataclass(frozen=True)
class CorpusResults:
    """The results on one corpus of the test subset."""

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
    """The properties of a machine on which the bit-identical repetition of a training depends."""

    processor: str
    threads: int
    torch: str
    python: str


@dataclass(frozen=True)
class BundleResults:
    """The contents of results.json: all figures on a card, and how they were obtained."""

    model: str
    protocol: str
    selection: str
    scores: dict[str, CorpusResults]
    data: list[CorpusEntry]
    agreement: float
    """The largest difference of a probability between torch and the ONNX file."""
    machine: Machine


def describe(
    plan: Plan,
    bundle: Bundle,
    pipeline: Pipeline,
    data: TrainingData,
    split: Split,
    *,
    progress: Progress | None = None,
) -> BundleResults:
    """Score the bundle's ONNX file and the probes on the test subset, and describe what it was trained on."""
    keys = split.subsets["test"]
    utterances, labels = data.select(keys), data.label_indices(keys)
    logger.info("recognizing the %d utterances of the test subset", len(utterances))
    predictions = predict_onnx(bundle, utterances)
    probes = {probe.name: _probe_predictions(plan, probe, data, split, progress) for probe in plan.recipe.probes}
    corpora = np.array([utterance.corpus for utterance in utterances])
    scores = {}
    for source in plan.recipe.sources:
        of_corpus = corpora == source.id
        if of_corpus.any():
            part = [utterance for utterance in utterances if utterance.corpus == source.id]
            part_probes = {name: probabilities[of_corpus] for name, probabilities in probes.items()}
            scores[source.id] = _score_corpus(
                source, part, labels[of_corpus], predictions[of_corpus], part_probes, data.labels.emotions
            )
    return BundleResults(
        model=bundle.id,
        protocol=split.line("test"),
        selection=RULES[plan.recipe.selection],
        scores=scores,
        data=trained_on(plan, data, split),
        agreement=largest_difference(bundle, pipeline, utterances[::20], predictions[::20]),
        machine=Machine(_processor(), torch.get_num_threads(), torch.__version__, platform.python_version()),
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
    speakers, units = speakers_of(utterances), [key(utterance) for utterance in utterances]

    def score_probe(probabilities: NDArray[np.float64]) -> ProbeScores:
        scores = score(labels, probabilities, emotions, speakers, units=units)
        return ProbeScores(**vars(scores), against=compare(labels, predictions, probabilities, speakers))

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


def trained_on(plan: Plan, data: TrainingData, split: Split) -> list[CorpusEntry]:
    """Return the corpora that were trained on, then those of the bundle to start from."""
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
                alteration=source.corpus.alteration if source.note else "",
                utterances=len(utterances),
                speakers=len(set(speakers)) if speakers else None,
                by="",
            )
        )
    if plan.origin:
        for earlier in plan.origin.results.get("data", ()):
            entries.append(CorpusEntry(**{**earlier, "by": earlier["by"] or plan.origin.id}))
    return entries


def largest_difference(
    bundle: Bundle, pipeline: Pipeline, utterances: Sequence[Utterance], predictions: NDArray[np.float64]
) -> float:
    """Return the largest difference of a probability between torch and the ONNX file, whose `predictions` are given."""
    return float(np.abs(predict_torch(pipeline, text_encoders(bundle), utterances) - predictions).max())


def _probe_predictions(
    plan: Plan, probe: Probe, data: TrainingData, split: Split, progress: Progress | None
) -> NDArray[np.float64]:
    """Return a probe's probabilities on the test subset; it takes the encoder's states before any training."""
    logger.info("probe: %s", probe.name)
    feature: Feature = LogMelFrames(LogMelConfig())
    name, columns = "log-mel", np.arange(feature.dim)
    if probe.blocks:
        feature, name = plan.frozen_features["speech"], plan.features["speech"].name
        width = feature.dim // feature.num_states
        starts = [feature.config.blocks.index(block) * width for block in probe.blocks]
        columns = np.concatenate([start + np.arange(width) for start in starts])

    def pooled(subset: str) -> NDArray[np.float64]:
        utterances, device = data.select(split.subsets[subset]), plan.recipe.training.device
        stored = extract(feature, name, utterances, progress=progress, device=device)
        return mean_and_std(frames[:, columns] for frames in stored)

    labels = data.label_indices(split.subsets["train"])
    return linear_probe(pooled("train"), labels, pooled("test"), num_emotions=len(data.labels), strength=probe.strength)


def _processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
