"""Results of architecture searches: the scores of the found networks, of random search and of known cells, and the cost.

Searches that differ only in seed and fold share a table. All of it is read from the folders that `affekt.search.folder`
describes. An unfinished search contributes the rows that it has so far. `affekt.search.report.markdown` writes the tables as
Markdown, `affekt.search.report.page` as an HTML page.
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
from affekt.evaluation.comparison import SeedComparison, compare
from affekt.evaluation.spread import Spread, spread_of
from affekt.plural import quantity
from affekt.protocols.split import combined_hash, combined_title, describe_verdicts
from affekt.runs.folder import Run
from affekt.runs.groups import find_source, is_finished, read_utterances
from affekt.runs.selection import Rule
from affekt.search.folder import Round, Search, searches_in
from affekt.search.report.networks import (
    FOUND_CELL,
    FOUND_RECURRENT_CELL,
    FUSION,
    RANDOM_SEARCH,
    STAGES,
    SUPERNET,
    NetworkCost,
    NetworkRow,
    ScoredNetworks,
    SearchGroup,
    score_networks,
    stage_runs,
    total_cost,
)
from affekt.utterance import speakers_of

# The stages that train published cells, and the found network that each is compared with.
KNOWN_STAGES = {"known cells": FOUND_CELL, "known recurrent cells": FOUND_RECURRENT_CELL}
NetworkKey = tuple[str, str]  # branch and name


@dataclass(frozen=True)
class Difference:
    """The difference of UA between two networks, first minus second."""

    branch: str
    first: str
    second: str
    by_seed: Mapping[int, SeedComparison]
    """Seed -> the comparison, for the seeds that both networks have."""
    difference: Spread
    """Mean and standard deviation over these seeds."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of the mean; each sample has the same speakers for both. None below 10 speakers."""


@dataclass(frozen=True)
class SearchOutcome:
    """The results and the progress of the search of one seed and one fold."""

    seed: int
    fold: str
    genotype: Mapping[str, Any] | None
    """The found genotype, or the one that an unfinished search selects so far."""
    skips: int | None
    """The number of skip connections in the normal cell."""
    collapsed: bool
    recipe_name: str
    """The name of the found recurrent cell."""
    recipe: Mapping[str, Any] | None
    """The graph of the found recurrent cell; None also if only the name of a published one was saved."""
    rounds: Sequence[Round]
    stages: Mapping[str, NetworkCost]
    """The cost of each stage that has begun."""
    unfinished: tuple[str, ...]
    """Runs that have begun and are not finished: they are in progress, or diverged."""
    missing: tuple[str, ...]
    """Stages without a run: they have not begun, or were skipped."""

    @property
    def title(self) -> str:
        return f"seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")


@dataclass(frozen=True)
class SearchTable:
    """The results of searches that differ only in seed and fold."""

    name: str
    title: str
    """The titles of the corpora."""
    note: str
    """A remark on this copy of the corpora, such as "rebuilt audio"."""
    labels: str
    emotions: tuple[str, ...]
    protocol: str
    utterances: int
    speakers: int | None
    split_hash: str
    verdict: str
    selection: Rule
    learn_alphas_on: str
    """The data that trained the architecture weights: "validation", "half" of the training set, or "" if unknown."""
    speakers_unknown: str
    """Why the speakers could not be read; "" where they could."""
    rows: Sequence[NetworkRow]
    differences: Sequence[Difference]
    searches: Sequence[SearchOutcome]

    def row(self, branch: str, network: str) -> NetworkRow | None:
        return next((row for row in self.rows if (row.branch, row.network) == (branch, network)), None)


def stage_costs(table: SearchTable) -> dict[str, NetworkCost]:
    """Return the cost of each stage that has begun, over all seeds and folds."""
    totals: dict[str, NetworkCost] = {}
    for stage in STAGES:
        if costs := [search.stages[stage] for search in table.searches if stage in search.stages]:
            sums = (sum(getattr(cost, name) for cost in costs) for name in ("runs", "epochs", "seconds"))
            totals[stage] = NetworkCost(*sums)
    return totals


def collect_searches(folders: Iterable[Path]) -> list[SearchTable]:
    """Return a table for each group of searches below these folders.

    Raises:
        BadConfig: The same search occurs twice, no seed has all folds of its search, or the networks of a search were scored
            on different utterances.
    """
    return [_search_table(searches) for searches in group_searches(folders)]


def group_searches(folders: Iterable[Path]) -> list[list[Search]]:
    """Return the searches that have begun. Those that differ only in seed and fold form a group, sorted by seed and fold.

    Raises:
        BadConfig: A seed and fold of the same search occurs twice.
    """
    groups: dict[str, dict[tuple[int, str], Search]] = {}
    for search in (search for folder in folders for search in searches_in(folder)):
        if (run := _first_run(search)) is None:
            continue
        config = search.config
        settings = repr(sorted((name, value) for name, value in config.items() if name not in ("seed", "folds")))
        group, key = groups.setdefault(settings, {}), (int(config["seed"]), run.split.fold)
        if key in group:
            raise BadConfig(
                f"seed {key[0]} of {config['name']} occurs twice: {group[key].folder} and {search.folder}; "
                "name only one of them"
            )
        group[key] = search
    return [[group[key] for key in sorted(group)] for group in groups.values()]


def _first_run(search: Search) -> Run | None:
    """Return the run that the search's split is read from. A fusion may train on other utterances, so it comes last."""
    return next((run for stage in STAGES for run in stage_runs(search, stage).values()), None)


def _search_table(searches: Sequence[Search]) -> SearchTable:
    runs = {search: run for search in searches if (run := _first_run(search))}
    group, speakers_unknown = _complete_group(runs)
    rows = score_networks(group)
    config, splits = runs[searches[0]].config, group.splits
    sources = _sources(config, group.ids).values()
    return SearchTable(
        name=searches[0].config["name"],
        title=", ".join(source.id if source.name in OWN else source.title for source in sources),
        note="" if speakers_unknown else ", ".join(dict.fromkeys(source.note for source in sources if source.note)),
        labels=config["labels"],
        emotions=group.emotions,
        protocol=combined_title(splits),
        utterances=len(group.ids),
        speakers=len(set(group.speakers)) if group.speakers else None,
        split_hash=combined_hash(splits),
        verdict=describe_verdicts(splits),
        selection=config["selection"],
        learn_alphas_on=_learn_alphas_on(searches),
        speakers_unknown=speakers_unknown,
        rows=[networks.row for networks in rows],
        differences=_differences(group, rows),
        searches=[_outcome(search, runs[search]) for search in searches],
    )


def _learn_alphas_on(searches: Sequence[Search]) -> str:
    runs = (run for search in searches for run in stage_runs(search, "cell search").values())
    return next((str(run.config["training"].get("strategy", {}).get("learn_alphas_on", "")) for run in runs), "")


def _complete_group(runs: Mapping[Search, Run]) -> tuple[SearchGroup, str]:
    """Return the group of the seeds that have all folds, and why the speakers are unknown, or ""."""
    splits = {search: run.split for search, run in runs.items()}
    num_folds = len({split.fold for split in splits.values()})
    by_seed: dict[int, list[Search]] = {}
    for search in runs:
        by_seed.setdefault(int(search.config["seed"]), []).append(search)
    complete = {seed: searches for seed, searches in by_seed.items() if len(searches) == num_folds}
    if not complete:
        raise BadConfig(
            f"{next(iter(runs)).folder}: no seed has all {num_folds} folds of its search; "
            "name only the searches of one fold"
        )
    first = next(iter(complete.values()))
    labels = np.concatenate([runs[search].labels("test") for search in first])
    fold_splits = [splits[search] for search in first]
    config = runs[first[0]].config
    ids = [utterance for split in fold_splits for utterance in split.subsets["test"]]
    speakers, speakers_unknown = _read_speakers(config, ids)
    return SearchGroup(complete, fold_splits, runs[first[0]].emotions, labels, speakers), speakers_unknown


def _sources(config: Mapping[str, Any], ids: Iterable[str]) -> dict[str, Source]:
    corpora = sorted({utterance.partition("/")[0] for utterance in ids})
    return {corpus: find_source(config, corpus) for corpus in corpora}


def _read_speakers(config: Mapping[str, Any], ids: Sequence[str]) -> tuple[list[str] | None, str]:
    """Return the speaker of each utterance, or None and the reason if those of a corpus are unknown."""
    speaker_of: dict[str, str] = {}
    for corpus, source in _sources(config, ids).items():
        corpus_ids = [utterance for utterance in ids if utterance.startswith(f"{corpus}/")]
        utterances, reason = read_utterances(source, corpus_ids)
        speakers = speakers_of(utterances) if utterances is not None else None
        if speakers is None:
            return None, reason
        speaker_of.update(zip(corpus_ids, speakers, strict=True))
    return [speaker_of[utterance] for utterance in ids], ""


def _differences(group: SearchGroup, rows: Sequence[ScoredNetworks]) -> list[Difference]:
    by_key = {(networks.row.branch, networks.row.network): networks for networks in rows}
    differences = [_difference(group, by_key[first], by_key[second]) for first, second in _pairs(group, by_key)]
    return [difference for difference in differences if difference.by_seed]


def _pairs(group: SearchGroup, rows: Mapping[NetworkKey, ScoredNetworks]) -> list[tuple[NetworkKey, NetworkKey]]:
    """Return the pairs to compare: the found networks with random search and with known cells, the fusion with the better
    branch."""
    cell, recurrent, fusion = ("spectrogram", FOUND_CELL), ("recurrent", FOUND_RECURRENT_CELL), ("fusion", FUSION)
    pairs = [(network, (network[0], RANDOM_SEARCH)) for network in (cell, recurrent)] + [
        (cell, ("spectrogram", SUPERNET))
    ]
    for stage, found_network in KNOWN_STAGES.items():
        branch = STAGES[stage][0]
        names = sorted({name for search in group.searches for name in stage_runs(search, stage)})
        pairs += [((branch, found_network), (branch, name)) for name in names]
    # The better branch on the test set itself, which makes the comparison harder for the fusion.
    branches = [branch for branch in (cell, recurrent) if branch in rows]
    if len(branches) == 2:
        pairs.append((fusion, max(branches, key=lambda branch: rows[branch].row.UA.mean)))
    return [(first, second) for first, second in pairs if first in rows and second in rows]


def _difference(group: SearchGroup, first: ScoredNetworks, second: ScoredNetworks) -> Difference:
    names = (first.row.branch, first.row.network, second.row.network)
    # Both have one network per seed, because kinds with several are not compared.
    first_predictions, second_predictions = (
        {seed: predictions[0] for seed, predictions in networks.predictions.items()} for networks in (first, second)
    )
    shared = [seed for seed in first_predictions if seed in second_predictions]
    if not shared:
        return Difference(*names, {}, Spread(0.0, None, ()), None)
    first_shared, second_shared = (
        {seed: system[seed] for seed in shared} for system in (first_predictions, second_predictions)
    )
    comparison = compare(group.labels, first_shared, second_shared, group.speakers, units=group.ids)
    spread = spread_of([by_seed.value for by_seed in comparison.by_seed.values()])
    interval = comparison.interval if comparison.resampled == "speakers" else None
    return Difference(*names, comparison.by_seed, spread, interval)


def _outcome(search: Search, first_run: Run) -> SearchOutcome:
    genotype, recurrent = _read_json(search.genotype_path), _read_json(search.recurrent_recipe_path) or {}
    entry = _log_entry(search, genotype)
    runs = {stage: stage_runs(search, stage) for stage in STAGES}
    graph = recurrent.get("recipe")
    return SearchOutcome(
        seed=int(search.config["seed"]),
        fold=first_run.split.fold,
        genotype=genotype or entry.get("genotype"),
        skips=entry.get("skips"),
        collapsed=bool(entry.get("collapsed")),
        recipe_name=str(recurrent.get("name", "")),
        recipe=graph if isinstance(graph, Mapping) else None,
        rounds=search.rounds,
        stages={stage: total_cost(list(by_name.values())) for stage, by_name in runs.items() if by_name},
        unfinished=tuple(
            text for stage, by_name in runs.items() for text in _describe_unfinished(search, stage, by_name)
        ),
        missing=tuple(stage for stage, by_name in runs.items() if not by_name),
    )


def _log_entry(search: Search, genotype: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the log entry of the found genotype, which may be from an earlier epoch; the latest entry if none is found."""
    log = next((run.log() for run in stage_runs(search, "cell search").values()), [])
    latest: Mapping[str, Any] = log[-1] if log else {}
    return next((entry for entry in reversed(log) if entry.get("genotype") == genotype), latest)


def _describe_unfinished(search: Search, stage: str, runs: Mapping[str, Run]) -> list[str]:
    """Return a line for each unfinished run. Candidates that a round of the halving eliminated are finished."""
    path = "/".join(STAGES[stage])
    if stage == "candidate recurrent cells":
        if not runs or search.selected_candidate:
            return []
        candidates, rounds = quantity(len(runs), "candidate"), quantity(len(search.rounds), "round")
        return [f"{path}: {candidates}, {rounds} finished"]
    return [
        f"{path if name == STAGES[stage][-1] else f'{path}/{name}'}: epoch {len(run.epochs)} of "
        f"{run.config['training']['epochs']}{', diverged' if run.diverged else ''}"
        for name, run in runs.items()
        if not is_finished(run)
    ]


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
