"""Groups of finished runs that differ in seed and fold only, with their predictions on the test sets.

Neither audio nor models are needed. Speakers are read from the corpora, if these are available.
"""

from __future__ import annotations

import functools
import os
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
from affekt.utterance import Utterance, speakers_of

Predictions = NDArray[np.floating]
"""Probabilities, (utterances, emotions)."""


@dataclass(frozen=True)
class Fold:
    """A finished run with its split, read once."""

    run: Run
    split: Split


@dataclass(frozen=True)
class RunGroup:
    """Runs of one experiment, which differ in seed and fold only."""

    config: Mapping[str, Any]
    """The settings of the first run; others differ in those that `experiment_settings` leaves out."""
    seeds: Mapping[int, Sequence[Fold]]
    """Seed -> the runs of all folds, in order."""

    @property
    def folds(self) -> Sequence[Fold]:
        """The folds of the first seed; other seeds have the same splits."""
        return next(iter(self.seeds.values()))

    @property
    def runs(self) -> list[Run]:
        """The runs of all seeds and folds."""
        return [fold.run for folds in self.seeds.values() for fold in folds]

    @property
    def folder(self) -> Path:
        """The run folder, or the folder that contains all runs."""
        return Path(os.path.commonpath([run.folder.absolute() for run in self.runs]))


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
    folds: NDArray[np.int64]
    """The index of each utterance's fold, (utterances,)."""
    utterances: Sequence[Utterance] | None
    """The utterances as the corpus describes them; None if it cannot be read."""
    speakers_unknown: str
    """The reason why the corpus, and with it the speakers, could not be read; "" if it could."""

    @property
    def speakers(self) -> list[str] | None:
        """The speaker of each utterance; None if not all are known."""
        return speakers_of(self.utterances) if self.utterances is not None else None

    @property
    def selected(self) -> Mapping[int, Predictions]:
        """The predictions under the recipe's own selection rule, by seed."""
        return self.predictions[self.group.config["selection"]]


def group_runs(folders: Sequence[Path], *, finished: bool = True) -> list[RunGroup]:
    """Group the runs below folders, in the order in which they occur; runs of a search are left out.

    Folds and seeds may have been trained by separate commands and on different devices.

    Args:
        folders: Run folders, or folders that contain some.
        finished: Raise `BadConfig` for an unfinished run.

    Raises:
        BadConfig: A folder contains no run, a run is unfinished, or a seed lacks a fold or has one twice.
    """
    by_settings: dict[str, dict[int, list[Fold]]] = defaultdict(lambda: defaultdict(list))
    configs: dict[str, dict[str, Any]] = {}
    for run in (run for folder in folders for run in standalone_runs(folder)):
        config = run.config
        if finished:
            _check_finished(run, config)
        settings = repr(sorted(flatten(experiment_settings(config)).items()))
        configs.setdefault(settings, config)
        by_settings[settings][config["seed"]].append(Fold(run, run.split))
    groups = []
    for settings, seeds in by_settings.items():
        ordered = {seed: sorted(seeds[seed], key=_fold_order) for seed in sorted(seeds)}
        _check_folds(configs[settings]["name"], ordered)
        groups.append(RunGroup(configs[settings], ordered))
    return groups


def experiment_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that identify an experiment: all but seed, folds, and the device and threads that computed it."""
    training = {name: value for name, value in config["training"].items() if name not in ("device", "threads")}
    return {**{name: value for name, value in config.items() if name not in ("seed", "folds")}, "training": training}


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by their full names, such as "training.epochs"."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        nested = flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        result.update(nested)
    return result


def describe_differences(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return, for each experiment, the settings in which it differs from any other: "model.layers = 3, model.dim = 64".

    A setting that only some experiments have, such as one of another model, is listed if its values differ among them.
    """
    settings = [flatten(experiment_settings(config)) for config in configs]
    names = dict.fromkeys(name for experiment in settings for name in experiment if name != "name")
    differing = [name for name in names if len({repr(s[name]) for s in settings if name in s}) > 1]
    differing = differing or [name for name in names if not all(name in experiment for experiment in settings)]
    return [
        ", ".join(f"{name} = {experiment[name]}" for name in differing if name in experiment) for experiment in settings
    ]


def _fold_order(fold: Fold) -> tuple[int, str]:
    """Return a sort key that puts "2 of 10" before "10 of 10"."""
    number = fold.split.fold.partition(" ")[0]
    return (int(number) if number.isdecimal() else 0, fold.split.fold)


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
    predictions = {
        rule: {
            seed: np.concatenate(
                [_predictions(fold.run, rule)[indices] for fold, indices in zip(runs, positions, strict=True)]
            )
            for seed, runs in group.seeds.items()
        }
        for rule in applicable_rules(group)
    }
    labels = np.concatenate([fold.run.labels("test")[indices] for fold, indices in folds])
    fold_index = np.repeat(np.arange(len(folds)), [len(indices) for indices in positions])
    return TestPredictions(group, corpus, source, ids, labels, predictions, fold_index, *read_utterances(source, ids))


def applicable_rules(group: RunGroup) -> list[Rule]:
    """Return the selection rules whose subset all runs of a group have."""
    splits = [fold.split for folds in group.seeds.values() for fold in folds]
    return [
        rule
        for rule in RULES
        if rule not in SELECTION_SUBSET or all(SELECTION_SUBSET[rule] in split.subsets for split in splits)
    ]


def _predictions(run: Run, rule: Rule) -> Predictions:
    return run.predictions(select_epoch(run, rule))["test"]


def find_source(config: Mapping[str, Any], corpus: str) -> Source:
    """Return the source in a resolved recipe that has the given corpus id."""
    return next(source for source in map(Source.of, config["corpora"]) if source.id == corpus)


def read_utterances(source: Source, ids: Sequence[str]) -> tuple[list[Utterance] | None, str]:
    """Read utterances from their corpus.

    Returns:
        The utterances, None if the corpus cannot be read or lacks some; and the reason, "" if they could be read.
    """
    try:
        by_id = _read_by_id(source)
    except BadCorpus as error:
        return None, str(error)
    if missing := [name for name in ids if name not in by_id]:
        return (
            None,
            f"this copy of {source.title} lacks {len(missing)} of {len(ids)} test utterances, first {missing[0]}",
        )
    return [by_id[name] for name in ids], ""


@functools.cache
def _read_by_id(source: Source) -> dict[str, Utterance]:
    return {utterance_key(utterance): utterance for utterance in source.read()}
