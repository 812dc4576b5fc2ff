"""The networks of architecture searches, scored on their test sets: the supernets, the found networks, random and published
ones, and the fusion; with their parameter counts and their cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.evaluation.metrics import confusion, ua, wa, wf1
from affekt.evaluation.scores import Scores, score
from affekt.evaluation.spread import Spread, spread_of
from affekt.extras import need
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.runs.groups import Predictions, is_finished
from affekt.runs.selection import SELECTION_METRICS, SELECTION_SUBSET, select_epoch
from affekt.search.folder import Search

# Names of the networks in tables, verdicts and `--json`.
SUPERNET, FOUND_CELL, FOUND_RECURRENT_CELL = "supernet", "found cell", "found recurrent cell"
RANDOM_SEARCH, RANDOM_CELL, RANDOM_RECURRENT_CELL, FUSION = (
    "random search, same budget",
    "a random cell",
    "a random recurrent cell",
    "fusion",
)

# The path of each stage's runs below the search's folder, in the order in which the stages run.
STAGES = {
    "cell search": ("spectrogram", "search"),
    "found cell": ("spectrogram", "found"),
    "random cells": ("spectrogram", "random"),
    "known cells": ("spectrogram", "known"),
    "candidate recurrent cells": ("recurrent", "candidates"),
    "random recurrent cells": ("recurrent", "random"),
    "known recurrent cells": ("recurrent", "known"),
    "fusion": ("fusion",),
}
# The stages whose cost counts for a found network.
COST_STAGES = {FOUND_CELL: ("cell search", "found cell"), FOUND_RECURRENT_CELL: ("candidate recurrent cells",)}
Runs = Sequence[Run]
RunSelector = Callable[[Search], Runs]
# Tensors of a weights file that are not parameters. The paper counts neither these nor the architecture weights.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class NetworkCost:
    """The cost of one or more training runs, or a mean of costs, in which `runs` and `epochs` may be fractions."""

    runs: float
    epochs: float
    seconds: float
    """Time of training and scoring, summed over the workers."""


@dataclass(frozen=True)
class NetworkRow:
    """The scores of one kind of network on the test set."""

    branch: str
    """One of "spectrogram", "recurrent" and "fusion"."""
    network: str
    """The name of the kind, such as "found cell"."""
    settings: str
    """The network's size in the paper's letters, such as "L = 3, C = 6"."""
    parameters: tuple[int, ...]
    """The distinct parameter counts, ascending, as the paper counts them; empty if no weights were saved."""
    seeds: tuple[int, ...]
    networks: int
    """The number of networks that are scored."""
    UA: Spread
    WA: Spread
    WF1: Spread
    scores: Scores
    """The scores of all networks' predictions together."""
    cost: NetworkCost
    """The cost of all training runs behind this network, as the mean over the searches."""


@dataclass(frozen=True)
class SearchGroup:
    """Searches that differ only in seed and fold, and the test sets on which all their networks are scored."""

    by_seed: Mapping[int, Sequence[Search]]
    """Each seed's searches by fold, in the same order of folds for all seeds."""
    splits: Sequence[Split]
    """The splits of the folds, in this order."""
    emotions: tuple[str, ...]
    labels: NDArray[np.int64]
    """(utterances,), fold after fold."""
    speakers: Sequence[str] | None
    """The speaker of each utterance; None unless the speakers of all are known."""

    @property
    def ids(self) -> list[str]:
        return [utterance for split in self.splits for utterance in split.subsets["test"]]

    @property
    def searches(self) -> list[Search]:
        return [search for folds in self.by_seed.values() for search in folds]


@dataclass(frozen=True)
class ScoredNetworks:
    """A row, and the predictions behind it."""

    row: NetworkRow
    predictions: Mapping[int, Sequence[Predictions]]
    """The predictions of each network by seed, (utterances, emotions)."""


@dataclass(frozen=True)
class NetworkKind:
    branch: str
    network: str
    scored_runs: RunSelector
    """The runs of a search that are scored: a single one, or several whose mean is reported."""
    cost_runs: RunSelector
    """The runs whose cost counts."""


def stage_runs(search: Search, stage: str) -> dict[str, Run]:
    """Return the runs of a stage by name: its only run, or all runs in its folder."""
    path = STAGES[stage]
    run = search.run(*path)
    return {path[-1]: run} if run.config_path.is_file() else search.runs(*path)


def total_cost(runs: Runs) -> NetworkCost:
    logs = [run.log() for run in runs]
    return NetworkCost(len(runs), sum(map(len, logs)), float(sum(line["seconds"] for log in logs for line in log)))


def score_networks(group: SearchGroup) -> list[ScoredNetworks]:
    """Return the rows of these searches, in order. A seed counts in a row only if all of its folds are finished."""
    rows = (_score_kind(group, kind) for kind in _network_kinds(group.searches))
    return [row for row in rows if row is not None]


def _network_kinds(searches: Sequence[Search]) -> list[NetworkKind]:
    cells, recurrent_cells = _select_finished("random cells"), _select_finished("random recurrent cells")
    supernets = _select_finished("cell search")
    cell_costs = _select_started(*COST_STAGES[FOUND_CELL])
    recurrent_costs = _select_started(*COST_STAGES[FOUND_RECURRENT_CELL])
    fusion_costs = _select_started(*COST_STAGES[FOUND_CELL], *COST_STAGES[FOUND_RECURRENT_CELL], "fusion")
    return [
        NetworkKind("spectrogram", SUPERNET, supernets, supernets),
        NetworkKind("spectrogram", FOUND_CELL, _select_finished("found cell"), cell_costs),
        NetworkKind("spectrogram", RANDOM_SEARCH, lambda search: best_on_validation(cells(search)), cells),
        NetworkKind("spectrogram", RANDOM_CELL, cells, cells),
        *_known_kinds("spectrogram", "known cells", searches),
        NetworkKind("recurrent", FOUND_RECURRENT_CELL, _selected_candidate, recurrent_costs),
        NetworkKind(
            "recurrent", RANDOM_SEARCH, lambda search: best_on_validation(recurrent_cells(search)), recurrent_cells
        ),
        NetworkKind("recurrent", RANDOM_RECURRENT_CELL, recurrent_cells, recurrent_cells),
        *_known_kinds("recurrent", "known recurrent cells", searches),
        NetworkKind("fusion", FUSION, _select_finished("fusion"), fusion_costs),
    ]


def _select_started(*stages: str) -> RunSelector:
    return lambda search: [run for stage in stages for run in stage_runs(search, stage).values()]


def _select_finished(stage: str) -> RunSelector:
    return lambda search: [run for run in stage_runs(search, stage).values() if is_finished(run)]


def _known_kinds(branch: str, stage: str, searches: Sequence[Search]) -> list[NetworkKind]:
    """Return a kind for each published cell that one of the searches trained."""

    def select(name: str) -> RunSelector:
        return lambda search: [
            run for run_name, run in stage_runs(search, stage).items() if run_name == name and is_finished(run)
        ]

    names = sorted({name for search in searches for name in stage_runs(search, stage)})
    return [NetworkKind(branch, name, select(name), select(name)) for name in names]


def _selected_candidate(search: Search) -> Runs:
    run = stage_runs(search, "candidate recurrent cells").get(search.selected_candidate)
    return [run] if run is not None and is_finished(run) else []


def best_on_validation(runs: Runs) -> Runs:
    """Return the result of a random search: the network with the best score on the validation subset.

    The score is the metric of the rule that selects the epoch if that rule uses the validation subset, otherwise UA. Ties go
    to the first network. Without runs the result is empty.
    """
    return [max(runs, key=_validation_score)] if runs else []


def _validation_score(run: Run) -> float:
    rule = run.config["selection"]
    predictions = run.predictions(select_epoch(run, rule)).get("validation")
    if predictions is None:
        raise BadConfig(
            f"{run.folder} has no predictions on a validation subset, which a random search needs to pick the best"
        )
    labels = run.labels("validation")
    if rule in SELECTION_METRICS and SELECTION_SUBSET[rule] == "validation":
        return SELECTION_METRICS[rule](labels, predictions)
    return _metric(ua, labels, predictions)


def _metric(metric: Callable[[NDArray[np.int64]], float], labels: NDArray[np.int64], predictions: Predictions) -> float:
    return metric(confusion(labels, predictions.argmax(axis=1), predictions.shape[1]))


def _score_kind(group: SearchGroup, kind: NetworkKind) -> ScoredNetworks | None:
    runs = {seed: [kind.scored_runs(search) for search in folds] for seed, folds in group.by_seed.items()}
    runs = {seed: folds for seed, folds in runs.items() if all(folds)}
    if not runs:
        return None
    predictions = {seed: _predictions_on_all_folds(group.splits, folds) for seed, folds in runs.items()}
    networks = [run for folds in runs.values() for fold in folds for run in fold]
    row = NetworkRow(
        branch=kind.branch,
        network=kind.network,
        settings=_settings(networks[0].config["model"]),
        parameters=tuple(sorted({count for run in networks if (count := count_parameters(run)) is not None})),
        seeds=tuple(runs),
        networks=len(networks),
        UA=_spread(ua, group.labels, predictions),
        WA=_spread(wa, group.labels, predictions),
        WF1=_spread(wf1, group.labels, predictions),
        scores=_scores(group, [network for seed_networks in predictions.values() for network in seed_networks]),
        cost=_mean_cost([_cost(kind, search) for seed in runs for search in group.by_seed[seed]]),
    )
    return ScoredNetworks(row, predictions)


def _predictions_on_all_folds(splits: Sequence[Split], folds: Sequence[Runs]) -> list[Predictions]:
    """Return a seed's predictions on all folds together, for one network or several.

    The first networks of all folds are combined, then the second ones, and so on. A fold with fewer networks starts again
    at its first.
    """
    for split, runs in zip(splits, folds, strict=True):
        for run in runs:
            if run.split.subsets["test"] != split.subsets["test"]:
                raise BadConfig(f"{run.folder} was scored on other utterances than the rest of its search")
    by_fold = [[_test_predictions(run) for run in runs] for runs in folds]
    return [
        np.concatenate([networks[index % len(networks)] for networks in by_fold])
        for index in range(max(map(len, folds)))
    ]


def _test_predictions(run: Run) -> Predictions:
    return run.predictions(select_epoch(run, run.config["selection"]))["test"]


def _spread(
    metric: Callable[[NDArray[np.int64]], float],
    labels: NDArray[np.int64],
    predictions: Mapping[int, Sequence[Predictions]],
) -> Spread:
    """Return the spread over seeds of the mean over each seed's networks."""
    return spread_of(
        [
            float(np.mean([_metric(metric, labels, network) for network in seed_networks]))
            for seed_networks in predictions.values()
        ]
    )


def _scores(group: SearchGroup, predictions: Sequence[Predictions]) -> Scores:
    return score(group.labels, predictions, group.emotions, group.speakers, units=group.ids)


def _cost(kind: NetworkKind, search: Search) -> NetworkCost:
    """Return the cost of a kind in one search. For a random network it is the mean over the search's random networks."""
    runs = kind.cost_runs(search)
    if kind.network in (RANDOM_CELL, RANDOM_RECURRENT_CELL):
        return _mean_cost([total_cost([run]) for run in runs])
    return total_cost(runs)


def _mean_cost(costs: Sequence[NetworkCost]) -> NetworkCost:
    return NetworkCost(
        *(float(np.mean([getattr(cost, name) for cost in costs])) for name in ("runs", "epochs", "seconds"))
    )


def _settings(model: Mapping[str, Any]) -> str:
    """Return the network's size in the paper's letters: cells and channels as in Table 3, layers and hidden units as in
    Table 4."""
    letters = {"cells": "L", "channels": "C", "layers": "L", "hidden": "h"}
    return ", ".join(
        f"{letter} = {model[name]}" for name, letter in letters.items() if isinstance(model.get(name), int)
    )


def count_parameters(run: Run) -> int | None:
    """Return the number of trained parameters of a run's network, read from the header of its weights file.

    None if no weights were saved.
    """
    path = next(iter(sorted((run.folder / "weights").glob("[0-9]*.safetensors"))), None)
    if path is None:
        return None
    with need("safetensors", extra="train", purpose="counting weights").safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if _is_parameter(name.split("."))]  # noqa: SIM118 (no mapping)
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def _is_parameter(path: Sequence[str]) -> bool:
    input_statistics = list(path[-2:]) in (["input", "mean"], ["input", "deviation"])
    return path[-1] not in STATISTICS and "architecture" not in path and not input_statistics
