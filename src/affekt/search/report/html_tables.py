"""The tables of an architecture search's page, as HTML: in the layout of EmotionNAS's Tables 1 to 4 (Sun et al., arXiv
2203.13617 v1) with the paper's results, the differences, the cost, and the rounds of successive halving."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from affekt.corpora.iemocap import IEMOCAP
from affekt.protocols.papers import EmotionNAS
from affekt.reports.markdown import difference_cell, format_counts, format_interval, format_spread
from affekt.search.folder import Round
from affekt.search.report.networks import (
    FOUND_CELL,
    FOUND_RECURRENT_CELL,
    FUSION,
    RANDOM_SEARCH,
    SUPERNET,
    NetworkRow,
)
from affekt.search.report.tables import SearchOutcome, SearchTable, stage_costs
from affekt.search.report.verdicts import format_duration

PaperRow = tuple[str, float | None, float]  # name, parameters in millions, UA in percent

# What the paper reports for IEMOCAP, by table.
PAPER_RESULTS: dict[int, list[PaperRow]] = {
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


def compare_conditions(table: SearchTable) -> str:
    """Return sentences that state how the paper's conditions differ from those of a search."""
    differing = {
        "corpus": table.title != IEMOCAP.title,
        "label set": table.labels != "iemocap-improvised-4",
        "protocol": not table.protocol.startswith(EmotionNAS.title),
    }
    conditions = "IEMOCAP's improvised utterances, four emotions, leave one session out, wav2vec features"
    if names := [name for name, differs in differing.items() if differs]:
        listed = " and ".join([", ".join(names[:-1]), names[-1]][len(names) < 2 :])
        return f"The paper's scores are for another {listed} ({conditions}). They cannot be compared with ours."
    return f"The paper's scores are for the same corpus, label set and protocol ({conditions}), on another copy of the data."


def branches_table(table: SearchTable) -> str:
    """Return the table of branches and fusion, in the layout of the paper's Table 2; "" if no row is finished."""
    keys = [
        ("spectrogram", SUPERNET),
        ("spectrogram", FOUND_CELL),
        ("recurrent", FOUND_RECURRENT_CELL),
        ("fusion", FUSION),
    ]
    rows = [row for key in keys if (row := table.row(*key))]
    if not rows:
        return ""
    # The paper does not say which spectrogram network scored 63.5. Its parameter count is the supernet's.
    paper_rows = dict(zip((SUPERNET, FOUND_RECURRENT_CELL, FUSION), PAPER_RESULTS[2], strict=True))
    seeds = _seeds(rows)
    header = ["network", "UA", "95 %", *_seed_headers(seeds), "parameters", "paper's UA", "paper's parameters"]
    body = [
        [
            _name(row),
            *_ua_cells(row, seeds),
            format_counts(row.parameters),
            *reversed(_paper_cells(paper_rows.get(row.network))),
        ]
        for row in rows
    ]
    note = (
        "As in the paper's Table 2. UA in percent, mean and standard deviation over the seeds. "
        + compare_conditions(table)
    )
    return _table(header, body, note)


def _name(row: NetworkRow) -> str:
    return row.network if row.network == FUSION else f"{row.branch}: {row.network}"


def _seed_headers(seeds: Sequence[int]) -> list[str]:
    return [f"seed {seed}" for seed in seeds]


def _ua_cells(row: NetworkRow, seeds: Sequence[int]) -> list[str]:
    values = dict(zip(row.seeds, row.UA.seeds, strict=True))
    by_seed = [f"{100 * values[seed]:.1f}" if seed in values else "" for seed in seeds]
    return [_bold(format_spread(row.UA)), format_interval(row.scores.UA.low, row.scores.UA.high), *by_seed]


def networks_table(table: SearchTable, branch: str, number: int) -> str:
    """Return the table of a branch's networks, with the paper's table of this number, 3 or 4; "" if no row is finished."""
    rows = [row for row in table.rows if row.branch == branch]
    if not rows:
        return ""
    seeds = _seeds(rows)
    header = ["network", "UA", "95 %", *_seed_headers(seeds), "WA", "WF1", "parameters", "settings", "networks"]
    body = [
        [
            escape(row.network),
            *_ua_cells(row, seeds),
            format_spread(row.WA),
            format_spread(row.WF1),
            format_counts(row.parameters),
            row.settings,
            str(row.networks),
        ]
        for row in rows
    ]
    note = (
        f"As in the paper's Table {number}. A random cell's row is the mean over all random networks. networks: number of "
        "scored networks."
    )
    our_table = _table(header, body, note)
    header = ["paper, IEMOCAP", "parameters", "UA"]
    body = [[name, *_paper_cells((name, millions, ua))] for name, millions, ua in PAPER_RESULTS[number]]
    paper_table = _table(header, body, f"Sun et al., Table {number}. {compare_conditions(table)}")
    return f"{our_table}\n<details><summary>The paper's Table {number}</summary>{paper_table}</details>"


def differences_table(table: SearchTable) -> str:
    if not table.differences:
        return ""
    seeds = sorted({seed for difference in table.differences for seed in difference.by_seed})
    header = ["first", "second", "mean", "95 %", *_seed_headers(seeds)]
    body = [
        [
            difference.first,
            escape(difference.second) + (f" ({difference.branch})" if difference.second == RANDOM_SEARCH else ""),
            _bold(format_spread(difference.difference, signed=True)),
            format_interval(*difference.interval, signed=True) if difference.interval else "",
            *(difference_cell(difference.by_seed[seed]) if seed in difference.by_seed else "" for seed in seeds),
        ]
        for difference in table.differences
    ]
    note = (
        "Points of UA, first minus second, on the same utterances. p is from McNemar's exact two-sided test of a seed's two "
        "networks, which treats utterances as independent. For the interval, each bootstrap sample has the same speakers for "
        "both networks; it does not cover the variation between seeds. The first network counts as better or worse only if "
        "the interval and every seed agree. The fusion is compared with the branch that is better on the test set."
    )
    return _table(header, body, note, num_text_columns=2)


def paper_models_table(table: SearchTable) -> str:
    """Return the paper's Table 1 (EmotionNAS and other models), with our fusion as the last row; "" without our fusion."""
    row = table.row("fusion", FUSION)
    if row is None:
        return ""
    body = [[name, f"{ua:.1f}", "IEMOCAP, as the paper reports"] for name, _, ua in PAPER_RESULTS[1]]
    body.append([_bold("this search, fusion"), _bold(format_spread(row.UA)), _bold(escape(table.title))])
    return _table(["method", "UA", "corpus"], body, f"As in the paper's Table 1. {compare_conditions(table)}")


def costs_table(table: SearchTable) -> str:
    costs = stage_costs(table)
    body = [
        [stage, f"{cost.runs:.0f}", f"{cost.epochs:.0f}", format_duration(cost.seconds)]
        for stage, cost in costs.items()
    ]
    total = sum(cost.seconds for cost in costs.values())
    body.append([_bold("total"), "", "", _bold(format_duration(total))])
    note = (
        "All seeds and folds together. Time of training and scoring, summed over the workers, without feature extraction and "
        "without interrupted epochs."
    )
    return _table(["stage", "training runs", "epochs", "time"], body, note)


def rounds_tables(searches: Sequence[SearchOutcome]) -> str:
    return "\n".join(
        f"<h3>{escape(search.title)}</h3>{_rounds_table(search.rounds)}" for search in searches if search.rounds
    )


def _rounds_table(rounds: Sequence[Round]) -> str:
    """Return the table of the candidates' losses, with those that reached the latest round first."""
    last_round = {name: index for index, entry in enumerate(rounds) for name in entry.losses}

    def rank(name: str) -> tuple[int, bool, float]:
        loss = rounds[last_round[name]].losses[name]
        return -last_round[name], name not in rounds[-1].kept, math.inf if loss is None else loss

    names = sorted(last_round, key=rank)
    body = [[f"<code>{escape(name)}</code>", *(_loss_cell(entry, name) for entry in rounds)] for name in names]
    header = ["candidate", *(f"after epoch {entry.epochs}" for entry in rounds)]
    note = "Loss on the validation subset. Bold: continued to the next round; in the last round: selected."
    return _table(header, body, note)


def _loss_cell(entry: Round, name: str) -> str:
    if name not in entry.losses:
        return ""
    loss = entry.losses[name]
    text = "diverged" if loss is None else f"{loss:.3f}"
    return _bold(text) if name in entry.kept else text


def _seeds(rows: Iterable[NetworkRow]) -> list[int]:
    return sorted({seed for row in rows for seed in row.seeds})


def _paper_cells(row: PaperRow | None) -> list[str]:
    """Return the cells for the paper's parameters and UA."""
    if row is None:
        return ["", ""]
    _, millions, ua = row
    return ["" if millions is None else f"{millions:.2f}M", f"{ua:.1f}"]


def _bold(text: str) -> str:
    return f"<strong>{text}</strong>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], note: str, num_text_columns: int = 1) -> str:
    """Return a table with a note. The first columns contain text, aligned to the left; the others contain numbers."""

    def classes(index: int) -> str:
        return " class=text" if index < num_text_columns else ""

    head = "".join(f"<th{classes(index)}>{name}</th>" for index, name in enumerate(header))
    body = "\n".join(
        "<tr>" + "".join(f"<td{classes(index)}>{cell}</td>" for index, cell in enumerate(row)) + "</tr>" for row in rows
    )
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f"<div class='scroll'>{table}</div>\n<p class='small'>{note.strip()}</p>"
