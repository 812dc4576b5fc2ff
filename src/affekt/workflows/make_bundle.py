"""From finished runs to a bundle: weights rounded, exported, scored as a user would run it, and described."""

from __future__ import annotations

import json
import platform
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
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
from affekt.errors import BadOutput
from affekt.evaluation.calibration import fit_temperature
from affekt.evaluation.comparison import compare
from affekt.evaluation.probe import linear_probe, mean_and_std
from affekt.evaluation.scores import score
from affekt.features.base import Feature
from affekt.features.extract import extract
from affekt.features.whisper import LogMelConfig, LogMelFrames
from affekt.labels import LabelSet
from affekt.models.base import EmotionModel
from affekt.protocols import Split, key
from affekt.reports.card import card
from affekt.runs.folder import Run
from affekt.runs.selection import RULES, select_epoch
from affekt.training.checkpoint import load_state
from affekt.training.finetuning import FineTuned, feature_spec
from affekt.training.recipe import Probe, Recipe
from affekt.utterance import Utterance
from affekt.workflows.predict import answered, predict_torch, text_encoders
from affekt.workflows.train import check_one_model
from affekt.workflows.training_data import Say, TrainingData, speakers_of


def make_bundle(recipe: Recipe, runs: Sequence[Run], folder: Path, *, command: str = "", say: Say = print) -> Bundle:
    """Make a bundle of a recipe's finished runs of one fold.

    command: what makes it again, where that is not the training of the recipe alone.

    It is built beside its place and moved there whole: an interrupted bundle never stands where a bundle is expected.
    Raises `BadConfig` for runs that do not make one model, `BadOutput` where something else stands in its place.
    """
    check_place(folder)
    folder = folder.resolve()
    material = TrainingData.read(recipe, _silent)
    pipeline, epochs = assembled(recipe, runs, material.labels)
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    round_to_half(pipeline)
    save_weights(pipeline, building / "model.safetensors")
    say("exporting to ONNX")
    emotions = material.labels.emotions
    export_onnx(pipeline, building / "model.onnx", emotions)
    write_labels(building, recipe.name, emotions)
    for notice in {encoder.notice for encoder in pipeline.heard.values() if encoder.notice}:
        shutil.copyfile(notice, building / notice.name)
    split = runs[0].split
    split.save(building / "split.json")
    config = {
        "name": recipe.name,
        "version": affekt.__version__,
        "members": len(pipeline.models),
        **sections(recipe, pipeline),
        "model": {"name": recipe.model_name, **encode(pipeline.first.config)},
        "lengths": dict(pipeline.first.lengths),  # streams that are cut or padded to so many frames
        "labels": {"merge": dict(material.labels.merge), "dialogues": material.labels.dialogues},
        "protocol": {
            "name": split.title,
            "hash": split.hash,
            "verdict": split.verdict,
            "selection": recipe.selection,
            "epochs": epochs,
        },
        "temperature": float(pipeline.temperature),
        "weights": weights_name(recipe),
        # Where the networks lay that a fusion was trained over is of no use elsewhere: the bundle holds them.
        "recipe": {name: value for name, value in encode(recipe).items() if name != "branches"},
    }
    if command:
        config["command"] = command
    if recipe.origin:
        config["start"] = {"id": recipe.origin.id, "name": recipe.origin.name}
    (building / "config.toml").write_text(to_toml(config), encoding="utf-8")
    results = describe(recipe, Bundle.open(building), pipeline, material, split, say=say)
    (building / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (building / "README.md").write_text(card(Bundle.open(building)), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    return Bundle.open(folder)


def sections(recipe: Recipe, pipeline: Pipeline) -> dict[str, Any]:
    """What fills the streams: the encoders in the graph with their settings, those of words as the recipe finds them."""
    filled = {
        stream: {"name": recipe.encoder_name(stream), **encode(encoder.config)}
        for stream, encoder in pipeline.heard.items()
    }
    speech = {"encoder": filled.pop("speech")} if "speech" in filled else {}
    streams = {**filled, **{stream: dict(recipe.filled[stream]) for stream in pipeline.given}}
    return {**speech, **({"streams": streams} if streams else {})}


def check_place(folder: Path) -> None:
    """Raise `BadOutput` where a bundle would replace what is none: a bundle's folder is replaced as a whole."""
    if (folder / "labels.json").is_file() and (folder / "config.toml").is_file():
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadOutput(f"{folder} is there, is no bundle, and would be replaced: give the name of a new folder")


def weights_name(recipe: Recipe) -> str:
    """What the encoder's weights are called, or were in the bundle that training starts from; "" for none."""
    if recipe.origin:
        return str(recipe.origin.config.get("weights", ""))
    return Path(str(recipe.encoder.get("folder", ""))).name


def heard_before(made: Bundle) -> set[str]:
    """The corpora that were heard by the bundles from which this one was fine-tuned."""
    return {entry["corpus"] for entry in made.results.get("data", ()) if entry["by"]}


def assembled(recipe: Recipe, runs: Sequence[Run], labels: LabelSet) -> tuple[Pipeline, list[int]]:
    """The runs' chosen models behind their encoder, and the epochs that they were chosen from."""
    check_one_model(recipe, len({run.split.hash for run in runs}))
    encoders, members, epochs = recipe.build_encoders(), list[EmotionModel](), []
    for run in runs:
        epochs.append(select_epoch(run, recipe.selection))
        members.append(trained_model(recipe, run, epochs[-1], encoders, labels.emotions))
    temperature = recipe.temperature
    if temperature == "fitted":
        predictions = [run.predictions(epoch)["validation"] for run, epoch in zip(runs, epochs, strict=True)]
        temperature = fit_temperature(runs[0].labels("validation"), predictions)
    return piped(encoders, members, temperature), epochs


def piped(encoders: Mapping[str, Feature], members: Sequence[EmotionModel], temperature: float = 1.0) -> Pipeline:
    """The models behind those of the encoders that hear; words are given to them."""
    heard = {stream: encoder for stream, encoder in encoders.items() if encoder.input == "audio"}
    return Pipeline(heard.pop("speech", None), members, others=heard, temperature=temperature).eval()


def trained_model(
    recipe: Recipe, run: Run, epoch: int, encoders: Mapping[str, Feature], emotions: Sequence[str]
) -> EmotionModel:
    """The model of a run's epoch; where the encoder was trained too, its weights are put into that of speech."""
    specs = {stream: feature_spec(encoder) for stream, encoder in encoders.items()}
    model, weights = recipe.build_model(specs, emotions), load_state(run.weights_path(epoch))
    if recipe.training.tune == "all":
        FineTuned(encoders["speech"], model).load(weights)
    else:
        model.load_state_dict(weights)
    return model


def describe(
    recipe: Recipe, made: Bundle, pipeline: Pipeline, material: TrainingData, split: Split, *, say: Say = print
) -> dict[str, Any]:
    """All figures of a card: the ONNX file's scores on the test part, the probes' beside it, and how they came."""
    labels = material.labels
    test = material.of(split.subsets["test"])
    truth = material.truth(split.subsets["test"])
    say(f"recognising the {len(test)} utterances of the test part")
    answers = answered(made, test)
    probes = {one.name: _probe(recipe, one, material, split, say) for one in recipe.probes}
    scores: dict[str, Any] = {}
    for source in recipe.sources:
        chosen = np.array([u.corpus == source.id for u in test])
        if not chosen.any():
            continue
        corpus = source.corpus
        heard = [u for u in test if u.corpus == source.id]
        people, names = speakers_of(heard), [key(utterance) for utterance in heard]
        scores[source.id] = {
            "title": source.title,
            "language": source.language or corpus.language,
            "style": corpus.style,
            "note": source.note,
            "speakers": len(set(people)) if people else None,
            "model": asdict(score(truth[chosen], answers[chosen], labels.emotions, people, units=names)),
            "counts": dict(Counter(labels.emotions[label] for label in truth[chosen])),
            "probes": {
                probe: {
                    **asdict(score(truth[chosen], probabilities[chosen], labels.emotions, people, units=names)),
                    "against": asdict(compare(truth[chosen], answers[chosen], probabilities[chosen], people)),
                }
                for probe, probabilities in probes.items()
            },
        }
    return {
        "model": made.id,
        "protocol": split.line("test"),
        "selection": RULES[recipe.selection],
        "scores": scores,
        "data": data(recipe, material, split),
        "agreement": agreement(made, pipeline, test[::20]),
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def data(recipe: Recipe, material: TrainingData, split: Split) -> list[dict[str, Any]]:
    """What was trained on, corpus by corpus; then what the bundle heard that training started from."""
    entries = []
    for source in recipe.sources:
        heard = [u for u in material.of(split.subsets["train"]) if u.corpus == source.id]
        people = speakers_of(heard)
        entries.append(
            {
                "corpus": source.id,
                "title": source.title,
                "note": source.note,
                "licence": source.corpus.licence,
                "source": source.corpus.source if source.corpus.licence else "",
                "alteration": source.corpus.alteration if source.note else "",
                "utterances": len(heard),
                "speakers": len(set(people)) if people else None,
                "by": "",
            }
        )
    if recipe.origin:
        before = recipe.origin.results.get("data", ())
        entries += [{**entry, "by": entry["by"] or recipe.origin.id} for entry in before]
    return entries


def agreement(made: Bundle, pipeline: Pipeline, utterances: Sequence[Utterance]) -> float:
    """The largest difference of a probability between torch and the ONNX file."""
    return float(np.abs(predict_torch(pipeline, text_encoders(made), utterances) - answered(made, utterances)).max())


def _probe(recipe: Recipe, probe: Probe, material: TrainingData, split: Split, say: Say) -> NDArray[np.float64]:
    """A probe's probabilities on the test part; on states of the encoder as it was before any training."""
    say(f"probe: {probe.name}")
    device = recipe.training.device
    parts = [material.of(split.subsets[part]) for part in ("train", "test")]
    if probe.blocks:
        encoder = recipe.build_encoder()
        width = encoder.dim // encoder.num_states
        places = [encoder.config.blocks.index(block) * width + np.arange(width) for block in probe.blocks]
        columns = np.concatenate(places)
        first, second = (
            mean_and_std(
                values[:, columns] for values in extract(encoder, recipe.encoder_name("speech"), part, device=device)
            )
            for part in parts
        )
    else:
        log_mel = LogMelFrames(LogMelConfig())
        first, second = (mean_and_std(extract(log_mel, "log-mel", part, device=device)) for part in parts)
    truth = material.truth(split.subsets["train"])
    return linear_probe(first, truth, second, num_emotions=len(material.labels), strength=probe.strength)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _silent(_: str) -> None:
    pass
