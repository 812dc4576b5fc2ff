"""Architecture searches as sections of the Markdown page that `affekt report` writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from affekt.plural import quantity
from affekt.reports.markdown import difference_cell, format_counts, format_interval, format_spread
from affekt.reports.sections import Section
from affekt.search.report.tables import Difference, SearchTable, stage_costs
from affekt.search.report.verdicts import format_duration, verdicts
from affekt.tables import table

EXPLANATION = """\
"random search, same budget" is the random network that is best on the validation subset; "a random cell" and "a random
recurrent cell" are the mean over all random networks. parameters: number of trained parameters, as the paper counts them.
networks: number of scored networks. epochs, time: the total over all training runs behind a row, including its search, as
the mean over the searches.

"""

FOUND_ARCHITECTURES = """\
Found architectures. Each pair is an operation and its source; two pairs are a node. Sources 0 and 1 are the cell's inputs,
2 is the first node.

"""


def to_section(searches: Sequence[SearchTable]) -> Section:
    """Render searches as sections of the page."""
    return Section(
        markdown=[_search(search) for search in searches],
        rules=[search.selection for search in searches],
        unknown_speakers=[search.speakers_unknown for search in searches if search.speakers_unknown],
        facts={"searches": [dataclasses.asdict(search) for search in searches]},
        count=quantity(len(searches), "search", "searches"),
    )


def _search(search: SearchTable) -> str:
    title = f"{search.title}, {search.note}" if search.note else search.title
    paragraphs = [
        f"## Architecture search: {search.name}, {title}: {search.protocol}\n",
        f"{_search_line(search)}\n",
        "\n".join(
            f"- {'**Warning.** ' if verdict.kind == 'warning' else ''}{verdict.text}" for verdict in verdicts(search)
        )
        + "\n",
        EXPLANATION + _networks(search) if search.rows else "",
        "Differences of UA:\n\n" + _differences(search.differences) if search.differences else "",
        "Cost of the searches, over all seeds and folds. Time is summed over the workers.\n\n" + _costs(search),
        FOUND_ARCHITECTURES + _found_architectures(search),
    ]
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def _search_line(search: SearchTable) -> str:
    speakers = f" of {quantity(search.speakers, 'speaker')}" if search.speakers else ""
    line = (
        f"{search.protocol}, test set: {search.utterances} utterances{speakers}; **{search.verdict}**; split "
        f"{search.split_hash}; labels {search.labels}: {', '.join(search.emotions)}; selection {search.selection}."
    )
    if search.rows:
        line += f" Intervals: {search.rows[0].scores.intervals}."
    unknown = search.speakers_unknown
    return line + (f" The speakers, and whether the audio is the original, are unknown: {unknown}" if unknown else "")


def _networks(search: SearchTable) -> str:
    header = ["branch", "network", "parameters", "seeds", "networks", "UA", "WA", "WF1", "UA, 95 %", "epochs", "time"]
    body = [
        [
            row.branch,
            row.network,
            format_counts(row.parameters),
            ", ".join(map(str, row.seeds)),
            str(row.networks),
            *(format_spread(spread) for spread in (row.UA, row.WA, row.WF1)),
            format_interval(row.scores.UA.low, row.scores.UA.high),
            f"{row.cost.epochs:.0f}",
            format_duration(row.cost.seconds),
        ]
        for row in search.rows
    ]
    return table(header, body)


def _differences(differences: Sequence[Difference]) -> str:
    seeds = sorted({seed for difference in differences for seed in difference.by_seed})
    body = [
        [
            f"{difference.first} - {difference.second}",
            *(difference_cell(difference.by_seed[seed]) if seed in difference.by_seed else "" for seed in seeds),
            format_spread(difference.difference, signed=True),
            format_interval(*difference.interval, signed=True) if difference.interval else "",
        ]
        for difference in differences
    ]
    return table(["networks", *(f"seed {seed}" for seed in seeds), "mean", "95 %"], body)


def _costs(search: SearchTable) -> str:
    body = [
        [stage, f"{cost.runs:.0f}", f"{cost.epochs:.0f}", format_duration(cost.seconds)]
        for stage, cost in stage_costs(search).items()
    ]
    return table(["stage", "training runs", "epochs", "time"], body)


def _found_architectures(search_table: SearchTable) -> str:
    body = [
        [
            search.title,
            *(_genes(search.genotype[kind]) if search.genotype else "" for kind in ("normal", "reduce")),
            "" if search.skips is None else str(search.skips) + (", collapsed" if search.collapsed else ""),
            search.recipe_name,
        ]
        for search in search_table.searches
    ]
    return table(["search", "normal cell", "reduction cell", "skip connections", "recurrent cell"], body)


def _genes(genes: Sequence[Sequence[Any]]) -> str:
    """List operation and source, node after node: "sep_conv_3x3 0, skip_connect 1; ..."."""
    edges = [f"{operation} {source}" for operation, source in genes]
    return "; ".join(", ".join(edges[start : start + 2]) for start in range(0, len(edges), 2))
