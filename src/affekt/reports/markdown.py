"""Sections on finished training runs for the page that `affekt report` writes: one for each protocol, corpus and split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from affekt.evaluation.calibration import Calibration, TemperatureScaling
from affekt.evaluation.comparison import SeedComparison
from affekt.evaluation.metrics import METRICS
from affekt.evaluation.spread import Spread
from affekt.plural import quantity
from affekt.published import PublishedResult
from affekt.reports.results import Pair, ResultRow, Results
from affekt.reports.sections import Section
from affekt.runs.selection import RULES
from affekt.tables import table


def to_section(results: Results, *, by_fold: bool = False) -> Section:
    """Render results as sections of the page."""
    return Section(
        markdown=[_section(rows, results.pairs, by_fold) for rows in group_rows(results.rows)],
        rules=[row.selection for row in results.rows],
        unknown_speakers=[row.speakers_unknown for row in results.rows if row.speakers_unknown],
        facts=dataclasses.asdict(results),
        count=f"{len(results.rows)} groups of runs",
    )


def group_rows(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """Group the rows by split, corpus and labels, in the order of their first row."""
    groups: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in rows:
        groups.setdefault((row.split_hash, row.corpus, row.labels), []).append(row)
    return list(groups.values())


def _section(rows: Sequence[ResultRow], pairs: Sequence[Pair], by_fold: bool) -> str:
    first = rows[0]
    section_pairs = [pair for pair in pairs if (pair.split_hash, pair.corpus) == (first.split_hash, first.corpus)]
    paragraphs = [
        f"## {_corpus(first)}: {first.protocol}\n",
        f"{_protocol_line(first)}\n",
        _scores(rows),
        "Settings that differ:\n\n" + _differences(rows) if len(rows) > 1 else "",
        *(f"{text}.\n" for text in dict.fromkeys(_describe_published(row.published) for row in rows if row.published)),
        "UA by selection rule:\n\n" + table(*selection_table(rows)),
        "Scores by fold, mean over the seeds:\n\n" + _folds(rows) if by_fold else "",
        "Calibration:\n\n" + table(*calibration_table(rows)),
        "Differences of UA:\n\n" + _pairs(section_pairs) if section_pairs else "",
    ]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def _corpus(row: ResultRow) -> str:
    return f"{row.title}, {row.note}" if row.note else row.title


def _protocol_line(row: ResultRow) -> str:
    speakers = f" of {quantity(row.speakers, 'speaker')}" if row.speakers else ""
    line = (
        f"{row.protocol}, test set: {row.utterances} utterances{speakers}; **{row.verdicts}**; split {row.split_hash}; "
        f"labels {row.labels}: {', '.join(row.emotions)}. Intervals: {row.scores.intervals}."
    )
    unknown = row.speakers_unknown
    return line + (f" The speakers, and whether the audio is the original, are unknown: {unknown}" if unknown else "")


def _scores(rows: Sequence[ResultRow]) -> str:
    published = [metric for metric in METRICS if any(row.published and metric in row.published.scores for row in rows)]
    many = len(rows) > 1
    folders = any(row.folder != row.name for row in rows) and many
    header = [
        "runs",
        *(["folder"] if folders else []),
        "model",
        "weights",
        "seeds",
        "epochs",
        "selection",
        "UA",
        "WA",
        "WF1",
        "UA, 95 %",
        "WA, 95 %",
        "ECE",
    ]
    body = [
        [
            row.name,
            *([row.folder] if folders else []),
            row.model,
            f"{row.weights:,}" if row.weights else "",
            ", ".join(map(str, row.seeds)),
            str(row.epochs),
            row.selection,
            format_spread(row.UA),
            format_spread(row.WA),
            format_spread(row.WF1),
            format_interval(row.scores.UA.low, row.scores.UA.high),
            format_interval(row.scores.WA.low, row.scores.WA.high),
            f"{100 * row.scores.ece:.1f}",
            *(_published_score(row, metric) for metric in published),
        ]
        for row in rows
    ]
    return table(header + [f"paper's {metric}" for metric in published], body)


def _differences(rows: Sequence[ResultRow]) -> str:
    return table(["runs", "settings"], [[row.label, row.differences] for row in rows])


def _published_score(row: ResultRow, metric: str) -> str:
    value = row.published.scores.get(metric) if row.published else None
    return "" if value is None else f"{100 * value:.1f}"


def _describe_published(result: PublishedResult) -> str:
    return f"Published scores: {result.source}. {result.note}"


def _folds(rows: Sequence[ResultRow]) -> str:
    body = [
        [row.label, fold.fold or "-", str(fold.utterances), *(f"{100 * getattr(fold, name):.1f}" for name in METRICS)]
        for row in rows
        for fold in row.folds
    ]
    return table(["runs", "fold", "utterances", *METRICS], body)


def selection_table(rows: Sequence[ResultRow]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of UA by the rule that selects the epoch, with the optimism of the best on test."""
    shown = {"last", "validation", "paper"} | {row.selection for row in rows}
    rules = [rule for rule in RULES if rule in shown and any(rule in row.by_selection for row in rows)]
    names = {
        "last": "last epoch",
        "validation": "best on validation",
        "validation-wf1": "best WF1 on validation",
        "validation-loss": "lowest loss on validation",
        "paper": "best on TEST",
    }
    body = [
        [
            row.label,
            *(format_spread(row.by_selection[rule]) if rule in row.by_selection else "" for rule in rules),
            f"{100 * row.optimism:+.1f}",
        ]
        for row in rows
    ]
    return ["runs", *(names[rule] for rule in rules), "optimism"], body


def calibration_table(rows: Sequence[ResultRow]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a table of the calibration before and after temperature scaling."""
    metrics = ["ECE", "Brier", "cross-entropy"]
    header = ["runs", *metrics, "temperature", *(f"{metric}, scaled" for metric in metrics)]
    return header, [[row.label, *_calibration_cells(row.calibration)] for row in rows]


def _calibration_cells(scaling: TemperatureScaling) -> list[str]:
    """Format the calibration before and after temperature scaling; without a validation subset, only that before."""

    def numbers(calibration: Calibration | None) -> list[str]:
        if calibration is None:
            return ["", "", ""]
        return [f"{100 * calibration.ece:.1f}", f"{calibration.brier:.3f}", f"{calibration.cross_entropy:.3f}"]

    temperatures = [temperature for folds in scaling.temperatures.values() for temperature in folds]
    extremes = dict.fromkeys(f"{edge(temperatures):.2f}" for edge in (min, max)) if temperatures else {}
    return [*numbers(scaling.before), " to ".join(extremes) or "no validation", *numbers(scaling.after)]


def _pairs(pairs: Sequence[Pair]) -> str:
    seeds = sorted({seed for pair in pairs for seed in pair.comparison.by_seed})
    body = []
    for pair in pairs:
        by_seed = pair.comparison.by_seed
        body.append(
            [
                f"{pair.first} - {pair.second}",
                *(difference_cell(by_seed[seed]) if seed in by_seed else "" for seed in seeds),
                format_spread(pair.difference, signed=True),
                format_interval(*pair.comparison.interval, signed=True) if pair.comparison.interval else "",
                pair.comparison.resampled or "none",
                format_p(pair.comparison.p),
                format_p(pair.corrected_p),
                f"{pair.comparison.effect:+.2f}",
            ]
        )
    header = ["runs", *(f"seed {seed}" for seed in seeds), "mean", "95 %", "resampled", "p", "p, Holm", "Cohen's g"]
    return table(header, body)


def format_p(p: float | None) -> str:
    """Format a p-value; "" if there is none."""
    return "" if p is None else f"{p:.2g}"


def difference_cell(comparison: SeedComparison) -> str:
    """Format the comparison of a seed: the difference in points of UA, and McNemar's p-value."""
    return f"{100 * comparison.value:+.1f}, p = {comparison.p:.2g}"


def format_spread(spread: Spread, *, signed: bool = False) -> str:
    """Format a score in percent: "70.1 ± 0.6", or the mean alone for a single seed."""
    mean = f"{100 * spread.mean:{'+' if signed else ''}.1f}"
    return mean if spread.std is None else f"{mean} ± {100 * spread.std:.1f}"


def format_interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """Format an interval in percent: "68.0 to 72.1"; "" if there is none."""
    if low is None or high is None:
        return ""
    sign = "+" if signed else ""
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def format_counts(counts: Sequence[int]) -> str:
    """Format numbers of parameters in ascending order: "4,102", or "4,102 to 5,320" where networks differ."""
    return " to ".join(f"{count:,}" for count in dict.fromkeys([*counts[:1], *counts[-1:]]))
