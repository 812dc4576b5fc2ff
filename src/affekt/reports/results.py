"""The results of finished training runs: scores over seeds, scores under each selection rule, and paired comparisons.

Everything is derived from run folders. Where the corpora are available, they add the speakers, over which the intervals
are drawn, and whether the audio is the original. `affekt.reports.markdown` renders the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from affekt.corpora.source import OWN
from affekt.evaluation.comparison import Comparison, compare
from affekt.evaluation.metrics import confusion, ua, wa, wf1
from affekt.evaluation.scores import Scores, score
from affekt.extras import need
from affekt.protocols import INDEPENDENT, Split
from affekt.protocols.split import combined_hash
from affekt.published import PublishedResult, published_result
from affekt.runs.folder import Run
from affekt.runs.groups import Predictions, TestPredictions, collect_predictions, group_runs, test_corpora
from affekt.runs.selection import Rule


@dataclass(frozen=True)
class Spread:
    """A score over seeds, as fractions. Each seed's score counts the predictions of all its folds together."""

    mean: float
    std: float | None
    """The sample standard deviation; None for a single seed."""
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class ResultRow:
    """The scores of a group of runs, which differ by seed and fold only, on the test set of one corpus."""

    name: str
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
    seeds: tuple[int, ...]
    epochs: int
    """The number of epochs in the recipe; early stopping may have ended a run earlier."""
    selection: Rule
    UA: Spread
    WA: Spread
    WF1: Spread
    scores: Scores
    """The scores of all seeds' predictions together."""
    by_selection: Mapping[Rule, Spread]
    """UA under each selection rule."""
    optimism: float
    """The UA gained by selecting the epoch on the test set, compared with the better of the rules `last` and `validation`."""
    published: PublishedResult | None
    speakers_unknown: str
    """Why the speakers could not be read; "" where they could."""


@dataclass(frozen=True)
class Pair:
    """Two groups of runs compared on the same split, seed by seed, each under its own selection rule."""

    first: str
    second: str
    corpus: str
    split_hash: str
    by_seed: Mapping[int, Comparison]
    difference: Spread
    """The difference of UA, first minus second."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of the mean; each draw has the same speakers for both. None below 10 speakers."""


@dataclass(frozen=True)
class Results:
    """The scores of all groups of runs, and the comparisons of those that share a split."""

    rows: Sequence[ResultRow]
    pairs: Sequence[Pair]


def collect_results(folders: Sequence[Path]) -> Results:
    """Score the runs below folders, grouped over seeds and folds, and compare groups that share a split.

    Raises:
        BadConfig: A folder contains no run, a run is unfinished, or a run occurs twice.
    """
    tests = [collect_predictions(group, corpus) for group in group_runs(folders) for corpus in test_corpora(group)]
    rows = [_row(test) for test in tests]
    pairs = [
        _pair(first, first_row, second, second_row)
        for (first, first_row), (second, second_row) in combinations(zip(tests, rows, strict=True), 2)
        if _comparable(first_row, second_row)
    ]
    return Results(rows, pairs)


def _row(test: TestPredictions) -> ResultRow:
    config, folds = test.group.config, test.group.folds
    emotions, num_seeds = folds[0].run.emotions, len(test.selected)
    by_selection = {rule: _spread(ua, test.labels, by_seed) for rule, by_seed in test.predictions.items()}
    honest = max(by_selection[rule].mean for rule in ("last", "validation") if rule in by_selection)
    return ResultRow(
        name=config["name"],
        model=config["model"].get("name", f"from {config.get('start')}"),
        weights=_count_weights(folds[0].run),
        corpus=test.corpus,
        title=test.corpus if test.source.name in OWN else test.source.title,
        note="" if test.speakers_unknown else test.source.note,
        labels=config["labels"],
        emotions=emotions,
        protocol=_protocol([fold.split for fold in folds]),
        utterances=len(set(test.ids)),
        speakers=len(set(test.speakers)) if test.speakers else None,
        split_hash=combined_hash(fold.split for fold in folds),
        verdict=next((fold.split.verdict for fold in folds if not fold.split.speaker_independent), INDEPENDENT),
        seeds=tuple(test.selected),
        epochs=config["training"]["epochs"],
        selection=config["selection"],
        UA=_spread(ua, test.labels, test.selected),
        WA=_spread(wa, test.labels, test.selected),
        WF1=_spread(wf1, test.labels, test.selected),
        scores=score(
            np.tile(test.labels, num_seeds),
            np.concatenate(list(test.selected.values())),
            emotions,
            test.speakers and list(test.speakers) * num_seeds,
            units=list(test.ids) * num_seeds,
        ),
        by_selection=by_selection,
        optimism=by_selection["paper"].mean - honest,
        published=published_result(config, folds[0].run.descriptions.get("published")),
        speakers_unknown=test.speakers_unknown,
    )


def _spread(
    metric: Callable[[NDArray[np.int64]], float], labels: NDArray[np.int64], by_seed: Mapping[int, Predictions]
) -> Spread:
    matrices = [
        confusion(labels, probabilities.argmax(axis=1), probabilities.shape[1]) for probabilities in by_seed.values()
    ]
    return spread_of([metric(counts) for counts in matrices])


def spread_of(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of one value per seed."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, tuple(values))


def _protocol(splits: Sequence[Split]) -> str:
    first = splits[0]
    description = f" ({first.description})" if first.description else ""
    return first.title if len(splits) == 1 else f"{first.name}{description}, {len(splits)} folds"


def _count_weights(run: Run) -> int | None:
    path = run.weights_path(run.epochs[-1])
    if not path.is_file():
        return None
    with need("safetensors", extra="train", purpose="counting weights").safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)


def _comparable(first: ResultRow, second: ResultRow) -> bool:
    same = all(getattr(first, name) == getattr(second, name) for name in ("corpus", "split_hash", "emotions"))
    return same and bool(set(first.seeds) & set(second.seeds))


def _pair(first: TestPredictions, first_row: ResultRow, second: TestPredictions, second_row: ResultRow) -> Pair:
    comparison = compare_by_seed(first.labels, first.selected, second.selected, first.speakers)
    return Pair(first_row.name, second_row.name, first_row.corpus, first_row.split_hash, *comparison)


def compare_by_seed(
    labels: NDArray[np.int64],
    first: Mapping[int, Predictions],
    second: Mapping[int, Predictions],
    speakers: Sequence[str] | None,
) -> tuple[Mapping[int, Comparison], Spread, tuple[float, float] | None]:
    """Compare two systems' predictions on the same utterances, seed by seed.

    Returns:
        The comparison for each shared seed, the difference of UA over these seeds, and the 95 % interval of its mean, from
        the predictions of all shared seeds together.
    """
    shared = [seed for seed in first if seed in second]
    by_seed = {seed: compare(labels, first[seed], second[seed], speakers) for seed in shared}
    together = compare(
        np.tile(labels, len(shared)),
        np.concatenate([first[seed] for seed in shared]),
        np.concatenate([second[seed] for seed in shared]),
        speakers and list(speakers) * len(shared),
    )
    return by_seed, spread_of([comparison.value for comparison in by_seed.values()]), together.interval
