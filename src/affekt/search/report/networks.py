"""The networks of architecture searches on their test set, kind by kind: what was found, what a random search of the same
budget finds, known cells, and the fusion; with their parameters and with what it took to have them."""

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
from affekt.extras import need
from affekt.protocols import Split
from affekt.reports.results import Spread, spread_of
from affekt.runs.folder import Run
from affekt.runs.groups import Predictions, is_finished
from affekt.runs.selection import SELECTION_METRICS, SELECTION_SUBSET, select_epoch
from affekt.search.folder import Search

SEARCHED, FOUND_CELL, FOUND_RECIPE = "supernet", "found cell", "found recipe"
PICKED, A_CELL, A_RECIPE, FUSION = "random search, same budget", "a random cell", "a random recipe", "fusion"

# Where the runs of each stage stand, in the order in which they are made.
STAGES = {
    "search of the cell": ("spectrogram", "search"),
    "found cell": ("spectrogram", "found"),
    "random cells": ("spectrogram", "random"),
    "known cells": ("spectrogram", "known"),
    "candidate recipes": ("recurrent", "candidates"),
    "random recipes": ("recurrent", "random"),
    "known recipes": ("recurrent", "known"),
    "fusion": ("fusion",),
}
TO_FIND = {FOUND_CELL: ("search of the cell", "found cell"), FOUND_RECIPE: ("candidate recipes",)}
Runs = Sequence[Run]
Picker = Callable[[Search], Runs]
# In a weights file, but no parameters: the paper counts neither statistics nor the architecture weights.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class NetworkCost:
    """The cost of training runs. Seconds are of training and scoring, summed over workers."""

    runs: float
    epochs: float
    seconds: float


@dataclass(frozen=True)
class NetworkRow:
    """Networks of one kind on the test set. `scores` counts the answers of all of them together."""

    branch: str  # "spectrogram", "recurrent" or "fusion"
    what: str
    settings: str  # such as "L = 3, C = 6"
    parameters: tuple[
        int, ...
    ]  # as the paper counts them: the distinct numbers, rising; none where no weights are kept
    seeds: tuple[int, ...]
    networks: int  # that were scored
    UA: Spread
    WA: Spread
    WF1: Spread
    scores: Scores
    cost: NetworkCost  # of all that was trained to have this, mean over the searches


@dataclass(frozen=True)
class Group:
    """Searches that are alike but for their seed and fold, and the test sets that all their networks are scored on."""

    by_seed: Mapping[int, Sequence[Search]]  # each seed's folds, in order: the same folds for all
    splits: Sequence[Split]  # of the folds
    emotions: tuple[str, ...]
    labels: NDArray[np.int64]  # (utterances,), fold after fold
    people: Sequence[str] | None  # who speaks each utterance, where that is known of all

    @property
    def ids(self) -> list[str]:
        return [one for split in self.splits for one in split.subsets["test"]]

    @property
    def searches(self) -> list[Search]:
        return [search for folds in self.by_seed.values() for search in folds]


@dataclass(frozen=True)
class Answered:
    """A row, and what it was counted from: by seed, what each network answers, (utterances, emotions)."""

    row: NetworkRow
    answers: Mapping[int, Sequence[Predictions]]


@dataclass(frozen=True)
class Kind:
    branch: str
    what: str
    scored: Picker  # the networks of a search that are scored: one, or several that stand for one another
    paid: Picker  # what was trained to have them


def runs_of(search: Search, stage: str) -> dict[str, Run]:
    """The runs of a stage by their names: the one that it is, or those that it has."""
    place = STAGES[stage]
    one = search.run(*place)
    return {place[-1]: one} if one.config_path.is_file() else search.runs(*place)


def cost(runs: Runs) -> NetworkCost:
    logs = [run.log() for run in runs]
    return NetworkCost(len(runs), sum(map(len, logs)), float(sum(line["seconds"] for log in logs for line in log)))


def answered(group: Group) -> list[Answered]:
    """The rows that these searches have, in order. A seed counts in a row where every one of its folds has ended it."""
    found = (_answered(group, kind) for kind in _kinds(group.searches))
    return [one for one in found if one is not None]


def _kinds(searches: Sequence[Search]) -> list[Kind]:
    cells, recipes = _ended("random cells"), _ended("random recipes")
    return [
        Kind("spectrogram", SEARCHED, _ended("search of the cell"), _ended("search of the cell")),
        Kind("spectrogram", FOUND_CELL, _ended("found cell"), _begun(*TO_FIND[FOUND_CELL])),
        Kind("spectrogram", PICKED, lambda search: best_on_validation(cells(search)), cells),
        Kind("spectrogram", A_CELL, cells, cells),
        *_known("spectrogram", "known cells", searches),
        Kind("recurrent", FOUND_RECIPE, _chosen_recipe, _begun(*TO_FIND[FOUND_RECIPE])),
        Kind("recurrent", PICKED, lambda search: best_on_validation(recipes(search)), recipes),
        Kind("recurrent", A_RECIPE, recipes, recipes),
        *_known("recurrent", "known recipes", searches),
        Kind("fusion", FUSION, _ended("fusion"), _begun(*TO_FIND[FOUND_CELL], *TO_FIND[FOUND_RECIPE], "fusion")),
    ]


def _begun(*stages: str) -> Picker:
    return lambda search: [run for stage in stages for run in runs_of(search, stage).values()]


def _ended(stage: str) -> Picker:
    return lambda search: [run for run in runs_of(search, stage).values() if is_finished(run)]


def _known(branch: str, stage: str, searches: Sequence[Search]) -> list[Kind]:
    def named(name: str) -> Picker:
        return lambda search: [run for one, run in runs_of(search, stage).items() if one == name and is_finished(run)]

    names = sorted({name for search in searches for name in runs_of(search, stage)})
    return [Kind(branch, name, named(name), named(name)) for name in names]


def _chosen_recipe(search: Search) -> Runs:
    run = runs_of(search, "candidate recipes").get(search.selected_candidate)
    return [run] if run is not None and is_finished(run) else []


def best_on_validation(runs: Runs) -> Runs:
    """The result of a random search: the network that is best on the validation set, by the rule that chooses its epoch, or
    by UA where that rule does not look there. The first of equals; none of none."""
    return [max(runs, key=_on_validation)] if runs else []


def _on_validation(run: Run) -> float:
    rule = run.config["selection"]
    answers = run.predictions(select_epoch(run, rule)).get("validation")
    if answers is None:
        raise BadConfig(f"{run.folder} has no answers on a validation set, by which a random search picks its best")
    labels = run.labels("validation")
    if rule in SELECTION_METRICS and SELECTION_SUBSET[rule] == "validation":
        return SELECTION_METRICS[rule](labels, answers)
    return _metric(ua, labels, answers)


def _metric(metric: Callable[[NDArray[np.int64]], float], labels: NDArray[np.int64], answers: Predictions) -> float:
    return metric(confusion(labels, answers.argmax(axis=1), answers.shape[1]))


def _answered(group: Group, kind: Kind) -> Answered | None:
    runs = {seed: [kind.scored(search) for search in folds] for seed, folds in group.by_seed.items()}
    runs = {seed: folds for seed, folds in runs.items() if all(folds)}
    if not runs:
        return None
    answers = {seed: _answers(group.splits, folds) for seed, folds in runs.items()}
    networks = [run for folds in runs.values() for fold in folds for run in fold]
    row = NetworkRow(
        branch=kind.branch,
        what=kind.what,
        settings=_settings(networks[0].config["model"]),
        parameters=tuple(sorted({count for run in networks if (count := parameters(run)) is not None})),
        seeds=tuple(runs),
        networks=len(networks),
        UA=_spread(ua, group.labels, answers),
        WA=_spread(wa, group.labels, answers),
        WF1=_spread(wf1, group.labels, answers),
        scores=_scores(group, [one for several in answers.values() for one in several]),
        cost=_mean([_paid(kind, search) for seed in runs for search in group.by_seed[seed]]),
    )
    return Answered(row, answers)


def _answers(splits: Sequence[Split], folds: Sequence[Runs]) -> list[Predictions]:
    """A seed's answers on all folds. Of several networks the first of each fold stand together, then the second, ...; a fold
    that has fewer begins again with its first."""
    for split, runs in zip(splits, folds, strict=True):
        for run in runs:
            if run.split.subsets["test"] != split.subsets["test"]:
                raise BadConfig(f"{run.folder} was scored on other utterances than the rest of its search")
    answers = [[_chosen(run) for run in runs] for runs in folds]
    return [np.concatenate([each[n % len(each)] for each in answers]) for n in range(max(map(len, folds)))]


def _chosen(run: Run) -> Predictions:
    return run.predictions(select_epoch(run, run.config["selection"]))["test"]


def _spread(
    metric: Callable[[NDArray[np.int64]], float],
    labels: NDArray[np.int64],
    answers: Mapping[int, Sequence[Predictions]],
) -> Spread:
    """Over seeds; of several networks of a seed, their mean."""
    return spread_of(
        [float(np.mean([_metric(metric, labels, one) for one in several])) for several in answers.values()]
    )


def _scores(group: Group, answers: Sequence[Predictions]) -> Scores:
    times = len(answers)
    people = group.people and list(group.people) * times
    return score(np.tile(group.labels, times), np.concatenate(answers), group.emotions, people, units=group.ids * times)


def _paid(kind: Kind, search: Search) -> NetworkCost:
    """The cost of one random network, the mean over those of the search."""
    runs = kind.paid(search)
    return _mean([cost([run]) for run in runs]) if kind.what in (A_CELL, A_RECIPE) else cost(runs)


def _mean(costs: Sequence[NetworkCost]) -> NetworkCost:
    return NetworkCost(
        *(float(np.mean([getattr(one, what) for one in costs])) for what in ("runs", "epochs", "seconds"))
    )


def _settings(model: Mapping[str, Any]) -> str:
    """In the paper's letters: cells and channels of its Table 3, layers and hidden units of its Table 4."""
    letters = {"cells": "L", "channels": "C", "layers": "L", "hidden": "h"}
    return ", ".join(
        f"{letter} = {model[name]}" for name, letter in letters.items() if isinstance(model.get(name), int)
    )


def parameters(run: Run) -> int | None:
    """The numbers that a run's network learns, from the head of its weights file; None where it keeps none."""
    path = next(iter(sorted((run.folder / "weights").glob("[0-9]*.safetensors"))), None)
    if path is None:
        return None
    with need("safetensors", extra="train", purpose="counting weights").safe_open(path, framework="numpy") as file:
        names = [name for name in file.keys() if _is_parameter(name.split("."))]  # noqa: SIM118 (no mapping)
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)


def _is_parameter(path: Sequence[str]) -> bool:
    standardised = list(path[-2:]) in (["input", "mean"], ["input", "deviation"])
    return path[-1] not in STATISTICS and "architecture" not in path and not standardised
