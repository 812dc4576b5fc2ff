"""The figures that need nothing but finished runs: neither models nor audio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadConfig
from affekt.evaluation.metrics import METRICS, confusion, cross_entropy, most_probable
from affekt.reports.figures.base import Figure
from affekt.reports.figures.confusion import draw_confusion
from affekt.reports.figures.cost import Point, draw_cost
from affekt.reports.figures.coverage import draw_coverage
from affekt.reports.figures.curves import Curve, draw_curves
from affekt.reports.figures.reliability import draw_reliability
from affekt.reports.figures.sweep import SweepPoint, draw_sweep
from affekt.reports.results import ResultRow, collect_tests, score_tests
from affekt.runs.folder import Run
from affekt.runs.groups import Predictions, RunGroup, TestPredictions, experiment_settings, flatten, group_runs
from affekt.runs.selection import select_epoch

MIN_SWEEP = 2


@dataclass(frozen=True)
class ScoredGroup:
    """A group of runs with its scores on one test set."""

    row: ResultRow
    test: TestPredictions

    @property
    def name(self) -> str:
        return self.row.label

    @property
    def split(self) -> str:
        """The corpus and the split, for the titles of figures."""
        return f"{self.row.corpus}, split {self.row.split_hash}"


def read_scored(folders: Sequence[Path]) -> list[ScoredGroup]:
    """Read the groups of runs below folders, which are run folders or contain some, with their scores."""
    tests = collect_tests(folders)
    return list(map(ScoredGroup, score_tests(tests).rows, tests))


def by_split(scored: Sequence[ScoredGroup]) -> Iterator[list[ScoredGroup]]:
    """Yield the groups of runs that share a split, corpus and labels, in the order of the report's sections."""
    groups: dict[tuple[str, ...], list[ScoredGroup]] = {}
    for model in scored:
        groups.setdefault((model.row.split_hash, model.row.corpus, model.row.labels), []).append(model)
    yield from groups.values()


def confusion_figure(same_split: Sequence[ScoredGroup]) -> Figure:
    """Return the confusion matrices of all models on one split, with the predictions of all seeds and folds together."""
    matrices = {
        model.name: sum(_confusion(model.test.labels, p) for p in model.test.selected.values()) for model in same_split
    }
    first = same_split[0]
    caption = f"Test set of {first.row.utterances} utterances, {first.row.protocol}, {first.row.verdict}."
    return draw_confusion(_padded(matrices), first.row.emotions, title=f"Confusion, {first.split}", caption=caption)


def fold_confusion_figure(scored: ScoredGroup) -> Figure | None:
    """Return a confusion matrix for each fold; None for a single fold."""
    group = scored.test.group
    if len(group.folds) < 2:
        return None
    matrices: dict[str, Any] = {}
    for index, fold in enumerate(group.folds):
        runs = [runs[index].run for runs in group.seeds.values()]
        counts = [_confusion(run.labels("test"), _selected(run)["test"]) for run in runs]
        matrices[f"fold {fold.split.fold or index + 1}"] = sum(counts)
    title = f"Confusion by fold, {scored.name}, {scored.split}"
    return draw_confusion(_padded(matrices), scored.row.emotions, title=title, caption="One matrix for each test set.")


def _confusion(labels: NDArray[np.int64], probabilities: Predictions) -> NDArray[np.int64]:
    return confusion(labels, most_probable(probabilities), probabilities.shape[1])


def _padded(matrices: Mapping[str, Any]) -> dict[str, NDArray[np.int64]]:
    """Return the matrices with the same number of columns: one for refused utterances where any model refused some."""
    width = max(counts.shape[1] for counts in matrices.values())
    return {name: np.pad(counts, ((0, 0), (0, width - counts.shape[1]))) for name, counts in matrices.items()}


def _selected(run: Run) -> dict[str, NDArray[np.float32]]:
    return run.predictions(select_epoch(run, run.config["selection"]))


def curves_figure(group: RunGroup, name: str) -> Figure:
    """Return the learning curves of a group of runs: scores and loss of each subset by epoch."""
    runs = [fold.run for folds in group.seeds.values() for fold in folds]
    logs = [run.log() for run in runs]
    curves: dict[str, dict[str, Curve]] = {metric: {} for metric in (*METRICS, "loss")}
    for metric in curves:
        if any(f"train_{metric}" in line for log in logs for line in log) or metric == "loss":
            keys = (f"train_{metric}", metric)
            curves[metric]["train"] = Curve(tuple(_logged(log, keys) for log in logs))
    predicted = [{epoch: run.predictions(epoch) for epoch in run.epochs} for run in runs]
    for subset in ("validation", "test"):
        if all(subset in next(iter(by_epoch.values())) for by_epoch in predicted):
            labels = [run.labels(subset) for run in runs]
            for metric, by_subset in curves.items():
                scores = [_score_epochs(metric, *pair, subset) for pair in zip(labels, predicted, strict=True)]
                by_subset[subset] = Curve(tuple(scores))
    shown = {metric: by_subset for metric, by_subset in curves.items() if by_subset}
    num_seeds, num_folds = len(group.seeds), len(group.folds)
    caption = (
        f"{num_seeds} seed{'s' * (num_seeds > 1)}, {num_folds} fold{'s' * (num_folds > 1)}. The training loss includes "
        "augmentation and dropout, unless the log has a loss without them; the other losses are cross-entropy."
    )
    return draw_curves(shown, title=f"Learning curves, {name}", caption=caption)


def _logged(log: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> NDArray[np.float64]:
    values = [next((line[key] for key in keys if line.get(key) is not None), np.nan) for line in log]
    return np.array(values, np.float64)


def _score_epochs(
    metric: str, labels: NDArray[np.int64], by_epoch: Mapping[int, Mapping[str, NDArray[np.float32]]], subset: str
) -> NDArray[np.float64]:
    values = []
    for predictions in by_epoch.values():
        probabilities = predictions[subset]
        score = METRICS.get(metric)
        values.append(
            float(score(_confusion(labels, probabilities))) if score else cross_entropy(labels, probabilities)
        )
    return np.array(values)


def reliability_figure(same_split: Sequence[ScoredGroup]) -> Figure:
    """Return the reliability diagrams of all models on one split, with the predictions of all seeds together."""
    predictions = {model.name: (model.test.labels, list(model.test.selected.values())) for model in same_split}
    title = f"Reliability, {same_split[0].split}"
    return draw_reliability(predictions, title=title, caption="Test set, the predictions of all seeds together.")


def coverage_figure(same_split: Sequence[ScoredGroup]) -> Figure:
    """Return accuracy over coverage of all models on one split, with the predictions of all seeds together."""
    predictions = {model.name: (model.test.labels, list(model.test.selected.values())) for model in same_split}
    title = f"Coverage and accuracy, {same_split[0].split}"
    return draw_coverage(predictions, title=title, caption="Test set, the predictions of all seeds together.")


def cost_figure(same_split: Sequence[ScoredGroup]) -> Figure | None:
    """Return UA over the number of weights; None if fewer than two models have weights in their run folders."""
    points = [cost_point(model, model.row.weights) for model in same_split if model.row.weights]
    return draw_cost(points, title=f"Cost and accuracy, {same_split[0].split}") if len(points) > 1 else None


def cost_point(scored: ScoredGroup, cost: float) -> Point:
    """Return a group's cost with its UA."""
    return Point(scored.name, cost, scored.row.UA.mean, scored.row.scores.UA.low, scored.row.scores.UA.high)


def sweep_figures(same_split: Sequence[ScoredGroup]) -> list[Figure]:
    """Return a figure for each setting of a model that varies while all others are equal; other models are the baselines."""
    figures = []
    for setting, family in _sweeps(same_split):
        points = [SweepPoint(_model(scored)[setting], scored.row.UA.seeds) for scored in family]
        kind = _model(family[0])["name"]
        baselines = {s.name: s.row.UA.mean for s in same_split if _model(s).get("name") != kind}
        title = f"{kind}, {setting}, {same_split[0].split}"
        figures.append(draw_sweep(points, setting, baselines, title=title))
    return figures


def _model(scored: ScoredGroup) -> Mapping[str, Any]:
    model: Mapping[str, Any] = scored.test.group.config.get("model", {})
    return model


def _other_settings(scored: ScoredGroup, setting: str) -> dict[str, Any]:
    """Return all settings of an experiment but its name and one setting of its model."""
    settings = flatten(experiment_settings(scored.test.group.config))
    return {name: settings[name] for name in sorted(settings) if name not in ("name", f"model.{setting}")}


def _sweeps(same_split: Sequence[ScoredGroup]) -> Iterator[tuple[str, list[ScoredGroup]]]:
    """Yield each numeric setting with the groups of runs that differ in it alone, at least `MIN_SWEEP` values."""
    families: dict[tuple[str, str], dict[float, ScoredGroup]] = {}
    for model in same_split:
        for setting, value in _model(model).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = repr(_other_settings(model, setting))
                families.setdefault((setting, rest), {}).setdefault(value, model)
    for (setting, _), by_value in families.items():
        if len(by_value) >= MIN_SWEEP:
            yield setting, list(by_value.values())


def plot_confusion(folders: Sequence[Path]) -> list[Figure]:
    """Return the confusion matrices of the runs below folders: one figure for each split, and one for each model's folds."""
    scored = _read(folders)
    together = [confusion_figure(same_split) for same_split in by_split(scored)]
    return [*together, *filter(None, map(fold_confusion_figure, scored))]


def plot_curves(folders: Sequence[Path]) -> list[Figure]:
    """Return the learning curves of the runs below folders: one figure for each model."""
    groups = group_runs(folders)
    if not groups:
        raise BadConfig(_NO_RUN.format(", ".join(map(str, folders))))
    names = Counter(group.config["name"] for group in groups)
    labels = [group.config["name"] if names[group.config["name"]] == 1 else str(group.folder) for group in groups]
    return [curves_figure(group, label) for group, label in zip(groups, labels, strict=True)]


def plot_reliability(folders: Sequence[Path]) -> list[Figure]:
    """Return the reliability diagrams of the runs below folders: one figure for each split."""
    return [reliability_figure(same_split) for same_split in by_split(_read(folders))]


def plot_coverage(folders: Sequence[Path]) -> list[Figure]:
    """Return accuracy over coverage of the runs below folders: one figure for each split."""
    return [coverage_figure(same_split) for same_split in by_split(_read(folders))]


def plot_cost(folders: Sequence[Path]) -> list[Figure]:
    """Return UA over the number of weights for the runs below folders: one figure for each split with two models."""
    figures = [figure for same_split in by_split(_read(folders)) if (figure := cost_figure(same_split))]
    if not figures:
        raise BadConfig(
            "no split has two models whose weights are in their run folders: give two or more runs on one split"
        )
    return figures


def plot_sweep(folders: Sequence[Path]) -> list[Figure]:
    """Return UA over each setting of a model that varies among the runs below folders."""
    figures = [figure for same_split in by_split(_read(folders)) for figure in sweep_figures(same_split)]
    if not figures:
        raise BadConfig(
            "no setting of a model varies among these runs: give runs on one split that differ in one number of [model]"
        )
    return figures


_NO_RUN = "{} contains no finished run, apart from those of searches"


def _read(folders: Sequence[Path]) -> list[ScoredGroup]:
    scored = read_scored(folders)
    if not scored:
        raise BadConfig(_NO_RUN.format(", ".join(map(str, folders))))
    return scored
