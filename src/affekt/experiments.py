"""What the commands call: train a recipe into a run folder, make a bundle of a run, score a bundle."""

from __future__ import annotations

import json
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import affekt
from affekt.bundle import Bundle, write_labels
from affekt.checkpoint import load_state
from affekt.config import encode, to_toml
from affekt.corpora import corpora
from affekt.corpora.base import data_root
from affekt.data import Dataset
from affekt.errors import BadBundle
from affekt.evaluation.probe import linear_probe, pooled
from affekt.evaluation.scores import compare, score
from affekt.evaluation.selection import RULES, select
from affekt.features.base import Feature
from affekt.features.whisper import LogMelConfig, LogMelFrames
from affekt.inference.recognizer import Recognizer
from affekt.labels import LabelSet, label_set
from affekt.models.base import FeatureSpec
from affekt.pipeline import Pipeline, export_onnx, round_to_half, save_weights
from affekt.protocols import Split, held_out_people, key
from affekt.reports.card import card
from affekt.run import Run
from affekt.training.augment import Copy
from affekt.training.distributed import processes, shared
from affekt.training.extraction import extract, waveform
from affekt.training.loop import fit
from affekt.training.recipe import Probe, Recipe
from affekt.training.strategy import Supervised
from affekt.utterance import Utterance

Say = Callable[[str], None]


def read_utterances(recipe: Recipe, say: Say = print) -> list[Utterance]:
    """The utterances of a recipe's corpora whose emotion is in its label set."""
    labels = label_set(recipe.labels)
    return [u for name in recipe.corpora for u in fitting(corpora[name].read(data_root(name)), labels, name, say)]


def fitting(utterances: Sequence[Utterance], labels: LabelSet, name: str, say: Say) -> list[Utterance]:
    """The utterances whose emotion is in the label set; those left out are counted aloud."""
    kept = [utterance for utterance in utterances if labels.index(utterance.emotion) is not None]
    others = sorted({u.emotion for u in utterances} - {u.emotion for u in kept})
    left = f"; {len(utterances) - len(kept)} of other emotions ({', '.join(others)}) left out" if others else ""
    say(f"{name}: {len(kept)} utterances of {len({u.speaker for u in kept})} speakers{left}")
    return kept


def train(recipe: Recipe, folder: Path, *, say: Say = print) -> list[Run]:
    """Train a recipe, a run folder per member; go on where an interrupted training in the same folder stopped.

    Under torchrun several processes train one model (DDP).
    """
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    torch.use_deterministic_algorithms(True)
    with processes() as (rank, world):
        say = say if rank == 0 else _silent
        encoder, labels = recipe.build_encoder(), label_set(recipe.labels)
        utterances = {key(utterance): utterance for utterance in read_utterances(recipe, say)}
        split = held_out_people(list(utterances.values()), recipe.held_out)
        index = {one: _index(labels, utterance) for one, utterance in utterances.items()}
        specs = {"speech": FeatureSpec(encoder.dim, encoder.frame_rate, encoder.parts)}
        parts = {}
        for part, ids in split.parts.items():
            features = {"speech": extract(encoder, recipe.encoder["name"], [utterances[i] for i in ids], say=say)}
            parts[part] = Dataset(ids, np.array([index[one] for one in ids], np.int64), features, specs)
        scored = {part: data for part, data in parts.items() if part != "train"}
        heard = _with_copies(parts["train"], recipe, encoder, utterances, say)
        statistics = parts["train"].statistics()
        say(f"training on {len(heard)} utterances; " + "; ".join(split.line(part) for part in scored))
        runs = []
        for member, place in enumerate(run_folders(recipe, folder)):
            seed = recipe.seed + member
            say(f"member {member + 1} of {recipe.members}, seed {seed}: {place}")
            run = Run.start(place, recipe.resolved(member), split, labels.emotions, index)
            torch.manual_seed(seed)
            model = recipe.build_model(specs)
            model.set_statistics(statistics)
            fit(
                Supervised(model, recipe.training.optimisation, forward=shared(model)),
                heard,
                scored,
                run,
                epochs=recipe.training.epochs,
                batch_size=recipe.training.batch_size,
                seed=seed,
                rank=rank,
                world=world,
                say=say,
            )
            runs.append(run)
    return runs


def run_folders(recipe: Recipe, folder: Path) -> list[Path]:
    """Where the members' runs stand: the folder itself for one, folders below it for several."""
    return [folder] if recipe.members == 1 else [folder / f"member-{n + 1}" for n in range(recipe.members)]


def _silent(_: str) -> None:
    pass


def _index(labels: LabelSet, utterance: Utterance) -> int:
    index = labels.index(utterance.emotion)
    assert index is not None
    return index


def _with_copies(
    train: Dataset, recipe: Recipe, encoder: Feature, utterances: Mapping[str, Utterance], say: Say
) -> Dataset:
    """The training part with its altered copies. Nobody else is altered."""
    settings, name = recipe.training.augmentation, recipe.encoder["name"]
    chosen = [utterances[one] for one in train.ids]
    copies = []
    for number in range(settings.copies):
        copy = Copy(number, recipe.seed, settings.alteration)
        copies.append({"speech": extract(encoder, name, chosen, copy=copy, say=say)})
    return replace(train, copies=copies, copy_share=settings.share, crop=settings.crop)


def make_bundle(recipe: Recipe, runs: Sequence[Run], folder: Path, *, say: Say = print) -> Bundle:
    """Make a bundle of finished runs: weights rounded, exported, scored as a user would run it, and described.

    It is built beside its place and moved there whole: an interrupted bundle never stands where a bundle is expected.
    """
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    encoder, labels = recipe.build_encoder(), label_set(recipe.labels)
    specs = {"speech": FeatureSpec(encoder.dim, encoder.frame_rate, encoder.parts)}
    members, epochs = [], []
    for run in runs:
        epochs.append(select(run, recipe.selection))
        member = recipe.build_model(specs)
        member.load_state_dict(load_state(run.weights(epochs[-1])))
        members.append(member)
    pipeline = Pipeline(encoder, members, temperature=recipe.temperature).eval()
    round_to_half(pipeline)
    save_weights(pipeline, building / "model.safetensors")
    say("exporting to ONNX")
    export_onnx(pipeline, building / "model.onnx", labels.emotions)
    write_labels(building, recipe.name, labels.emotions)
    if encoder.notice:
        shutil.copyfile(encoder.notice, building / encoder.notice.name)
    split = runs[0].split
    config = {
        "name": recipe.name,
        "version": affekt.__version__,
        "members": len(members),
        "encoder": {"name": recipe.encoder["name"], **encode(encoder.config)},
        "model": {"name": recipe.model["name"], **encode(members[0].config)},
        "protocol": {
            "name": split.name,
            "hash": split.hash,
            "speaker_independent": split.speaker_independent,
            "selection": recipe.selection,
            "epochs": epochs,
        },
        "recipe": encode(recipe),
    }
    (building / "config.toml").write_text(to_toml(config), encoding="utf-8")
    results = describe(recipe, Bundle.open(building), pipeline, split, say=say)
    (building / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (building / "README.md").write_text(card(Bundle.open(building)), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    return Bundle.open(folder)


def describe(recipe: Recipe, made: Bundle, pipeline: Pipeline, split: Split, *, say: Say = print) -> dict[str, Any]:
    """All figures of a card: the ONNX file's scores on the untouched people, the probes' beside it, and how they came."""
    labels = label_set(recipe.labels)
    utterances = {key(utterance): utterance for utterance in read_utterances(recipe, _silent)}
    train, test = ([utterances[one] for one in split.parts[part]] for part in ("train", "test"))
    truth = np.array([_index(labels, u) for u in test])
    say(f"recognising {len(test)} utterances of {split.line('test')}")
    answers = recognized(made, test)
    probes = {probe.name: _probe(recipe, probe, pipeline.encoder, train, test, say) for probe in recipe.probes}
    scores: dict[str, Any] = {}
    for name in recipe.corpora:
        chosen = np.array([u.corpus == name for u in test])
        if not chosen.any():
            continue
        corpus, root = corpora[name], data_root(name)
        people = [u.person for u in test if u.corpus == name]
        scores[name] = {
            "title": corpus.title,
            "language": corpus.language,
            "style": corpus.style,
            "note": corpus.note(root),
            "licence": corpus.licence,
            "source": corpus.source,
            "alteration": corpus.alteration if corpus.note(root) else "",
            "people": len(set(people)),
            "trained_on": {
                "utterances": sum(u.corpus == name for u in train),
                "people": len({u.speaker for u in train if u.corpus == name}),
            },
            "model": asdict(score(truth[chosen], answers[chosen], labels.emotions, people)),
            "counts": dict(Counter(labels.emotions[label] for label in truth[chosen])),
            "probes": {
                probe: {
                    **asdict(score(truth[chosen], probabilities[chosen], labels.emotions, people)),
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
        "agreement": agreement(made, pipeline, test[::20]),
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def recognized(made: Bundle, utterances: Sequence[Utterance]) -> NDArray[np.float64]:
    """The ONNX file's probabilities, by the recogniser, (utterances, emotions)."""
    recognizer = Recognizer.load(made.folder)
    return np.array([recognizer.infer(waveform(utterance)) for utterance in utterances])


def agreement(made: Bundle, pipeline: Pipeline, utterances: Sequence[Utterance]) -> float:
    """The largest difference of a probability between torch and the ONNX file."""
    with torch.inference_mode():
        torchs = [pipeline(torch.from_numpy(waveform(u)).unsqueeze(0))[0].numpy() for u in utterances]
    return float(np.abs(np.array(torchs) - recognized(made, utterances)).max())


def _probe(
    recipe: Recipe,
    probe: Probe,
    encoder: Any,
    train: Sequence[Utterance],
    test: Sequence[Utterance],
    say: Say,
) -> NDArray[np.float64]:
    """A probe's probabilities on the test utterances."""
    say(f"probe: {probe.name}")
    labels = label_set(recipe.labels)
    truth = np.array([_index(labels, utterance) for utterance in train])
    if probe.blocks:
        width = encoder.dim // encoder.parts
        places = [encoder.config.blocks.index(block) * width + np.arange(width) for block in probe.blocks]
        columns = np.concatenate(places)
        heard = [extract(encoder, recipe.encoder["name"], part, say=_silent) for part in (train, test)]
        first, second = (pooled(values[:, columns] for values in part) for part in heard)
    else:
        log_mel = LogMelFrames(LogMelConfig())
        first, second = (pooled(extract(log_mel, "log-mel", part, say=_silent)) for part in (train, test))
    return linear_probe(first, truth, second, emotions=len(labels), strength=probe.strength)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def evaluate(source: str | Path, corpus_name: str, root: Path, *, say: Say = print) -> dict[str, Any]:
    """Score a bundle on a corpus: on the people that its training left untouched, or on all of a corpus it never saw."""
    made, corpus = Bundle.open(source), corpora[corpus_name]
    try:
        protocol, recipe = made.config["protocol"], made.config["recipe"]
        merge, trained_on = label_set(recipe["labels"]).merge, recipe["corpora"]
        untouched = set(recipe["held_out"]["test"])
    except KeyError as error:
        raise BadBundle(
            f"{made.folder}: config.toml does not say {error}, so nobody knows whom it was trained on"
        ) from error
    labels = LabelSet(made.name, made.emotions, merge)
    utterances = fitting(corpus.read(root), labels, corpus_name, say)
    part = f"a corpus not trained on: {len(utterances)} utterances"
    if corpus_name in trained_on:
        utterances = [u for u in utterances if u.person in untouched]
        part = f"{protocol['name']}, part 'test': {len(utterances)} utterances of {corpus.title}"
    people = [u.person for u in utterances]
    truth = np.array([_index(labels, u) for u in utterances])
    return {
        "model": made.id,
        "corpus": corpus_name,
        "note": corpus.note(root),
        "classes": list(labels.emotions),
        "protocol": part,
        "split_hash": protocol["hash"],
        "speaker_independent": protocol["speaker_independent"],
        "selection": RULES[protocol["selection"]],
        "people": len(set(people)),
        **asdict(score(truth, recognized(made, utterances), labels.emotions, people)),
    }
