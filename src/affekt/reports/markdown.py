"""Finished runs as sections of the Markdown page that `affekt report` writes: one per split, headed by its protocol line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from affekt.evaluation.scores import Comparison
from affekt.reports.results import Pair, Printed, ResultRow, Results, Spread, results
from affekt.reports.sections import Section
from affekt.runs.selection import RULES
from affekt.tables import table

MEASURES = ("UA", "WA", "WF1")


def runs_section(folders: Sequence[Path]) -> Section:
    """Read all finished runs below the folders and return them as sections of the page."""
    return to_section(results(folders))


def to_section(results: Results) -> Section:
    return Section(
        markdown=[_section(rows, results.pairs) for rows in group_rows(results.rows)],
        rules=[row.selection for row in results.rows],
        unknown_speakers=[row.doubt for row in results.rows if row.doubt],
        facts=dataclasses.asdict(results),
        count=f"{len(results.rows)} trainings",
    )


def group_rows(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
    """The rows by split, corpus and labels, in the order in which these are met."""
    found: dict[tuple[str, ...], list[ResultRow]] = {}
    for row in rows:
        found.setdefault((row.split_hash, row.corpus, row.labels), []).append(row)
    return list(found.values())


def _section(rows: Sequence[ResultRow], pairs: Sequence[Pair]) -> str:
    first = rows[0]
    here = [pair for pair in pairs if (pair.split_hash, pair.corpus) == (first.split_hash, first.corpus)]
    paragraphs = [
        f"## {_corpus(first)}: {first.protocol}\n",
        f"{_protocol_line(first)}\n",
        _scores(rows),
        *(f"{text}.\n" for text in dict.fromkeys(_published(row.printed) for row in rows if row.printed)),
        "UA by the rule that chooses the epoch:\n\n" + _choices(rows),
        "Differences of UA:\n\n" + _pairs(here) if here else "",
    ]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def _corpus(row: ResultRow) -> str:
    return f"{row.title}, {row.note}" if row.note else row.title


def _protocol_line(row: ResultRow) -> str:
    speakers = f" of {row.people} speakers" if row.people else ""
    line = (
        f"{row.protocol}, part 'test': {row.utterances} utterances{speakers}; **{row.verdict}**; split {row.split_hash}; "
        f"labels {row.labels}: {', '.join(row.emotions)}. Intervals: {row.scores.intervals}."
    )
    return line + (
        f" Whether this is the original audio, and who speaks, is not known here: {row.doubt}" if row.doubt else ""
    )


def _scores(rows: Sequence[ResultRow]) -> str:
    printed = [measure for measure in MEASURES if any(row.printed and getattr(row.printed, measure) for row in rows)]
    header = [
        "training",
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
            row.model,
            f"{row.weights:,}" if row.weights else "",
            ", ".join(map(str, row.seeds)),
            str(row.epochs),
            row.selection,
            spread(row.UA),
            spread(row.WA),
            spread(row.WF1),
            ends(row.scores.UA.low, row.scores.UA.high),
            ends(row.scores.WA.low, row.scores.WA.high),
            f"{100 * row.scores.ece:.1f}",
            *(_of_paper(row, measure) for measure in printed),
        ]
        for row in rows
    ]
    return table(header + [f"paper's {measure}" for measure in printed], body)


def _of_paper(row: ResultRow, measure: str) -> str:
    value = getattr(row.printed, measure) if row.printed else None
    return "" if value is None else f"{100 * value:.1f}"


def _published(printed: Printed) -> str:
    return f"The published figures ({printed.source}) are {printed.differs}"


def _choices(rows: Sequence[ResultRow]) -> str:
    asked = {"last", "validation", "paper"} | {row.selection for row in rows}
    rules = [rule for rule in RULES if rule in asked and any(rule in row.by_selection for row in rows)]
    names = {
        "last": "last epoch",
        "validation": "best on validation",
        "validation-wf1": "best WF1 on validation",
        "validation-loss": "lowest loss on validation",
        "paper": "best on TEST",
    }
    body = [
        [
            row.name,
            *(spread(row.by_selection[rule]) if rule in row.by_selection else "" for rule in rules),
            f"{100 * row.optimism:+.1f}",
        ]
        for row in rows
    ]
    return table(["training", *(names[rule] for rule in rules), "optimism"], body)


def _pairs(pairs: Sequence[Pair]) -> str:
    seeds = sorted({seed for pair in pairs for seed in pair.by_seed})
    body = [
        [
            f"{pair.first} - {pair.second}",
            *(difference_cell(pair.by_seed[seed]) if seed in pair.by_seed else "" for seed in seeds),
            spread(pair.difference, signed=True),
            ends(*pair.interval, signed=True) if pair.interval else "",
        ]
        for pair in pairs
    ]
    return table(["trainings", *(f"seed {seed}" for seed in seeds), "mean", "95 %"], body)


def difference_cell(one: Comparison) -> str:
    return f"{100 * one.value:+.1f}, p = {one.p:.2g}"


def spread(one: Spread, *, signed: bool = False) -> str:
    """In percent: "70.1 ± 0.6", or the mean alone where there is one seed."""
    mean = f"{100 * one.mean:{'+' if signed else ''}.1f}"
    return mean if one.deviation is None else f"{mean} ± {100 * one.deviation:.1f}"


def ends(low: float, high: float, *, signed: bool = False) -> str:
    """The ends of an interval in percent: "68.0 to 72.1"."""
    sign = "+" if signed else ""
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def amounts(counts: Sequence[int]) -> str:
    """Numbers of parameters: "4,102", or "4,102 to 5,320" of networks that differ."""
    return " to ".join(f"{count:,}" for count in dict.fromkeys([*counts[:1], *counts[-1:]]))
