"""Architecture searches put together: what they found beside random search and known cells, and what they cost.

Searches that are alike but for seed and fold are one table. Everything derives from the folders that `affekt.search.folder`
describes; a search that has not ended gives the rows that it has. `affekt.reports.markdown` makes Markdown of it,
`affekt.search.report.page` a page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from affekt.corpora.source import OWN, Source
from affekt.errors import BadConfig
from affekt.evaluation.comparison import Comparison
from affekt.plural import quantity
from affekt.protocols import INDEPENDENT
from affekt.protocols.split import combined_hash
from affekt.reports.results import Spread, compare_by_seed
from affekt.runs.folder import Run
from affekt.runs.groups import find_source, is_finished, read_speakers
from affekt.runs.selection import Rule
from affekt.search.folder import Round, Search, searches_in
from affekt.search.report.networks import (
    FOUND_CELL,
    FOUND_RECIPE,
    FUSION,
    PICKED,
    SEARCHED,
    STAGES,
    Answered,
    Group,
    NetworkCost,
    NetworkRow,
    answered,
    cost,
    runs_of,
)

KNOWN = {"known cells": FOUND_CELL, "known recipes": FOUND_RECIPE}  # beside what they are compared


@dataclass(frozen=True)
class Difference:
    """Differences of UA, first minus second: by seed, and over all seeds that both have."""

    branch: str
    first: str
    second: str
    by_seed: Mapping[int, Comparison]
    difference: Spread
    interval: tuple[float, float] | None  # 95 %, of the mean, from drawing the same speakers for both; None below 10


@dataclass(frozen=True)
class Found:
    """The results of the search of one seed and one fold, and its progress."""

    seed: int
    fold: str
    genotype: Mapping[str, Any] | None  # what was found, or what the search would give by now
    skips: int | None  # operations of the normal cell that are skip connections
    collapsed: bool
    recipe_name: str
    recipe: Mapping[str, Any] | None  # None, too, where only a published recipe's name was written down
    rounds: Sequence[Round]
    stages: Mapping[str, NetworkCost]
    unfinished: tuple[str, ...]  # runs that have begun and are not at their end: they go on, or came apart
    missing: tuple[str, ...]  # stages of which there is nothing: not yet, or they were left out

    @property
    def title(self) -> str:
        return f"seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")


@dataclass(frozen=True)
class SearchTable:
    name: str
    title: str  # of the corpora
    note: str  # what has to be said of the copy of the corpus, such as "rebuilt audio"
    labels: str
    emotions: tuple[str, ...]
    protocol: str
    utterances: int
    people: int | None
    split_hash: str
    verdict: str
    selection: Rule
    alphas_on: str  # what the alphas learnt from: "validation", "half" of the training set, or "" if unknown
    doubt: str  # why nobody knows who speaks; "" where it is known
    rows: Sequence[NetworkRow]
    differences: Sequence[Difference]
    searches: Sequence[Found]

    def row(self, branch: str, what: str) -> NetworkRow | None:
        return next((row for row in self.rows if (row.branch, row.what) == (branch, what)), None)

    def difference(self, first: str, second: str) -> Difference | None:
        return next((one for one in self.differences if (one.first, one.second) == (first, second)), None)


def stage_costs(table: SearchTable) -> dict[str, NetworkCost]:
    """Return the cost of each stage that has begun, over all seeds and folds."""
    found: dict[str, NetworkCost] = {}
    for stage in STAGES:
        if costs := [one.stages[stage] for one in table.searches if stage in one.stages]:
            amounts = (sum(getattr(one, what) for one in costs) for what in ("runs", "epochs", "seconds"))
            found[stage] = NetworkCost(*amounts)
    return found


def search_results(folders: Iterable[Path]) -> list[SearchTable]:
    """A table for each search below these folders; none where there is none.

    Raises `BadConfig` for a search that is there twice, for one of which no seed has all folds, and for one whose networks
    were scored on different utterances.
    """
    return [_table(searches) for searches in alike(folders)]


def alike(folders: Iterable[Path]) -> list[list[Search]]:
    """The searches that have begun, those that are alike but for seed and fold together, by seed and then by fold."""
    found: dict[str, dict[tuple[int, str], Search]] = {}
    for search in (search for folder in folders for search in searches_in(folder)):
        if (run := _first(search)) is None:
            continue
        config = search.config
        settings = repr(sorted((name, value) for name, value in config.items() if name not in ("seed", "folds")))
        known, place = found.setdefault(settings, {}), (int(config["seed"]), run.split.fold)
        if place in known:
            raise BadConfig(
                f"seed {place[0]} of {config['name']} is there twice: {known[place].folder} and {search.folder}; "
                "give one of them"
            )
        known[place] = search
    return [[known[place] for place in sorted(known)] for known in found.values()]


def _first(search: Search) -> Run | None:
    """The run that tells the split. A fusion may train on another part, so it comes last."""
    return next((run for stage in STAGES for run in runs_of(search, stage).values()), None)


def _table(searches: Sequence[Search]) -> SearchTable:
    runs = {search: run for search in searches if (run := _first(search))}
    group, doubt = _group(runs)
    rows = answered(group)
    config, splits = runs[searches[0]].config, group.splits
    sources = _sources(config, group.ids).values()
    return SearchTable(
        name=searches[0].config["name"],
        title=", ".join(one.id if one.name in OWN else one.title for one in sources),
        note="" if doubt else ", ".join(dict.fromkeys(one.note for one in sources if one.note)),
        labels=config["labels"],
        emotions=group.emotions,
        protocol=splits[0].title if len(splits) == 1 else f"{splits[0].name}, {len(splits)} folds",
        utterances=len(group.ids),
        people=len(set(group.people)) if group.people else None,
        split_hash=combined_hash(splits),
        verdict=next((split.verdict for split in splits if not split.speaker_independent), INDEPENDENT),
        selection=config["selection"],
        alphas_on=_alphas_on(searches),
        doubt=doubt,
        rows=[one.row for one in rows],
        differences=_differences(group, rows),
        searches=[_found(search, runs[search]) for search in searches],
    )


def _alphas_on(searches: Sequence[Search]) -> str:
    runs = (run for search in searches for run in runs_of(search, "search of the cell").values())
    return next((str(run.config["training"].get("strategy", {}).get("learn_alphas_on", "")) for run in runs), "")


def _group(runs: Mapping[Search, Run]) -> tuple[Group, str]:
    """The group of the seeds that have all folds; and why it is not known who speaks, where it is not."""
    splits = {search: run.split for search, run in runs.items()}
    folds = len({split.fold for split in splits.values()})
    by_seed: dict[int, list[Search]] = {}
    for search in runs:
        by_seed.setdefault(int(search.config["seed"]), []).append(search)
    whole = {seed: found for seed, found in by_seed.items() if len(found) == folds}
    if not whole:
        raise BadConfig(
            f"{next(iter(runs)).folder}: no seed has all {folds} folds of its search: give those of one fold"
        )
    first = next(iter(whole.values()))
    labels = np.concatenate([runs[search].labels("test") for search in first])
    here = [splits[search] for search in first]
    config = runs[first[0]].config
    people, doubt = _people(config, [one for split in here for one in split.subsets["test"]])
    return Group(whole, here, runs[first[0]].emotions, labels, people), doubt


def _sources(config: Mapping[str, Any], ids: Iterable[str]) -> dict[str, Source]:
    return {corpus: find_source(config, corpus) for corpus in sorted({one.partition("/")[0] for one in ids})}


def _people(config: Mapping[str, Any], ids: Sequence[str]) -> tuple[list[str] | None, str]:
    """Who speaks each utterance, None where that is not known of all; and why it cannot be known."""
    known: dict[str, str] = {}
    for corpus, source in _sources(config, ids).items():
        its = [one for one in ids if one.startswith(f"{corpus}/")]
        people, doubt = read_speakers(source, its)
        if people is None:
            return None, doubt
        known.update(zip(its, people, strict=True))
    return [known[one] for one in ids], ""


def _differences(group: Group, rows: Sequence[Answered]) -> list[Difference]:
    by_place = {(one.row.branch, one.row.what): one for one in rows}
    found = [_difference(group, by_place[first], by_place[second]) for first, second in _pairs(group, by_place)]
    return [one for one in found if one.by_seed]


def _pairs(group: Group, rows: Mapping[tuple[str, str], Answered]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Compare the found networks with random search and with known ones, and the fusion against the better branch."""
    cell, recipe, fusion = ("spectrogram", FOUND_CELL), ("recurrent", FOUND_RECIPE), ("fusion", FUSION)
    pairs = [(one, (one[0], PICKED)) for one in (cell, recipe)] + [(cell, ("spectrogram", SEARCHED))]
    for stage, what in KNOWN.items():
        branch = STAGES[stage][0]
        names = sorted({name for search in group.searches for name in runs_of(search, stage)})
        pairs += [((branch, what), (branch, name)) for name in names]
    # The better one by the test set itself, which makes it the harder to surpass.
    branches = [one for one in (cell, recipe) if one in rows]
    if len(branches) == 2:
        pairs.append((fusion, max(branches, key=lambda one: rows[one].row.UA.mean)))
    return [(first, second) for first, second in pairs if first in rows and second in rows]


def _difference(group: Group, first: Answered, second: Answered) -> Difference:
    (mine, theirs) = ({seed: several[0] for seed, several in one.answers.items()} for one in (first, second))
    shared = [seed for seed in mine if seed in theirs]
    if not shared:
        return Difference(first.row.branch, first.row.what, second.row.what, {}, Spread(0.0, None, ()), None)
    return Difference(
        first.row.branch, first.row.what, second.row.what, *compare_by_seed(group.labels, mine, theirs, group.people)
    )


def _found(search: Search, first: Run) -> Found:
    found, recipe = _read(search.genotype_path), _read(search.recurrent_recipe_path) or {}
    said = _said_of(search, found)
    runs = {stage: runs_of(search, stage) for stage in STAGES}
    mapping = recipe.get("recipe")
    return Found(
        seed=int(search.config["seed"]),
        fold=first.split.fold,
        genotype=found or said.get("genotype"),
        skips=said.get("skips"),
        collapsed=bool(said.get("collapsed")),
        recipe_name=str(recipe.get("name", "")),
        recipe=mapping if isinstance(mapping, Mapping) else None,
        rounds=search.rounds,
        stages={stage: cost(list(several.values())) for stage, several in runs.items() if several},
        unfinished=tuple(text for stage, several in runs.items() for text in _unfinished(search, stage, several)),
        missing=tuple(stage for stage, several in runs.items() if not several),
    )


def _said_of(search: Search, genotype: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the log entry of a genotype, or of the newest if none is found yet: it may be from an earlier epoch."""
    log = next((run.log() for run in runs_of(search, "search of the cell").values()), [])
    newest: Mapping[str, Any] = log[-1] if log else {}
    return next((line for line in reversed(log) if line.get("genotype") == genotype), newest)


def _unfinished(search: Search, stage: str, runs: Mapping[str, Run]) -> list[str]:
    """Candidates that a round left behind have ended."""
    place = "/".join(STAGES[stage])
    if stage == "candidate recipes":
        ended = not runs or search.selected_candidate
        candidates, rounds = quantity(len(runs), "candidate"), quantity(len(search.rounds), "round")
        return [] if ended else [f"{place}: {candidates}, {rounds} ended"]
    return [
        f"{place if name == STAGES[stage][-1] else f'{place}/{name}'}: epoch {len(run.epochs)} of "
        f"{run.config['training']['epochs']}{', its loss no longer a number' if run.diverged else ''}"
        for name, run in runs.items()
        if not is_finished(run)
    ]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
