"""Finished trainings and searches as a Markdown page: a section per split and per search, headed by its protocol line.
Never written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affekt.evaluation.scores import Comparison
from affekt.reports.results import Pair, Printed, ResultRow, Results, Spread
from affekt.runs.selection import RULES
from affekt.search.report.tables import Difference, SearchTable, stage_costs
from affekt.search.report.verdicts import duration, verdicts
from affekt.tables import table

MEASURES = ("UA", "WA", "WF1")

HEAD = """\
# Results

Written by `affekt report` from the run folders of finished trainings, never by hand. All figures but p are in percent.

- UA is mean recall, WA accuracy, WF1 support-weighted F1, ECE expected calibration error over 15 bins. "±" is the standard
  deviation over the seeds, each a training of its own on the same split.
- The intervals and ECE count the answers of all seeds together.
- weights: numbers in the trained network, its stored standardisation too; a frozen encoder is not counted.
- selection: {rules}. Optimism: what UA gains when the epoch is chosen on the test part, over the better of the other rules;
  new data would not give it.
- Differences are in points of UA, first training minus second, on the same utterances. p is McNemar's exact two-sided test
  of the two trainings of a seed, which takes utterances as independent; the interval of the mean draws the same speakers for
  both, all seeds together, and knows nothing of other seeds.
- The seed in a protocol's line is that of its draw, not of a training.
"""


NETWORKS = """\
"random search, same budget" is that of the random networks which is best on the validation part; "a random" one is the mean
of all. parameters: numbers that are learnt, as the paper counts them. epochs, time: of all trainings that a row took, its
search among them, in one search.

"""


def page(results: Results, searches: Sequence[SearchTable] = ()) -> str:
    """The Markdown of all sections."""
    used = dict.fromkeys([row.selection for row in results.rows] + [one.selection for one in searches])
    rules = "; ".join(f'"{rule}", {RULES[rule]}' for rule in used)
    parts = [HEAD.format(rules=rules), *(_section(rows, results.pairs) for rows in sections(results.rows))]
    return "\n".join([*parts, *map(_search, searches)])


def sections(rows: Sequence[ResultRow]) -> list[list[ResultRow]]:
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
            *(_difference(pair.by_seed[seed]) if seed in pair.by_seed else "" for seed in seeds),
            spread(pair.difference, signed=True),
            ends(*pair.interval, signed=True) if pair.interval else "",
        ]
        for pair in pairs
    ]
    return table(["trainings", *(f"seed {seed}" for seed in seeds), "mean", "95 %"], body)


def _search(search: SearchTable) -> str:
    title = f"{search.title}, {search.note}" if search.note else search.title
    paragraphs = [
        f"## Architecture search: {search.name}, {title}: {search.protocol}\n",
        f"{_search_line(search)}\n",
        "\n".join(f"- {'**Warning.** ' if one.kind == 'warning' else ''}{one.text}" for one in verdicts(search)) + "\n",
        NETWORKS + _networks(search) if search.rows else "",
        "Differences of UA:\n\n" + _differences(search.differences) if search.differences else "",
        "What the searches cost, all seeds and folds together, workers' times summed:\n\n" + _costs(search),
        "What each found:\n\n" + _found(search),
    ]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def _search_line(search: SearchTable) -> str:
    speakers = f" of {search.people} speakers" if search.people else ""
    line = (
        f"{search.protocol}, part 'test': {search.utterances} utterances{speakers}; **{search.verdict}**; split "
        f"{search.split_hash}; labels {search.labels}: {', '.join(search.emotions)}; selection {search.selection}."
    )
    if search.rows:
        line += f" Intervals: {search.rows[0].scores.intervals}."
    return line + (
        f" Whether this is the original audio, and who speaks, is not known here: {search.doubt}"
        if search.doubt
        else ""
    )


def _networks(search: SearchTable) -> str:
    header = ["branch", "network", "parameters", "seeds", "trained", "UA", "WA", "WF1", "UA, 95 %", "epochs", "time"]
    body = [
        [
            row.branch,
            row.what,
            amounts(row.parameters),
            ", ".join(map(str, row.seeds)),
            str(row.networks),
            *(spread(one) for one in (row.UA, row.WA, row.WF1)),
            ends(row.scores.UA.low, row.scores.UA.high),
            f"{row.cost.epochs:.0f}",
            duration(row.cost.seconds),
        ]
        for row in search.rows
    ]
    return table(header, body)


def amounts(counts: Sequence[int]) -> str:
    """Numbers of parameters: "4,102", or "4,102 to 5,320" of networks that differ."""
    return " to ".join(f"{count:,}" for count in dict.fromkeys([*counts[:1], *counts[-1:]]))


def _differences(differences: Sequence[Difference]) -> str:
    seeds = sorted({seed for one in differences for seed in one.by_seed})
    body = [
        [
            f"{one.first} - {one.second}",
            *(_difference(one.by_seed[seed]) if seed in one.by_seed else "" for seed in seeds),
            spread(one.difference, signed=True),
            ends(*one.interval, signed=True) if one.interval else "",
        ]
        for one in differences
    ]
    return table(["networks", *(f"seed {seed}" for seed in seeds), "mean", "95 %"], body)


def _costs(search: SearchTable) -> str:
    body = [
        [stage, f"{one.trainings:.0f}", f"{one.epochs:.0f}", duration(one.seconds)]
        for stage, one in stage_costs(search).items()
    ]
    return table(["stage", "trainings", "epochs", "time"], body)


def _found(search: SearchTable) -> str:
    body = [
        [
            one.title,
            *(_genes(one.genotype[kind]) if one.genotype else "" for kind in ("normal", "reduce")),
            "" if one.skips is None else str(one.skips) + (", collapsed" if one.collapsed else ""),
            one.recipe_name,
        ]
        for one in search.searches
    ]
    return table(["search", "normal cell", "reduction cell", "skips", "recipe"], body)


def _genes(genes: Sequence[Sequence[Any]]) -> str:
    """Operation and source, node after node: "sep_conv_3x3 0, skip_connect 1; ..."."""
    words = [f"{operation} {source}" for operation, source in genes]
    return "; ".join(", ".join(words[place : place + 2]) for place in range(0, len(words), 2))


def _difference(one: Comparison) -> str:
    return f"{100 * one.value:+.1f}, p = {one.p:.2g}"


def spread(one: Spread, *, signed: bool = False) -> str:
    """In percent: "70.1 ± 0.6", or the mean alone where there is one seed."""
    mean = f"{100 * one.mean:{'+' if signed else ''}.1f}"
    return mean if one.deviation is None else f"{mean} ± {100 * one.deviation:.1f}"


def ends(low: float, high: float, *, signed: bool = False) -> str:
    """The ends of an interval in percent: "68.0 to 72.1"."""
    sign = "+" if signed else ""
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"
