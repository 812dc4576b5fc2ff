"""A comparison of several experiments on the same split: scores, paired tests, and what they show in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from affekt.errors import BadConfig
from affekt.evaluation.metrics import METRICS
from affekt.evaluation.significance import SIGNIFICANT
from affekt.evaluation.spread import spread_of
from affekt.plural import quantity
from affekt.protocols import INDEPENDENT
from affekt.protocols.split import DEPENDENT
from affekt.registry import did_you_mean
from affekt.reports.markdown import calibration_table, format_interval, format_p, format_spread, selection_table
from affekt.reports.results import Pair, ResultRow, Results, collect_results


@dataclass(frozen=True)
class Grid:
    """A table with a title."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class CompareResult:
    """Several experiments compared by one metric."""

    metric: str
    results: Results
    warnings: Sequence[str]
    costs: Mapping[str, Mapping[str, Any]]
    """Label of a row -> its cost; {} without `--cost`."""

    @property
    def protocol_lines(self) -> list[str]:
        """The protocol of each split and corpus, without what differs between the experiments."""
        return list(dict.fromkeys(row.protocol_line for row in self.results.rows))

    @property
    def conclusions(self) -> list[str]:
        """A sentence for each comparison: what is shown, what is not, and for which speakers it holds."""
        if not self.results.pairs:
            return ["Nothing is tested: no two experiments have the same test utterances."]
        by_label = {(row.label, row.corpus): row for row in self.results.rows}
        return [
            conclude(
                pair, by_label[pair.first, pair.corpus], by_label[pair.second, pair.corpus], len(self.results.pairs)
            )
            for pair in self.results.pairs
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the contents of `affekt compare --format json`."""
        content = {"metric": self.metric, **asdict(self.results)}
        for entry, row in zip(content["rows"], self.results.rows, strict=True):
            entry["line"] = row.line
            if row.label in self.costs:
                entry["cost"] = dict(self.costs[row.label])
        return {**content, "conclusions": self.conclusions, "warnings": list(self.warnings)}


def compare_runs(
    folders: Sequence[Path], *, metric: str = "UA", against: Sequence[Path] = (), force: bool = False
) -> CompareResult:
    """Compare the experiments whose runs are below folders.

    Args:
        folders: Run folders, or folders that contain some. Runs that differ in seed and fold only are one experiment.
        metric: "UA", "WA" or "WF1".
        against: The run folders of references; empty to compare every pair of experiments.
        force: Show experiments on different splits together, with a warning, instead of refusing them.

    Raises:
        BadConfig: There are fewer than two experiments, they are on different splits, or runs are unfinished.
    """
    if metric not in METRICS:
        raise BadConfig(f"there is no metric {metric!r}{did_you_mean(metric, METRICS)} (known: {', '.join(METRICS)})")
    results = collect_results(folders, metric=metric, against=against, force=force)
    labels = {row.label for row in results.rows}
    if len(labels) < 2:
        raise BadConfig(
            f"{', '.join(map(str, folders))}: {quantity(len(labels), 'experiment')}, runs that differ in seed and fold only "
            "count as one; expected two or more to compare"
        )
    problems = list(_different_splits(results))
    if problems and not force:
        raise BadConfig(f"{problems[0]}; their scores cannot be compared. --force shows them with a warning")
    return CompareResult(metric, results, problems, {})


def _different_splits(results: Results) -> Sequence[str]:
    """Return a warning for each experiment whose split differs from that of the first on the same corpus."""
    warnings = []
    first = results.rows[0]
    for row in results.rows[1:]:
        reference = next((r for r in results.rows if r.corpus == row.corpus), first)
        if row.label == reference.label:
            continue
        if row.corpus not in {r.corpus for r in results.rows if r.label == first.label}:
            warnings.append(f"{row.label} was tested on {row.corpus}, {first.label} on {first.corpus}")
        elif row.emotions != reference.emotions:
            warnings.append(
                f"{row.label} has {len(row.emotions)} classes ({', '.join(row.emotions)}), {reference.label} "
                f"{len(reference.emotions)} ({', '.join(reference.emotions)})"
            )
        elif row.split_hash != reference.split_hash:
            warnings.append(
                f"{row.label} has the split {row.split_hash} ({row.protocol}), {reference.label} {reference.split_hash} "
                f"({reference.protocol})"
            )
    return list(dict.fromkeys(warnings))


def conclude(pair: Pair, first: ResultRow, second: ResultRow, num_comparisons: int) -> str:
    """Return one or two sentences: what a comparison shows, what it does not show, and for which speakers it holds."""
    comparison = pair.comparison
    points = f"{100 * comparison.value:+.1f} points of {comparison.metric}"
    names = f"{pair.first} and {pair.second}"
    if comparison.p is None:
        return f"Not tested: {names} differ by {points}, but there are too few utterances for a test."
    if comparison.interval is None:
        return f"No difference: {names} have the same {comparison.metric} in every bootstrap sample."
    corrected = pair.corrected_p if pair.corrected_p is not None else comparison.p
    holm = f" after Holm's correction over {num_comparisons} comparisons" if num_comparisons > 1 else ""
    low, high = comparison.interval
    numbers = f"{points} (95 % {format_interval(low, high, signed=True)}; p = {format_p(corrected)}{holm})"
    if corrected < SIGNIFICANT and (low > 0 or high < 0):
        better, worse = (pair.first, pair.second) if comparison.value > 0 else (pair.second, pair.first)
        shown = f"Shown: {better} is better than {worse} on this test set, {pair.first} minus {pair.second} {numbers}."
    else:
        shown = (
            f"Not shown which of {names} is better: {numbers}; neither equality nor a difference of up to "
            f"{100 * max(abs(low), abs(high)):.1f} points is excluded."
        )
    return " ".join([shown, _scope(pair, first, second), _seeds(pair, first, second)])


def _scope(pair: Pair, first: ResultRow, second: ResultRow) -> str:
    """Return for which speakers a comparison holds."""
    verdicts = {first.verdict, second.verdict}
    if DEPENDENT in verdicts:
        return "The test speakers were also in the training set: this says nothing about new speakers."
    if verdicts != {INDEPENDENT}:
        return "The speakers are unknown, so this may not hold for new speakers."
    if pair.comparison.resampled == "utterances":
        number = f"these {first.speakers}" if first.speakers else "these"
        return f"It holds for {number} speakers only, who are too few to be resampled."
    return "It is about new speakers of this corpus, not about other corpora."


def _seeds(pair: Pair, first: ResultRow, second: ResultRow) -> str:
    """Return what a comparison says about training again with other seeds."""
    selected_on_test = "paper" in (first.selection, second.selection)
    optimism = " An epoch was selected on the TEST set, so scores are optimistic." if selected_on_test else ""
    seeds = pair.difference.seeds
    if len(seeds) < 2:
        return f"With one shared seed, the variation between seeds is not covered.{optimism}"
    same_sign = sum((value > 0) == (pair.comparison.value > 0) for value in seeds)
    return (
        f"Over {len(seeds)} seeds the difference is {format_spread(pair.difference, signed=True)}, with this sign in "
        f"{same_sign}; the interval does not cover the variation between seeds.{optimism}"
    )


def grids(result: CompareResult) -> list[Grid]:
    """Return the tables of a comparison: scores, selection rules, calibration, and differences."""
    rows = result.results.rows
    selection = Grid("UA by the rule that selects the epoch", *selection_table(rows))
    tables = [_scores(result), selection, Grid("Calibration", *calibration_table(rows))]
    return [*tables, _differences(result)] if result.results.pairs else tables


def _scores(result: CompareResult) -> Grid:
    rows, metric = result.results.rows, result.metric
    corpora = len({row.corpus for row in rows}) > 1
    folds = any(len(row.folds) > 1 for row in rows)
    named = any(row.label != row.folder for row in rows)
    cost_names = list(dict.fromkeys(name for cost in result.costs.values() for name in cost))
    header = [
        "runs",
        *(["folder"] if named else []),
        *(["corpus"] if corpora else []),
        "differs in",
        "seeds",
        "selection",
        *METRICS,
        f"{metric}, 95 %",
        *([f"{metric}, folds"] if folds else []),
        "weights",
        *cost_names,
    ]
    body = [
        [
            row.label,
            *([row.folder] if named else []),
            *([row.corpus] if corpora else []),
            row.differences,
            ", ".join(map(str, row.seeds)),
            row.selection,
            *(format_spread(getattr(row, name)) for name in METRICS),
            format_interval(getattr(row.scores, metric).low, getattr(row.scores, metric).high),
            *([format_spread(spread_of([getattr(fold, metric) for fold in row.folds]))] if folds else []),
            f"{row.weights:,}" if row.weights else "",
            *(str(result.costs.get(row.label, {}).get(name, "")) for name in cost_names),
        ]
        for row in rows
    ]
    return Grid("Scores in percent, mean ± standard deviation over the seeds", header, body)


def _differences(result: CompareResult) -> Grid:
    body = []
    for pair in result.results.pairs:
        comparison = pair.comparison
        tests = comparison.by_seed.values()
        body.append(
            [
                pair.first,
                pair.second,
                f"{100 * comparison.value:+.1f}",
                format_interval(*comparison.interval, signed=True) if comparison.interval else "",
                comparison.resampled,
                format_p(comparison.p),
                format_p(pair.corrected_p),
                ", ".join(format_p(test.mcnemar.p) for test in tests),
                ", ".join(format_p(test.mcnemar.mid_p) for test in tests),
                format_p(comparison.wilcoxon_p),
                f"{comparison.effect:+.2f}" if tests else "",
            ]
        )
    header = ["first", "second", f"{result.metric}, points", "95 %", "resampled", "p", "p, Holm"]
    other_tests = ["McNemar p by seed", "mid-p by seed", "Wilcoxon p, folds", "Cohen's g"]
    return Grid("Differences, first minus second, on the same utterances", [*header, *other_tests], body)
