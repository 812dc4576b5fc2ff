"""The tables of an architecture search's page, as HTML: after EmotionNAS's Tables 1 to 4 (Sun et al., arXiv 2203.13617 v1),
with what the paper prints beside ours, the differences, the cost and the halving's rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from affekt.evaluation.comparison import Comparison
from affekt.reports.markdown import format_counts, format_interval, format_spread
from affekt.search.folder import Round
from affekt.search.report.networks import FOUND_CELL, FOUND_RECIPE, FUSION, PICKED, SEARCHED, NetworkRow
from affekt.search.report.tables import Found, SearchTable, stage_costs
from affekt.search.report.verdicts import duration

# What the paper prints for IEMOCAP: by table, (row, parameters in millions, UA in percent).
PRINTED: dict[int, list[tuple[str, float | None, float]]] = {
    1: [
        ("CNN-LSTM", None, 62.0),
        ("RNN-ELM", None, 63.9),
        ("CNN-GRU", None, 64.2),
        ("CTC-RNN", None, 66.2),
        ("PCNSE-SADRN-CTC", None, 66.3),
        ("EmotionNAS", None, 72.8),
    ],
    2: [("spectrogram branch", 0.13, 63.5), ("wav2vec branch", 2.23, 70.3), ("EmotionNAS", 2.36, 72.8)],
    3: [
        ("L = 3, C = 4", 0.07, 58.7),
        ("L = 3, C = 6", 0.13, 63.5),
        ("L = 4, C = 8", 0.35, 62.3),
        ("L = 8, C = 16", 1.32, 62.1),
    ],
    4: [("L = 1, h = 128", 0.36, 69.4), ("L = 2, h = 256", 2.23, 70.3)],
}
APART = (
    "Another corpus and another protocol: the paper's figures are of IEMOCAP, improvised, four emotions, leave one session "
    "out, wav2vec. They show what was printed and are not to be compared with ours."
)


def branches(table: SearchTable) -> str:
    """Return the table after Table 2; "", as in the functions below, if no row is finished."""
    places = [("spectrogram", SEARCHED), ("spectrogram", FOUND_CELL), ("recurrent", FOUND_RECIPE), ("fusion", FUSION)]
    rows = [row for place in places if (row := table.row(*place))]
    if not rows:
        return ""
    # The paper does not say which network scored 63.5; its parameter count is the supernet's.
    printed = {SEARCHED: PRINTED[2][0], FOUND_RECIPE: PRINTED[2][1], FUSION: PRINTED[2][2]}
    seeds = _seeds(rows)
    header = ["network", "UA", "95 %", *_heads(seeds), "parameters", "paper's UA", "paper's parameters"]
    body = [
        [_name(row), *_scored(row, seeds), format_counts(row.parameters), *reversed(_printed(printed.get(row.what)))]
        for row in rows
    ]
    return _table(header, body, f"As Table 2. UA in percent, mean and standard deviation over the seeds. {APART}")


def _name(row: NetworkRow) -> str:
    return row.what if row.what == FUSION else f"{row.branch}: {row.what}"


def _heads(seeds: Sequence[int]) -> list[str]:
    return [f"seed {seed}" for seed in seeds]


def _scored(row: NetworkRow, seeds: Sequence[int]) -> list[str]:
    values = dict(zip(row.seeds, row.UA.seeds, strict=True))
    by_seed = [f"{100 * values[seed]:.1f}" if seed in values else "" for seed in seeds]
    return [_bold(format_spread(row.UA)), format_interval(row.scores.UA.low, row.scores.UA.high), *by_seed]


def networks(table: SearchTable, branch: str, number: int) -> str:
    """A branch's networks, after Table 3 or 4, whose number is given."""
    rows = [row for row in table.rows if row.branch == branch]
    if not rows:
        return ""
    seeds = _seeds(rows)
    header = ["network", "UA", "95 %", *_heads(seeds), "WA", "WF1", "parameters", "settings", "trained"]
    body = [
        [
            escape(row.what),
            *_scored(row, seeds),
            format_spread(row.WA),
            format_spread(row.WF1),
            format_counts(row.parameters),
            row.settings,
            str(row.networks),
        ]
        for row in rows
    ]
    ours = _table(header, body, f"As Table {number}. A random network is the mean of all that were drawn.")
    header = ["paper, IEMOCAP", "parameters", "UA"]
    body = [[name, *_printed((name, count, ua))] for name, count, ua in PRINTED[number]]
    theirs = _table(header, body, f"Sun et al., Table {number}. {APART}")
    return f"{ours}\n<details><summary>What the paper's Table {number} prints</summary>{theirs}</details>"


def differences(table: SearchTable) -> str:
    if not table.differences:
        return ""
    seeds = sorted({seed for one in table.differences for seed in one.by_seed})
    header = ["first", "second", "mean", "95 %", *_heads(seeds)]
    body = [
        [
            one.first,
            escape(one.second) + (f" ({one.branch})" if one.second == PICKED else ""),
            _bold(format_spread(one.difference, signed=True)),
            format_interval(*one.interval, signed=True) if one.interval else "",
            *(_difference(one.by_seed[seed]) if seed in one.by_seed else "" for seed in seeds),
        ]
        for one in table.differences
    ]
    note = (
        "Points of UA, first minus second, on the same utterances. p is McNemar's exact two-sided test of a seed's two "
        "networks, which takes utterances as independent; the interval draws the same speakers for both and knows nothing of "
        "other seeds. A difference is better or worse if interval and every seed agree. The fusion is compared with the "
        "branch that is better on the test set."
    )
    return _table(header, body, note, words=2)


def _difference(one: Comparison) -> str:
    return f"{100 * one.value:+.1f}, p = {one.p:.2g}"


def beside(table: SearchTable) -> str:
    """The fusion below the paper's own and its rivals: Table 1."""
    row = table.row("fusion", FUSION)
    if row is None:
        return ""
    body = [[name, f"{ua:.1f}", "IEMOCAP, as printed"] for name, _, ua in PRINTED[1]]
    body.append([_bold("this search, fusion"), _bold(format_spread(row.UA)), _bold(escape(table.title))])
    return _table(["method", "UA", "corpus"], body, f"As Table 1. {APART}")


def costs(table: SearchTable) -> str:
    spent = stage_costs(table)
    body = [[stage, f"{one.runs:.0f}", f"{one.epochs:.0f}", duration(one.seconds)] for stage, one in spent.items()]
    total = sum(one.seconds for one in spent.values())
    body.append([_bold("in all"), "", "", _bold(duration(total))])
    note = (
        "All seeds and folds together. Time of training and scoring, summed over workers; extraction of features and what "
        "was killed are not in it."
    )
    return _table(["stage", "training runs", "epochs", "time"], body, note)


def rounds(searches: Sequence[Found]) -> str:
    return "\n".join(f"<h3>{escape(one.title)}</h3>{_rounds_table(one.rounds)}" for one in searches if one.rounds)


def _rounds_table(rounds: Sequence[Round]) -> str:
    """The candidates, those that went farthest first."""
    last = {name: number for number, one in enumerate(rounds) for name in one.losses}

    def place(name: str) -> tuple[int, bool, float]:
        loss = rounds[last[name]].losses[name]
        return -last[name], name not in rounds[-1].kept, math.inf if loss is None else loss

    names = sorted(last, key=place)
    body = [[f"<code>{escape(name)}</code>", *(_loss(one, name) for one in rounds)] for name in names]
    header = ["candidate", *(f"after epoch {one.epochs}" for one in rounds)]
    return _table(
        header, body, "Loss on the validation set. Bold: went on, and from the last round, was chosen.", words=1
    )


def _loss(one: Round, name: str) -> str:
    if name not in one.losses:
        return ""
    loss = one.losses[name]
    text = "diverged" if loss is None else f"{loss:.3f}"
    return _bold(text) if name in one.kept else text


def _seeds(rows: Iterable[NetworkRow]) -> list[int]:
    return sorted({seed for row in rows for seed in row.seeds})


def _printed(row: tuple[str, float | None, float] | None) -> list[str]:
    if row is None:
        return ["", ""]
    _, count, ua = row
    return ["" if count is None else f"{count:.2f}M", f"{ua:.1f}"]


def _bold(text: str) -> str:
    return f"<strong>{text}</strong>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str, words: int = 1) -> str:
    """The first `words` columns are words, the others figures."""
    head = "".join(f"<th{' class=w' if n < words else ''}>{name}</th>" for n, name in enumerate(header))
    body = "\n".join(
        "<tr>" + "".join(f"<td{' class=w' if n < words else ''}>{cell}</td>" for n, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f"<div class='scroll'>{table}</div>\n<p class='small'>{note.strip()}</p>"
