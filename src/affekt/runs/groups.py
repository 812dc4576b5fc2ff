"""Groups of finished runs that differ in seed and fold only, with their predictions on the test sets.

Neither audio nor models are needed. Speakers are read from the corpora, if these are available.
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

from affekt.corpora.source import Source
from affekt.errors import BadConfig, BadCorpus
from affekt.protocols import Split, utterance_key
from affekt.runs.folder import Run, standalone_runs
from affekt.runs.selection import RULES, SELECTION_SUBSET, Rule, out_of_patience, select_epoch

Predictions = NDArray[np.floating]
"""Probabilities, (utterances, emotions)."""


@dataclass(frozen=True)
class Fold:
    """A finished run with its split, read once."""

    run: Run
    split: Split


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in seed and fold only."""

    config: Mapping[str, Any]
    """The settings of the first run; only the seed differs in others."""
    seeds: Mapping[int, Sequence[Fold]]
    """Seed -> the runs of all folds, in order."""

    @property
    def folds(self) -> Sequence[Fold]:
        """The folds of the first seed; other seeds have the same splits."""
        return next(iter(self.seeds.values()))


@dataclass(frozen=True)
class TestPredictions:
    """The predictions of a run group on one corpus of its test sets, fold after fold."""

    group: RunGroup
    corpus: str
    """The corpus's id."""
    source: Source
    ids: Sequence[str]
    labels: NDArray[np.int64]
    """(utterances,)"""
    predictions: Mapping[Rule, Mapping[int, Predictions]]
    """Selection rule -> seed -> probabilities, (utterances, emotions)."""
    speakers: Sequence[str] | None
    """The speaker of each utterance; None if not all are known."""
    speakers_unknown: str
    """The reason why the speakers could not be read; "" if they could."""

    @property
    def selected(self) -> Mapping[int, Predictions]:
        """The predictions under the recipe's own selection rule, by seed."""
        return self.predictions[self.group.config["selection"]]


def group_runs(folders: Sequence[Path]) -> list[RunGroup]:
    """Group the runs below folders, in the order in which they occur; runs of a search are left out.

    Raises:
        BadConfig: A folder contains no run, a run is unfinished, or a seed lacks a fold or has one twice.
    """
    by_settings: dict[str, dict[int, list[Fold]]] = defaultdict(lambda: defaultdict(list))
    configs: dict[str, dict[str, Any]] = {}
    for run in (run for folder in folders for run in standalone_runs(folder)):
        config = run.config
        _check_finished(run, config)
        settings = repr(sorted((name, value) for name, value in config.items() if name != "seed"))
        configs.setdefault(settings, config)
        by_settings[settings][config["seed"]].append(Fold(run, run.split))
    groups = []
    for settings, seeds in by_settings.items():
        ordered = {seed: sorted(seeds[seed], key=lambda fold: fold.split.fold) for seed in sorted(seeds)}
        _check_folds(configs[settings]["name"], ordered)
        groups.append(RunGroup(configs[settings], ordered))
    return groups


def is_finished(run: Run) -> bool:
    """Return True if a run reached its last epoch or ran out of patience."""
    training, epoch = run.config["training"], run.epochs[-1] if run.epochs else 0
    metric = training.get("patience_metric", "UA")  # runs of earlier versions have no such setting
    return bool(epoch >= training["epochs"] or out_of_patience(run, training["patience"], metric))


def _check_finished(run: Run, config: Mapping[str, Any]) -> None:
    if not is_finished(run):
        epoch = run.epochs[-1] if run.epochs else 0
        raise BadConfig(
            f"{run.folder} is unfinished, after epoch {epoch} of {config['training']['epochs']}: "
            "finish it with affekt train, or leave it out"
        )


def _check_folds(name: str, seeds: Mapping[int, Sequence[Fold]]) -> None:
    """Raise `BadConfig` unless every seed has every fold exactly once."""
    hashes = {seed: [fold.split.hash for fold in folds] for seed, folds in seeds.items()}
    first_seed, expected = next(iter(hashes.items()))
    for seed, present in hashes.items():
        folds = zip(seeds[seed], present, strict=True)
        if repeated := [fold.run.folder for fold, split_hash in folds if present.count(split_hash) > 1]:
            raise BadConfig(
                f"seed {seed} of {name} occurs twice: {repeated[0]} and {repeated[1]}; leave one of them out"
            )
        if present != expected:
            raise BadConfig(
                f"{name}: seed {seed} has {len(present)} folds, but seed {first_seed} has {len(expected)}: "
                "expected the same folds for every seed"
            )


def test_corpora(group: RunGroup) -> list[str]:
    """Return the ids of the corpora in the test sets of a run group."""
    return sorted({name.partition("/")[0] for fold in group.folds for name in fold.split.subsets["test"]})


def collect_predictions(group: RunGroup, corpus: str) -> TestPredictions:
    """Collect a run group's predictions on one corpus of its test sets, under every selection rule that applies."""
    positions = [
        [index for index, name in enumerate(fold.split.subsets["test"]) if name.startswith(f"{corpus}/")]
        for fold in group.folds
    ]
    folds = list(zip(group.folds, positions, strict=True))
    ids = [fold.split.subsets["test"][index] for fold, indices in folds for index in indices]
    source = find_source(group.config, corpus)
    subsets = group.folds[0].split.subsets
    rules = [rule for rule in RULES if rule not in SELECTION_SUBSET or SELECTION_SUBSET[rule] in subsets]
    predictions = {
        rule: {
            seed: np.concatenate(
                [_predictions(fold.run, rule)[indices] for fold, indices in zip(runs, positions, strict=True)]
            )
            for seed, runs in group.seeds.items()
        }
        for rule in rules
    }
    labels = np.concatenate([fold.run.labels("test")[indices] for fold, indices in folds])
    return TestPredictions(group, corpus, source, ids, labels, predictions, *read_speakers(source, ids))


def _predictions(run: Run, rule: Rule) -> Predictions:
    return run.predictions(select_epoch(run, rule))["test"]


def find_source(config: Mapping[str, Any], corpus: str) -> Source:
    """Return the source in a resolved recipe that has the given corpus id."""
    return next(source for source in map(Source.of, config["corpora"]) if source.id == corpus)


def read_speakers(source: Source, ids: Sequence[str]) -> tuple[list[str] | None, str]:
    """Read the speaker of each utterance from its corpus.

    Returns:
        The speakers, None if not all are known; and the reason why they could not be read, "" if they could.
    """
    try:
        by_id = _read_speakers_by_id(source)
    except BadCorpus as error:
        return None, str(error)
    if missing := [name for name in ids if name not in by_id]:
        return (
            None,
            f"this copy of {source.title} lacks {len(missing)} of {len(ids)} test utterances, first {missing[0]}",
        )
    speakers = [by_id[name] for name in ids]
    return (speakers if all(speakers) else None), ""


@functools.cache
def _read_speakers_by_id(source: Source) -> dict[str, str]:
    return {utterance_key(utterance): utterance.speaker_key if utterance.speaker else "" for utterance in source.read()}
