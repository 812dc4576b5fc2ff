"""Finished runs put together: trainings with their seeds and folds, and what they answered on their test parts.

No audio and no model is needed. The corpora, where they are found, tell who speaks.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.config import decode
from affekt.corpora.source import Source
from affekt.errors import BadConfig, BadCorpus
from affekt.runs.selection import PART, RULES, Rule, out_of_patience, select
from affekt.protocols import Split, key
from affekt.runs.folder import Run, standalone_runs

Predictions = NDArray[np.floating]  # probabilities, (utterances, emotions)


@dataclass(frozen=True)
class Fold:
    """A finished run, its split read once."""

    run: Run
    split: Split


@dataclass(frozen=True)
class RunGroup:
    """Runs that are alike but for their seed and fold."""

    config: Mapping[str, Any]
    seeds: Mapping[int, Sequence[Fold]]  # by seed: every fold, in order

    @property
    def folds(self) -> Sequence[Fold]:
        """Those of the first seed; other seeds have the same splits."""
        return next(iter(self.seeds.values()))


@dataclass(frozen=True)
class TestPredictions:
    """What a training answered on its test parts of one corpus, fold after fold."""

    training: RunGroup
    corpus: str  # its id
    source: Source
    ids: Sequence[str]
    labels: NDArray[np.int64]  # (utterances,)
    answers: Mapping[Rule, Mapping[int, Predictions]]  # by rule and seed: probabilities, (utterances, emotions)
    people: Sequence[str] | None  # who speaks each utterance, where that is known of all
    doubt: str  # why nobody knows

    @property
    def chosen(self) -> Mapping[int, Predictions]:
        """By the recipe's own selection."""
        return self.answers[self.training.config["selection"]]


def group_runs(folders: Sequence[Path]) -> list[RunGroup]:
    """The trainings whose runs stand below these folders, in the order in which they are met; none of a search's.

    Raises `BadConfig` for a folder without runs, for an unfinished run, and for seeds that have not the same folds once.
    """
    found: dict[str, dict[int, list[Fold]]] = defaultdict(lambda: defaultdict(list))
    configs: dict[str, dict[str, Any]] = {}
    for run in (run for folder in folders for run in standalone_runs(folder)):
        config = run.config
        _check_finished(run, config)
        alike = repr(sorted((name, value) for name, value in config.items() if name != "seed"))
        configs.setdefault(alike, config)
        found[alike][config["seed"]].append(Fold(run, run.split))
    trainings = []
    for alike, seeds in found.items():
        ordered = {seed: sorted(seeds[seed], key=lambda fold: fold.split.fold) for seed in sorted(seeds)}
        _check_whole(configs[alike]["name"], ordered)
        trainings.append(RunGroup(configs[alike], ordered))
    return trainings


def finished(run: Run) -> bool:
    """Whether a run was trained to its end, by its epochs or by its patience."""
    training, done = run.config["training"], run.epochs[-1] if run.epochs else 0
    return bool(done >= training["epochs"] or out_of_patience(run, training["patience"]))


def _check_finished(run: Run, config: Mapping[str, Any]) -> None:
    if not finished(run):
        done = run.epochs[-1] if run.epochs else 0
        raise BadConfig(
            f"{run.folder} is unfinished, after epoch {done} of {config['training']['epochs']}: train it to its end, "
            "or name the others"
        )


def _check_whole(name: str, seeds: Mapping[int, Sequence[Fold]]) -> None:
    """Every seed has every fold, once."""
    hashes = {seed: [fold.split.hash for fold in folds] for seed, folds in seeds.items()}
    first, expected = next(iter(hashes.items()))
    for seed, found in hashes.items():
        if twice := [fold for fold, one in zip(seeds[seed], found, strict=True) if found.count(one) > 1]:
            raise BadConfig(
                f"seed {seed} of {name} is there twice: {twice[0].run.folder} and {twice[1].run.folder}; give one of them"
            )
        if found != expected:
            raise BadConfig(
                f"{name}: seed {seed} has {len(found)} folds, other than the {len(expected)} of seed {first}: give those "
                "that all seeds have"
            )


def test_corpora(training: RunGroup) -> list[str]:
    """The corpora of the test parts."""
    return sorted({one.partition("/")[0] for fold in training.folds for one in fold.split.parts["test"]})


def collect_predictions(training: RunGroup, corpus: str) -> TestPredictions:
    """The training's answers on one corpus of its test parts, by every rule that can choose an epoch."""
    places = [
        [n for n, one in enumerate(fold.split.parts["test"]) if one.startswith(f"{corpus}/")] for fold in training.folds
    ]
    folds = list(zip(training.folds, places, strict=True))
    ids = [fold.split.parts["test"][n] for fold, place in folds for n in place]
    source = source_of(training.config, corpus)
    rules = [rule for rule in RULES if rule not in PART or PART[rule] in training.folds[0].split.parts]
    answers = {
        rule: {
            seed: np.concatenate([_chosen(fold.run, rule)[place] for fold, place in zip(runs, places, strict=True)])
            for seed, runs in training.seeds.items()
        }
        for rule in rules
    }
    labels = np.concatenate([fold.run.labels("test")[place] for fold, place in folds])
    return TestPredictions(training, corpus, source, ids, labels, answers, *speakers_of(source, ids))


def _chosen(run: Run, rule: Rule) -> Predictions:
    return run.predictions(select(run, rule))["test"]


def source_of(config: Mapping[str, Any], corpus: str) -> Source:
    """The source of the recipe whose utterances bear a corpus's name."""
    sources = [
        Source.parse(one) if isinstance(one, str) else decode(Source, one, "corpora") for one in config["corpora"]
    ]
    return next(source for source in sources if source.id == corpus)


def speakers_of(source: Source, ids: Sequence[str]) -> tuple[list[str] | None, str]:
    """Who speaks each utterance, None where that is not known of all; and why it cannot be known."""
    try:
        speakers = _speakers(source)
    except BadCorpus as error:
        return None, str(error)
    if missing := [one for one in ids if one not in speakers]:
        return (
            None,
            f"{source.title} as it is here lacks {len(missing)} of {len(ids)} test utterances, first {missing[0]}",
        )
    people = [speakers[one] for one in ids]
    return (people if all(people) else None), ""


@functools.cache
def _speakers(source: Source) -> dict[str, str]:
    return {key(utterance): utterance.person if utterance.speaker else "" for utterance in source.read()}
