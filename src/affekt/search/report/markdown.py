"""Architecture searches as sections of the Markdown page that `affekt report` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affekt.plural import quantity
from affekt.reports.markdown import difference_cell, format_counts, format_interval, format_spread
from affekt.reports.sections import Section
from affekt.search.report.tables import Difference, SearchTable, search_results, stage_costs
from affekt.search.report.verdicts import duration, verdicts
from affekt.tables import table

NETWORKS = """\
"random search, same budget" is the random network that is best on the validation set; "a random cell" and "a random recipe"
are the mean over all random networks. parameters: trained parameters, as the paper counts them. epochs, time: the total over
all training runs behind a row, including its search, for one search.

"""


def searches_section(folders: Sequence[Path]) -> Section:
    """Read all searches below the folders and return them as sections of the page."""
    return to_section(search_results(folders))


def to_section(searches: Sequence[SearchTable]) -> Section:
    return Section(
        markdown=[_search(search) for search in searches],
        rules=[search.selection for search in searches],
        unknown_speakers=[search.doubt for search in searches if search.doubt],
        facts={"searches": [dataclasses.asdict(search) for search in searches]},
        count=quantity(len(searches), "search", "searches"),
    )


def _search(search: SearchTable) -> str:
    title = f"{search.title}, {search.note}" if search.note else search.title
    paragraphs = [
        f"## Architecture search: {search.name}, {title}: {search.protocol}\n",
        f"{_search_line(search)}\n",
        "\n".join(f"- {'**Warning.** ' if one.kind == 'warning' else ''}{one.text}" for one in verdicts(search)) + "\n",
        NETWORKS + _networks(search) if search.rows else "",
        "Differences of UA:\n\n" + _differences(search.differences) if search.differences else "",
        "Cost of the searches, over all seeds and folds, with the workers' times added up:\n\n" + _costs(search),
        "Found architectures:\n\n" + _found(search),
    ]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def _search_line(search: SearchTable) -> str:
    speakers = f" of {search.people} speakers" if search.people else ""
    line = (
        f"{search.protocol}, test set: {search.utterances} utterances{speakers}; **{search.verdict}**; split "
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
            format_counts(row.parameters),
            ", ".join(map(str, row.seeds)),
            str(row.networks),
            *(format_spread(one) for one in (row.UA, row.WA, row.WF1)),
            format_interval(row.scores.UA.low, row.scores.UA.high),
            f"{row.cost.epochs:.0f}",
            duration(row.cost.seconds),
        ]
        for row in search.rows
    ]
    return table(header, body)


def _differences(differences: Sequence[Difference]) -> str:
    seeds = sorted({seed for one in differences for seed in one.by_seed})
    body = [
        [
            f"{one.first} - {one.second}",
            *(difference_cell(one.by_seed[seed]) if seed in one.by_seed else "" for seed in seeds),
            format_spread(one.difference, signed=True),
            format_interval(*one.interval, signed=True) if one.interval else "",
        ]
        for one in differences
    ]
    return table(["networks", *(f"seed {seed}" for seed in seeds), "mean", "95 %"], body)


def _costs(search: SearchTable) -> str:
    body = [
        [stage, f"{one.runs:.0f}", f"{one.epochs:.0f}", duration(one.seconds)]
        for stage, one in stage_costs(search).items()
    ]
    return table(["stage", "training runs", "epochs", "time"], body)


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
