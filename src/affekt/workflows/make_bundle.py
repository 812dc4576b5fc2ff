"""Make a bundle from finished runs: round the weights, export to ONNX, score the exported file, write the model card."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import affekt
from affekt.bundle.detector import SpeechDetector
from affekt.bundle.export import export_onnx
from affekt.bundle.folder import Bundle, write_labels, write_sums
from affekt.bundle.pipeline import Pipeline, round_to_half, save_weights
from affekt.bundle.training_clips import TrainingClips
from affekt.config import encode, to_toml
from affekt.errors import BadOutput
from affekt.evaluation.calibration import fit_temperature
from affekt.features.base import Feature
from affekt.files import atomic_folder
from affekt.json_text import to_json
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.progress import Progress
from affekt.protocols import Split
from affekt.protocols.official import Official
from affekt.reports.card import card
from affekt.runs.folder import DESCRIPTIONS, Run
from affekt.runs.selection import select_epoch
from affekt.training.checkpoint import load_state
from affekt.training.finetuning import FineTunedModel, feature_spec
from affekt.training.plan import Plan, resolve
from affekt.training.recipe import Recipe
from affekt.workflows.official_split import describe_subsets
from affekt.workflows.record_confidence import record_confidence
from affekt.workflows.reference_statistics import compute_reference
from affekt.workflows.score_bundle import score_bundle
from affekt.workflows.train import check_one_model
from affekt.workflows.train_detector import train_detector
from affekt.workflows.training_data import TrainingData

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
    """Make a bundle from a recipe's finished runs on one fold.

    The bundle is built in a temporary folder, which is renamed when it is complete.

    Args:
        recipe: The recipe of the runs, or the plan that it resolves to.
        runs: The runs, one for each seed.
        folder: The bundle's folder.
        data: The recipe's training data, if already read.
        command: The command that makes the bundle, for the model card, if it is not `affekt train RECIPE`.
        progress: Called with the progress of feature extraction.

    Raises:
        BadConfig: The runs cannot be combined into one model.
        BadOutput: The folder exists, is not empty and is not a bundle.
    """
    check_output(folder)
    folder = folder.resolve()
    plan = recipe if isinstance(recipe, Plan) else resolve(recipe)
    data = data or TrainingData.read(plan.recipe)
    pipeline, epochs = assemble_pipeline(plan, runs, data.labels)
    pipeline.make_adaptable(compute_reference(plan, pipeline.features, data, runs[0].split, progress))
    detector, threshold = _find_detector(plan, pipeline, data, runs[0].split, progress)
    if detector:
        pipeline.set_detector(detector)
    # Rounding must not change the plan's features: the linear probes of `score_bundle` use them.
    pipeline = copy.deepcopy(pipeline)
    round_to_half(pipeline)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder, replace=True) as building:
        save_weights(pipeline, building / "model.safetensors")
        logger.info("exporting to ONNX")
        export_onnx(
            pipeline,
            building / "model.onnx",
            data.labels.emotions,
            speech_threshold=threshold,
            origin=plan.origin,
        )
        write_labels(building, plan.recipe.name, data.labels.emotions)
        for notice in {feature.notice for feature in pipeline.features.values() if feature.notice}:
            shutil.copyfile(notice, building / notice.name)
        split = runs[0].split
        split.save(building / "split.json")
        clips = TrainingClips.of_utterances(data.select(split.subsets["train"]))
        earlier = TrainingClips.of_bundle(plan.origin) if plan.origin else TrainingClips()
        (clips | earlier).write(building)
        config = _build_config(plan, pipeline, data, split, epochs)
        if detector:
            config["detector"] = {"hidden": detector.hidden, "threshold": threshold}
        known = earlier.find(data.select(split.subsets["test"]))
        if plan.origin:
            config["start"] = {"id": plan.origin.id, "name": plan.origin.name, "known_test_utterances": len(known)}
        if command:
            config["command"] = command
        (building / "config.toml").write_text(to_toml(config), encoding="utf-8")
        made = Bundle.open(building)
        predictions = record_confidence(made, data, split, known)
        results = score_bundle(plan, made, pipeline, data, split, predictions, progress=progress)
        (building / "results.json").write_text(to_json(asdict(results), indent=1) + "\n", encoding="utf-8")
        (building / "README.md").write_text(card(Bundle.open(building)), encoding="utf-8")
        write_sums(building)
    return Bundle.open(folder)


def _find_detector(
    plan: Plan, pipeline: Pipeline, data: TrainingData, split: Split, progress: Progress | None
) -> tuple[SpeechDetector | None, float | None]:
    """Return the speech detector and its threshold: a new one, that of the bundle to start from, or none.

    The detector of the bundle to start from can only be used if the encoder has not been trained further.
    """
    if plan.recipe.detector:
        return train_detector(plan, pipeline.features["speech"], data, split, progress)
    if plan.origin and plan.pipeline and plan.pipeline.detector and plan.recipe.training.tune == "head":
        return plan.pipeline.detector, plan.origin.config["detector"]["threshold"]
    return None, None


def check_output(folder: Path) -> None:
    """Raise `BadOutput` if the folder contains anything other than a bundle, since the whole folder would be replaced."""
    if (folder / "labels.json").is_file() and (folder / "config.toml").is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadOutput(f"{folder} exists and is not a bundle; choose a new folder so that nothing is overwritten")


def _build_config(
    plan: Plan, pipeline: Pipeline, data: TrainingData, split: Split, epochs: Sequence[int]
) -> dict[str, Any]:
    """Return the contents of config.toml."""
    computed = {
        stream: {"name": plan.features[stream].name, **encode(feature.config)}
        for stream, feature in pipeline.features.items()
    }
    config: dict[str, Any] = {
        "name": plan.recipe.name,
        "version": affekt.__version__,
        "members": len(pipeline.models),
        # Text encoders are not part of the ONNX graph, so the bundle needs the folder of their weights.
        "features": {**computed, **{stream: _configured_section(plan, stream) for stream in pipeline.inputs}},
        "model": {"name": plan.model.name, **encode(pipeline.first.config)},
        "lengths": dict(pipeline.first.lengths),  # in frames, for streams that are cut or padded to a fixed length
        "labels": {"merge": dict(data.labels.merge), "dialogues": data.labels.dialogues},
        "protocol": {
            "name": split.title,
            "hash": split.hash,
            "verdict": split.verdict,  # whether it is speaker-independent
            "selection": plan.recipe.selection,
            "epochs": list(epochs),
        },
        "temperature": float(pipeline.temperature),
        "weights": weights_name(plan),
        # Without the run folders of weights_from, which exist only on this machine: the bundle has their weights.
        "recipe": {
            name: value
            for name, value in encode(plan.recipe).items()
            if name != "weights_from" and name not in DESCRIPTIONS
        },
    }
    if isinstance(plan.protocol, Official):
        config["protocol"]["subsets"] = describe_subsets(split, list(data.utterances.values()))
    return config


def _configured_section(plan: Plan, stream: str) -> dict[str, Any]:
    """Return the section of a feature in the recipe, or in the bundle to start from."""
    sections = plan.origin.config["features"] if plan.origin else plan.recipe.features
    return dict(sections[stream])


def weights_name(plan: Plan) -> str:
    """Return the name of the speech encoder's original weights; "" if unknown.

    For a plan that starts from a bundle, it is the name that the bundle states.
    """
    if plan.origin:
        return str(plan.origin.config.get("weights", ""))
    speech = plan.features.get("speech")
    return Path(speech.folder or "").name if speech else ""


def assemble_pipeline(plan: Plan, runs: Sequence[Run], labels: LabelSet) -> tuple[Pipeline, list[int]]:
    """Return the pipeline of the features and the runs' models, each at its selected epoch, and these epochs."""
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
    """Return a pipeline of the models and those features that take audio; text streams are inputs of the pipeline."""
    audio = {stream: feature for stream, feature in features.items() if feature.input == "audio"}
    return Pipeline(audio, members, temperature=temperature).eval()


def load_trained_model(
    plan: Plan, run: Run, epoch: int, features: Mapping[str, Feature], emotions: Sequence[str]
) -> EmotionModel:
    """Return the model with a run's weights at an epoch; load a fine-tuned encoder's weights into `features["speech"]`."""
    specs = {stream: feature_spec(feature) for stream, feature in features.items()}
    model, weights = plan.build_model(specs, emotions), load_state(run.weights_path(epoch))
    if plan.recipe.training.tune == "all":
        FineTunedModel(features["speech"], model).load(weights)
    else:
        model.load_state_dict(weights)
    return model
