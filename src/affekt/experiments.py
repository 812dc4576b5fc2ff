"""What the commands call: train a recipe into a run folder, make a bundle of a run, score a bundle."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import affekt
from affekt.audio import load
from affekt.bundle import Bundle, write_labels
from affekt.checkpoint import load_state
from affekt.config import encode, to_toml
from affekt.corpora import corpora
from affekt.corpora.base import data_root
from affekt.data import Dataset, FeatureSpec
from affekt.errors import BadConfig
from affekt.evaluation.probe import linear_probe, pooled
from affekt.evaluation.scores import METHOD, compare, score
from affekt.evaluation.selection import RULES, select
from affekt.features.whisper import LogMelFrames
from affekt.inference.recognizer import Recognizer
from affekt.labels import LabelSet, label_set
from affekt.pipeline import Pipeline, export_onnx, round_to_half, save_weights
from affekt.protocols import held_out_people, key
from affekt.reports.card import card
from affekt.run import Run
from affekt.training.augment import Copy
from affekt.training.distributed import processes, shared
from affekt.training.extraction import extract
from affekt.training.loop import fit
from affekt.training.recipe import Probe, Recipe
from affekt.training.strategy import Supervised
from affekt.utterance import Utterance

Say = Callable[[str], None]


def read_utterances(recipe: Recipe, say: Say = print) -> list[Utterance]:
    """The utterances of a recipe's corpora whose emotion is in its label set; those left out are counted aloud."""
    labels, kept = label_set(recipe.labels), []
    for name in recipe.corpora:
        utterances = corpora[name].read(data_root(name))
        fitting = [utterance for utterance in utterances if labels.index(utterance.emotion) is not None]
        others = sorted({u.emotion for u in utterances} - {u.emotion for u in fitting})
        left = f"; {len(utterances) - len(fitting)} of other emotions ({', '.join(others)}) left out" if others else ""
        say(f"{name}: {len(fitting)} utterances of {len({u.speaker for u in fitting})} speakers{left}")
        kept += fitting
    return kept


def train(recipe: Recipe, folder: Path, *, say: Say = print) -> Run:
    """Train a recipe; go on where an interrupted run in the same folder stopped. Run it under torchrun for DDP."""
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    torch.use_deterministic_algorithms(True)
    with processes() as (rank, world):
        say = say if rank == 0 else _silent
        labels = label_set(recipe.labels)
        utterances = read_utterances(recipe, say)
        split = held_out_people(utterances, recipe.held_out)
        index = {key(u): _index(labels, u) for u in utterances}
        run = Run.start(folder, encode(recipe), split, labels.emotions, index)
        encoder_class, encoder_config, source = recipe.encoder_class()
        encoder = encoder_class.from_folder(source, encoder_config)
        spec = FeatureSpec(encoder.dim, encoder.frame_rate, encoder.parts)
        arrays = extract(encoder, recipe.encoder["name"], utterances, say=say)
        values = dict(zip(map(key, utterances), arrays, strict=True))
        parts = {part: _dataset(ids, index, values, spec) for part, ids in split.parts.items()}
        scored = {part: data for part, data in parts.items() if part != "train"}
        parts["train"] = _with_copies(parts["train"], recipe, encoder, utterances, say)
        say(f"training on {len(parts['train'])} utterances; " + "; ".join(split.line(part) for part in scored))
        torch.manual_seed(recipe.seed)
        model = _model(recipe, spec, labels)
        model.set_statistics(parts["train"].statistics())
        strategy = Supervised(model, recipe.training.optimisation, forward=shared(model))
        fit(
            strategy,
            parts["train"],
            scored,
            run,
            epochs=recipe.training.epochs,
            batch_size=recipe.training.batch_size,
            seed=recipe.seed,
            rank=rank,
            world=world,
            say=say,
        )
    return run


def _silent(_: str) -> None:
    pass


def _index(labels: LabelSet, utterance: Utterance) -> int:
    index = labels.index(utterance.emotion)
    assert index is not None
    return index


def _model(recipe: Recipe, spec: FeatureSpec, labels: LabelSet) -> Any:
    """The recipe's model, its input as wide as the feature."""
    model_class, config = recipe.model_class()
    return model_class(replace(config, input_dim=spec.dim, input_parts=spec.parts), len(labels))


def _dataset(
    ids: Sequence[str], index: dict[str, int], values: dict[str, NDArray[np.float16]], spec: FeatureSpec
) -> Dataset:
    labels = np.array([index[one] for one in ids], np.int64)
    return Dataset(ids, labels, {"speech": [values[one] for one in ids]}, {"speech": spec})


def _with_copies(train: Dataset, recipe: Recipe, encoder: Any, utterances: Sequence[Utterance], say: Say) -> Dataset:
    """The training part with its altered copies. Nobody else is altered."""
    settings = recipe.training.augmentation
    by_key = {key(u): u for u in utterances}
    chosen = [by_key[one] for one in train.ids]
    copies = [
        {
            "speech": extract(
                encoder, recipe.encoder["name"], chosen, copy=Copy(n, recipe.seed, settings.alteration), say=say
            )
        }
        for n in range(settings.copies)
    ]
    return replace(train, copies=copies, copy_share=settings.share, crop=settings.crop)


def make_bundle(recipe: Recipe, run: Run, folder: Path, *, say: Say = print) -> Bundle:
    """Make a bundle of a finished run: weights rounded, exported, scored as a user would run it, and described."""
    folder.mkdir(parents=True, exist_ok=True)
    epoch = select(run, recipe.selection)
    labels = label_set(recipe.labels)
    encoder_class, encoder_config, source = recipe.encoder_class()
    encoder = encoder_class.from_folder(source, encoder_config)
    spec = FeatureSpec(encoder.dim, encoder.frame_rate, encoder.parts)
    model = _model(recipe, spec, labels)
    model.load_state_dict(load_state(run.weights(epoch)))
    pipeline = Pipeline(encoder, model, temperature=recipe.temperature).eval()
    round_to_half(pipeline)
    save_weights(pipeline, folder / "model.safetensors")
    say("exporting to ONNX")
    export_onnx(pipeline, folder / "model.onnx", labels.emotions)
    write_labels(folder, recipe.name, labels.emotions)
    if notice := getattr(encoder, "notice", None):
        shutil.copyfile(notice, folder / notice.name)
    config = {
        "name": recipe.name,
        "version": affekt.__version__,
        "encoder": {"name": recipe.encoder["name"], **encode(encoder.config)},
        "model": {"name": recipe.model["name"], **encode(model.config)},
        "protocol": {
            "name": run.split.name,
            "hash": run.split.hash,
            "speaker_independent": run.split.speaker_independent,
            "selection": recipe.selection,
            "epoch": epoch,
        },
        "recipe": encode(recipe),
    }
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    made = Bundle.open(folder)
    results = describe(recipe, made, pipeline, run, encoder, say=say)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card(made), encoding="utf-8")
    return made


def describe(
    recipe: Recipe, made: Bundle, pipeline: Pipeline, run: Run, encoder: Any, *, say: Say = print
) -> dict[str, Any]:
    """All figures of a card: the ONNX file's scores on the untouched people, the probes' beside it, and how they came."""
    utterances = read_utterances(recipe, _silent)
    labels = label_set(recipe.labels)
    parts = {part: set(ids) for part, ids in run.split.parts.items()}
    train = [u for u in utterances if key(u) in parts["train"]]
    test = [u for u in utterances if key(u) in parts["test"]]
    truth = np.array([_index(labels, u) for u in test])
    say(f"recognising {len(test)} utterances of {run.split.line('test')}")
    answers, agreement = _answers(made, pipeline, test)
    probes = {
        probe.name: _probe(recipe, probe, encoder, train, np.array([_index(labels, u) for u in train]), test, say)
        for probe in recipe.probes
    }
    scores: dict[str, Any] = {}
    for name in recipe.corpora:
        chosen = np.array([u.corpus == name for u in test])
        if not chosen.any():
            continue
        corpus = corpora[name]
        people = [u.person for u in test if u.corpus == name]
        scores[name] = {
            "title": corpus.title,
            "note": corpus.note(data_root(name)),
            "licence": corpus.licence,
            "source": corpus.source,
            "people": len(set(people)),
            "trained_on": {
                "utterances": sum(u.corpus == name for u in train),
                "people": len({u.speaker for u in train if u.corpus == name}),
            },
            "model": asdict(score(truth[chosen], answers[chosen], labels.emotions)),
            "probes": {
                probe: {
                    **asdict(score(truth[chosen], probabilities[chosen], labels.emotions)),
                    "against": asdict(compare(truth[chosen], answers[chosen], probabilities[chosen], people)),
                }
                for probe, probabilities in probes.items()
            },
        }
    return {
        "model": made.id,
        "intervals": METHOD,
        "protocol": run.split.line("test"),
        "selection": RULES[recipe.selection],
        "scores": scores,
        "agreement": agreement,
        "machine": {
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "log": run.log()[-1],
    }


def _answers(made: Bundle, pipeline: Pipeline, test: Sequence[Utterance]) -> tuple[NDArray[np.float64], float]:
    """The ONNX file's probabilities, by the recogniser; and the largest difference to torch's on every twentieth."""
    recognizer = Recognizer.load(made.folder)
    answers, agreement = [], 0.0
    for number, utterance in enumerate(test):
        assert utterance.audio is not None
        waveform = load(utterance.audio)
        answers.append(recognizer.infer(waveform))
        if number % 20 == 0:
            with torch.inference_mode():
                torchs = pipeline(torch.from_numpy(waveform)[None])[0].numpy()
            agreement = max(agreement, float(np.abs(torchs - answers[-1]).max()))
    return np.array(answers), agreement


def _probe(
    recipe: Recipe,
    probe: Probe,
    encoder: Any,
    train: Sequence[Utterance],
    labels: NDArray[np.int64],
    test: Sequence[Utterance],
    say: Say,
) -> NDArray[np.float64]:
    """A probe's probabilities on the test utterances."""
    say(f"probe: {probe.name}")
    if probe.blocks:
        known, width = encoder.config.blocks, encoder.dim // encoder.parts
        if missing := set(probe.blocks) - set(known):
            raise BadConfig(f"probe {probe.name!r} asks for blocks {sorted(missing)}; the encoder gives {list(known)}")
        columns = np.concatenate([known.index(block) * width + np.arange(width) for block in probe.blocks])
        heard = [extract(encoder, recipe.encoder["name"], part, say=_silent) for part in (train, test)]
        first, second = (pooled([values[:, columns] for values in part]) for part in heard)
    else:
        first, second = (pooled(extract(LogMelFrames(), "log-mel", part, say=_silent)) for part in (train, test))
    return linear_probe(first, labels, second, strength=probe.strength)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def evaluate(source: str | Path, corpus_name: str, root: Path, *, say: Say = print) -> dict[str, Any]:
    """Score a bundle on a corpus: on the people that its training left untouched, or on all of a corpus it never saw."""
    made = Bundle.open(source)
    corpus = corpora[corpus_name]
    protocol, recipe = made.config["protocol"], made.config["recipe"]
    labels = LabelSet(made.name, made.emotions, label_set(recipe["labels"]).merge)
    utterances = [u for u in corpus.read(root) if labels.index(u.emotion) is not None]
    if corpus_name in recipe["corpora"]:
        untouched = set(recipe["held_out"].get("test", ()))
        utterances = [u for u in utterances if u.person in untouched]
    say(f"{corpus.title}: {len(utterances)} utterances of {len({u.speaker for u in utterances})} speakers")
    recognizer = Recognizer.load(made.folder)
    answers = np.array([recognizer.infer(load(u.audio)) for u in utterances if u.audio is not None])
    truth = np.array([_index(labels, u) for u in utterances])
    scores = asdict(score(truth, answers, labels.emotions))
    return {
        "model": made.id,
        "corpus": corpus_name,
        "note": corpus.note(root),
        "classes": list(labels.emotions),
        "protocol": f"{protocol['name']}, part 'test'"
        if corpus_name in recipe["corpora"]
        else "a corpus not trained on",
        "split_hash": protocol["hash"],
        "speaker_independent": protocol["speaker_independent"],
        "selection": RULES[protocol["selection"]],
        "intervals": METHOD,
        **scores,
    }
