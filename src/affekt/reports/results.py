"""Finished trainings side by side: scores over seeds, what each selection would have printed, and paired comparisons.

Everything derives from run folders. The corpora, where they are found, tell who speaks, which the intervals go by, and
whether the audio is the original. `affekt.reports.markdown` makes Markdown of it.
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
from affekt.evaluation.metrics import confusion, ua, wa, wf1
from affekt.evaluation.scores import Comparison, Scores, compare, score
from affekt.extras import need
from affekt.protocols import INDEPENDENT, Split
from affekt.protocols.split import combined_hash
from affekt.runs.folder import Run
from affekt.runs.groups import Predictions, TestPredictions, collect_predictions, group_runs, test_corpora
from affekt.runs.selection import Rule


@dataclass(frozen=True)
class Printed:
    """What a paper prints, as shares, and why ours beside it is no reproduction of it. None: it does not print that."""

    source: str
    differs: str
    UA: float | None = None
    WA: float | None = None
    WF1: float | None = None


MSTR_TABLE = "Li et al., Interspeech 2023, Table 2"
MSTR_DIFFERS = (
    "not comparable one to one: the paper hears the original audio through HuBERT large and draws an 80/20 that it does not "
    "publish, ours hears one block of Whisper tiny.en through a narrower model; compare the two models with one another"
)
MELD_TEXT = Printed(
    "Poria et al., ACL 2019, words alone, the same test part: text-CNN 55.0, bcLSTM 56.4 WF1",
    "baselines by MELD's makers: MCSAN's paper prints its row without audio for IEMOCAP alone",
)
# By the recipe's and the protocol's names.
PRINTED = {
    ("mcsan-meld", "official"): MELD_TEXT,
    ("mcsan-meld-minilm", "official"): MELD_TEXT,
    ("vanilla-cremad", "mstr-random"): Printed(MSTR_TABLE, MSTR_DIFFERS, UA=0.779, WA=0.777),
    ("mstr-cremad", "mstr-random"): Printed(MSTR_TABLE, MSTR_DIFFERS, UA=0.7992, WA=0.797),
}


@dataclass(frozen=True)
class Spread:
    """Over seeds, as shares; each seed's folds counted together."""

    mean: float
    deviation: float | None  # of a sample; None for one seed
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class ResultRow:
    """A training's scores on the test part of one corpus. `scores` counts the answers of all its seeds together."""

    name: str
    model: str
    weights: int | None  # numbers in the trained network's file: a frozen encoder is not among them
    corpus: str  # its id
    title: str
    note: str  # what has to be said of the copy of the corpus, such as "rebuilt audio"
    labels: str
    emotions: tuple[str, ...]
    protocol: str
    utterances: int
    people: int | None
    split_hash: str
    verdict: str
    seeds: tuple[int, ...]
    epochs: int  # trained, at most
    selection: Rule
    UA: Spread
    WA: Spread
    WF1: Spread
    scores: Scores
    by_selection: Mapping[Rule, Spread]  # UA
    optimism: float  # UA that choosing the epoch on the test part gains over the better of the honest rules
    printed: Printed | None
    doubt: str  # why nobody knows who speaks; "" where it is known


@dataclass(frozen=True)
class Pair:
    """Two trainings on the same split, seed by seed and over all seeds that they share, by each one's own selection."""

    first: str
    second: str
    corpus: str
    split_hash: str
    by_seed: Mapping[int, Comparison]
    difference: Spread  # of UA, first minus second
    interval: tuple[float, float] | None  # 95 %, of the mean, from drawing the same speakers for both; None below 10


@dataclass(frozen=True)
class Results:
    rows: Sequence[ResultRow]
    pairs: Sequence[Pair]


def results(folders: Sequence[Path]) -> Results:
    """The scores of all trainings below these folders, and the comparisons of those that share a split.

    Raises `BadConfig` for a folder without runs, for an unfinished run, and for one that is there twice.
    """
    parts = [collect_predictions(one, corpus) for one in group_runs(folders) for corpus in test_corpora(one)]
    rows = [_row(part) for part in parts]
    pairs = [
        _pair(*one, *other)
        for one, other in combinations(zip(parts, rows, strict=True), 2)
        if _comparable(one[1], other[1])
    ]
    return Results(rows, pairs)


def _row(part: TestPredictions) -> ResultRow:
    config, folds = part.training.config, part.training.folds
    emotions, seeds = folds[0].run.emotions, len(part.chosen)
    by_selection = {rule: _spread(ua, part.labels, answers) for rule, answers in part.answers.items()}
    honest = max(by_selection[rule].mean for rule in ("last", "validation") if rule in by_selection)
    title = part.corpus if part.source.name in OWN else part.source.title
    return ResultRow(
        name=config["name"],
        model=config["model"].get("name", f"from {config.get('start')}"),
        weights=_weights(folds[0].run),
        corpus=part.corpus,
        title=title,
        note="" if part.doubt else part.source.note,
        labels=config["labels"],
        emotions=emotions,
        protocol=_protocol([fold.split for fold in folds]),
        utterances=len(set(part.ids)),
        people=len(set(part.people)) if part.people else None,
        split_hash=combined_hash(fold.split for fold in folds),
        verdict=next((fold.split.verdict for fold in folds if not fold.split.speaker_independent), INDEPENDENT),
        seeds=tuple(part.chosen),
        epochs=config["training"]["epochs"],
        selection=config["selection"],
        UA=_spread(ua, part.labels, part.chosen),
        WA=_spread(wa, part.labels, part.chosen),
        WF1=_spread(wf1, part.labels, part.chosen),
        scores=score(
            np.tile(part.labels, seeds),
            np.concatenate(list(part.chosen.values())),
            emotions,
            part.people and list(part.people) * seeds,
            units=list(part.ids) * seeds,
        ),
        by_selection=by_selection,
        optimism=by_selection["paper"].mean - honest,
        printed=PRINTED.get((config["name"], config["protocol"]["name"])),
        doubt=part.doubt,
    )


def _spread(
    metric: Callable[[NDArray[np.int64]], float], labels: NDArray[np.int64], answers: Mapping[int, Predictions]
) -> Spread:
    return spread([metric(confusion(labels, one.argmax(axis=1), one.shape[1])) for one in answers.values()])


def spread(values: Sequence[float]) -> Spread:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), deviation, tuple(values))


def _protocol(splits: Sequence[Split]) -> str:
    first = splits[0]
    described = f" ({first.description})" if first.description else ""
    return first.title if len(splits) == 1 else f"{first.name}{described}, {len(splits)} folds"


def _weights(run: Run) -> int | None:
    path = run.weights(run.epochs[-1])
    if not path.is_file():
        return None
    with need("safetensors", extra="train", purpose="counting weights").safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)


def _comparable(one: ResultRow, other: ResultRow) -> bool:
    same = all(getattr(one, what) == getattr(other, what) for what in ("corpus", "split_hash", "emotions"))
    return same and bool(set(one.seeds) & set(other.seeds))


def _pair(first: TestPredictions, row: ResultRow, second: TestPredictions, other: ResultRow) -> Pair:
    together = paired(first.labels, first.chosen, second.chosen, first.people)
    return Pair(row.name, other.name, row.corpus, row.split_hash, *together)


def paired(
    labels: NDArray[np.int64],
    first: Mapping[int, Predictions],
    second: Mapping[int, Predictions],
    people: Sequence[str] | None,
) -> tuple[Mapping[int, Comparison], Spread, tuple[float, float] | None]:
    """Two systems' answers to the same utterances, by seed: each shared seed's comparison, the differences of UA, and the
    interval of their mean, over all shared seeds together."""
    shared = [seed for seed in first if seed in second]
    by_seed = {seed: compare(labels, first[seed], second[seed], people) for seed in shared}
    together = compare(
        np.tile(labels, len(shared)),
        np.concatenate([first[seed] for seed in shared]),
        np.concatenate([second[seed] for seed in shared]),
        people and list(people) * len(shared),
    )
    return by_seed, spread([one.value for one in by_seed.values()]), together.interval
