"""The results of finished training runs: scores over seeds, scores under each selection rule, and paired comparisons.

Everything is derived from run folders. Where the corpora are available, they add the speakers, over which the intervals
are drawn, and whether the audio is the original. `affekt.reports.markdown` renders the results.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from affekt.corpora.source import OWN
from affekt.errors import BadConfig
from affekt.evaluation.calibration import TemperatureScaling
from affekt.evaluation.comparison import Comparison, compare
from affekt.evaluation.scores import Scores, score
from affekt.evaluation.significance import holm
from affekt.evaluation.spread import FoldScores, Spread, score_folds, spread_of, spread_over_seeds
from affekt.extras import need
from affekt.plural import quantity
from affekt.protocols.split import combined_hash, combined_title, combined_verdict, describe_verdicts
from affekt.published import PublishedResult, published_result
from affekt.reports.calibration import calibrate
from affekt.runs.folder import Run
from affekt.runs.groups import (
    TestPredictions,
    collect_predictions,
    describe_differences,
    group_runs,
    test_corpora,
)
from affekt.runs.selection import RULES, Rule


@dataclass(frozen=True)
class ResultRow:
    """The scores of a group of runs, which differ by seed and fold only, on the test set of one corpus."""

    name: str
    label: str
    """The name, or the folder if several rows have the same name."""
    folder: str
    """The folder that contains the runs, relative to the folder that contains all groups."""
    differences: str
    """The settings that differ from those of other groups: "model.dim = 64"."""
    model: str
    weights: int | None
    """The number of weights in the trained network's file, which does not include a frozen encoder; None without the file."""
    corpus: str
    """The corpus's id."""
    title: str
    note: str
    """A remark on this copy of the corpus, such as "rebuilt audio"."""
    labels: str
    emotions: tuple[str, ...]
    protocol: str
    utterances: int
    speakers: int | None
    split_hash: str
    verdict: str
    """Whether a test speaker was trained on: "speaker-independent", "NOT speaker-independent" or "speakers unknown"."""
    verdicts: str
    """The verdict, with the one on the validation subset if it differs."""
    seeds: tuple[int, ...]
    folds: Sequence[FoldScores]
    """The scores of each fold."""
    epochs: int
    """The number of epochs in the recipe; early stopping may have ended a run earlier."""
    selection: Rule
    UA: Spread
    WA: Spread
    WF1: Spread
    scores: Scores
    """The scores with intervals; the mean over the seeds of the metric over all folds' predictions together."""
    calibration: TemperatureScaling
    by_selection: Mapping[Rule, Spread]
    """UA under each selection rule."""
    optimism: float
    """The UA gained by selecting the epoch on the test set, compared with the better of the rules `last` and `validation`."""
    published: PublishedResult | None
    speakers_unknown: str
    """Why the speakers could not be read; "" where they could."""

    @property
    def line(self) -> str:
        """The protocol, the selection of the epoch and the seeds in one line, which belongs to every score."""
        return (
            f"{self.protocol_line}; epoch: {RULES[self.selection]}; "
            f"{quantity(len(self.seeds), 'seed')} ({', '.join(map(str, self.seeds))})"
        )

    @property
    def protocol_line(self) -> str:
        """The corpus, the classes, the test utterances and the split in one line."""
        speakers = f" of {quantity(self.speakers, 'speaker')}" if self.speakers else ""
        return (
            f"{self.title}{f', {self.note}' if self.note else ''}; {len(self.emotions)} classes "
            f"({', '.join(self.emotions)}); {quantity(self.utterances, 'test utterance')}{speakers}; {self.protocol}; "
            f"split {self.split_hash}; {self.verdicts}"
        )


@dataclass(frozen=True)
class Pair:
    """Two groups of runs compared on the same utterances, each under its own selection rule."""

    first: str
    second: str
    """The labels of their rows."""
    corpus: str
    split_hash: str
    """The split of the first."""
    comparison: Comparison
    difference: Spread
    """The difference over the seeds that both have, first minus second; over one value if they share no seed."""
    corrected_p: float | None
    """The p-value of the paired bootstrap after Holm's correction over all comparisons on the same utterances."""


@dataclass(frozen=True)
class Results:
    """The scores of all groups of runs, and the comparisons of those that share a split."""

    rows: Sequence[ResultRow]
    pairs: Sequence[Pair]


def collect_results(
    folders: Sequence[Path], *, metric: str = "UA", against: Sequence[Path] = (), force: bool = False
) -> Results:
    """Score the runs below folders, grouped over seeds and folds, and compare groups that share a split.

    Args:
        folders: Run folders, or folders that contain some.
        metric: The metric of the comparisons: "UA", "WA" or "WF1".
        against: The run folders of references: other groups are compared with these only. Empty to compare every
            pair of groups.
        force: Also compare groups that were trained on different splits, if they have the same test utterances.

    Raises:
        BadConfig: A folder contains no run, a run is unfinished, a run occurs twice, or a reference is not one group of runs.
    """
    return score_tests(collect_tests(folders, against), metric=metric, against=against, force=force)


def score_tests(
    tests: Sequence[TestPredictions], *, metric: str = "UA", against: Sequence[Path] = (), force: bool = False
) -> Results:
    """Score groups of runs whose predictions are read already, a row for each; otherwise like `collect_results`."""
    rows = _rows(tests)
    compared = [
        (first, second)
        for first, second in combinations(range(len(tests)), 2)
        if _comparable(tests[first], tests[second], force)
    ]
    if against:
        is_reference = [any(_is_below(test, folder) for folder in against) for test in tests]
        compared = [
            (second, first) if is_reference[first] else (first, second)
            for first, second in compared
            if is_reference[first] != is_reference[second]
        ]
    return Results(rows, _pairs(tests, rows, compared, metric))


def collect_tests(folders: Sequence[Path], against: Sequence[Path] = ()) -> list[TestPredictions]:
    """Return the test predictions of the runs below folders, by group and corpus, the references first."""
    inside = [folder.absolute() for folder in folders]
    outside = []
    for reference in against:
        if len(group_runs([reference])) != 1:
            raise BadConfig(
                f"{reference} contains runs of several experiments: expected the folder of one, as the reference"
            )
        if not any(folder in (reference.absolute(), *reference.absolute().parents) for folder in inside):
            outside.append(reference)
    groups = group_runs([*outside, *folders])
    return [collect_predictions(group, corpus) for group in groups for corpus in test_corpora(group)]


def _is_below(test: TestPredictions, folder: Path) -> bool:
    """Return True if the runs of a group are in a folder."""
    first = test.group.runs[0].folder.absolute()
    return folder.absolute() in (first, *first.parents)


def _rows(tests: Sequence[TestPredictions]) -> list[ResultRow]:
    differences = _differences(tests)
    folders = [test.group.folder for test in tests]
    root = Path(os.path.commonpath(folders)) if len(set(folders)) > 1 else None
    names = Counter(
        name for name, _ in {(test.group.config["name"], folder) for test, folder in zip(tests, folders, strict=True)}
    )
    rows = []
    for test, difference, folder in zip(tests, differences, folders, strict=True):
        relative = folder.relative_to(root).as_posix() if root and folder != root else folder.name
        row = _row(test, relative, difference)
        rows.append(replace(row, label=row.name if names[row.name] == 1 else relative))
    return rows


def _differences(tests: Sequence[TestPredictions]) -> list[str]:
    """Return the settings in which each group of runs differs from those on the same split; if it is alone, from all."""
    everywhere = describe_differences([test.group.config for test in tests])
    keys = [(test.corpus, split_hash(test)) for test in tests]
    result = []
    for index, key in enumerate(keys):
        same = [other for other, other_key in enumerate(keys) if other_key == key]
        described = describe_differences([tests[other].group.config for other in same])
        result.append(described[same.index(index)] if len(same) > 1 else everywhere[index])
    return result


def _row(test: TestPredictions, folder: str, differences: str) -> ResultRow:
    config, folds = test.group.config, test.group.folds
    emotions, splits = folds[0].run.emotions, [fold.split for fold in folds]
    by_selection = {rule: spread_over_seeds("UA", test.labels, by_seed) for rule, by_seed in test.predictions.items()}
    best_without_test = max(by_selection[rule].mean for rule in ("last", "validation") if rule in by_selection)
    speakers = test.speakers
    return ResultRow(
        name=config["name"],
        label=config["name"],
        folder=folder,
        differences=differences,
        model=config["model"].get("name", f"from {config.get('start')}"),
        weights=_count_weights(folds[0].run),
        corpus=test.corpus,
        title=test.corpus if test.source.name in OWN else test.source.title,
        note="" if test.speakers_unknown else test.source.note,
        labels=config["labels"],
        emotions=emotions,
        protocol=combined_title(splits),
        utterances=len(set(test.ids)),
        speakers=len(set(speakers)) if speakers else None,
        split_hash=combined_hash(splits),
        verdict=combined_verdict(split.verdict for split in splits),
        verdicts=describe_verdicts(splits),
        seeds=tuple(test.selected),
        folds=score_folds(test.labels, test.selected, test.folds, [split.fold for split in splits]),
        epochs=config["training"]["epochs"],
        selection=config["selection"],
        **{metric: spread_over_seeds(metric, test.labels, test.selected) for metric in ("UA", "WA", "WF1")},
        scores=score(test.labels, list(test.selected.values()), emotions, speakers, units=test.ids),
        calibration=calibrate(test, config["selection"]),
        by_selection=by_selection,
        optimism=by_selection["paper"].mean - best_without_test,
        published=published_result(config, folds[0].run.descriptions.get("published")),
        speakers_unknown=test.speakers_unknown,
    )


def _count_weights(run: Run) -> int | None:
    path = run.weights_path(run.epochs[-1])
    if not path.is_file():
        return None
    with need("safetensors", extra="train", purpose="counting weights").safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)


def _comparable(first: TestPredictions, second: TestPredictions, force: bool) -> bool:
    """Return True if two groups were scored on the same test utterances and, unless forced, trained on the same split."""
    if (first.corpus, first.ids, first.group.folds[0].run.emotions) != (
        second.corpus,
        second.ids,
        second.group.folds[0].run.emotions,
    ):
        return False
    return force or split_hash(first) == split_hash(second)


def split_hash(test: TestPredictions) -> str:
    """Return the hash of the splits of a group's folds."""
    return combined_hash(fold.split for fold in test.group.folds)


def _pairs(
    tests: Sequence[TestPredictions], rows: Sequence[ResultRow], compared: Sequence[tuple[int, int]], metric: str
) -> list[Pair]:
    pairs = [
        Pair(
            rows[first].label,
            rows[second].label,
            rows[first].corpus,
            rows[first].split_hash,
            *compare_tests(tests[first], tests[second], metric),
            corrected_p=None,
        )
        for first, second in compared
    ]
    families = [(pair.corpus, pair.split_hash) for pair in pairs]
    corrected: dict[int, float] = {}
    for family in dict.fromkeys(families):
        members = {
            index: pair.comparison.p
            for index, pair in enumerate(pairs)
            if families[index] == family and pair.comparison.p is not None
        }
        corrected |= zip(members, holm(list(members.values())), strict=True)
    return [replace(pair, corrected_p=corrected.get(index)) for index, pair in enumerate(pairs)]


def compare_tests(first: TestPredictions, second: TestPredictions, metric: str) -> tuple[Comparison, Spread]:
    """Compare two groups on the same utterances, over the seeds that both have, or over all if they share none."""
    shared = set(first.selected) & set(second.selected)
    first_system, second_system = (
        {seed: predictions for seed, predictions in test.selected.items() if not shared or seed in shared}
        for test in (first, second)
    )
    num_folds = len(first.group.folds)
    comparison = compare(
        first.labels,
        first_system,
        second_system,
        first.speakers,
        units=first.ids,
        folds=first.folds if num_folds > 1 else None,
        metric=metric,
    )
    values = [by_seed.value for by_seed in comparison.by_seed.values()] or [comparison.value]
    return comparison, spread_of(values)
