"""An architecture search as one self-contained HTML page: the conclusions, our results in the layout of EmotionNAS's tables
(Sun et al., arXiv 2203.13617 v1, Tables 1 to 4), the cost, drawings of the found cells and of the architecture weights, and
the rounds of successive halving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

from affekt.errors import BadConfig
from affekt.json_text import to_json
from affekt.plural import quantity
from affekt.reports.page.render import Html, PageSection, render_page
from affekt.reports.sections import Options, Section
from affekt.runs.selection import RULES
from affekt.search.folder import Search
from affekt.search.report.draw_alphas import draw_edges, draw_mean_weights, legend, softmax_weights
from affekt.search.report.draw_cells import CELL_KINDS, draw_graph, draw_recurrent_cell, genotype_graph
from affekt.search.report.html_tables import (
    branches_table,
    costs_table,
    differences_table,
    networks_table,
    paper_models_table,
    rounds_tables,
)
from affekt.search.report.markdown import to_section
from affekt.search.report.networks import FOUND_CELL, stage_runs
from affekt.search.report.tables import SearchOutcome, SearchTable, collect_searches, group_searches
from affekt.search.report.verdicts import verdicts

TAGS = {"better": "better", "worse": "worse", "open": "inconclusive", "early": "unfinished", "note": "note"}
NUM_OPEN = 3  # searches whose drawings are expanded at first


def search_page(folder: Path) -> str:
    """Return the page of all searches below a folder, finished or not. Raises `BadConfig` if none has begun."""
    tables, groups = collect_searches([folder]), group_searches([folder])
    if not tables:
        raise BadConfig(
            f"{folder} contains no search that has begun: expected search.toml and runs, as affekt search writes them"
        )
    title = ", ".join(dict.fromkeys(table.name for table in tables))
    parts = [Html(_header(table) + _search_part(table, group)) for table, group in zip(tables, groups, strict=True)]
    return render_page(f"Architecture search: {title}", [PageSection("", parts)])


def searches_section(folders: Sequence[Path], options: Options) -> Section:  # noqa: ARG001 (all sections get them)
    """Read all searches below the folders and return their part of the page that `affekt report` writes."""
    tables, groups = collect_searches(folders), group_searches(folders)
    return replace(to_section(tables), html=lambda _: _page_sections(tables, groups))


def _page_sections(tables: Sequence[SearchTable], groups: Sequence[Sequence[Search]]) -> list[PageSection]:
    return [
        PageSection(
            f"Architecture search: {table.name}",
            [Html(f"<p class='line'>{_protocol_line(table)}</p>" + _search_part(table, group, heading="h3"))],
        )
        for table, group in zip(tables, groups, strict=True)
    ]


def _search_part(table: SearchTable, folders: Sequence[Search], heading: str = "h2") -> str:
    parts = {
        "Branches and fusion": branches_table(table),
        "Spectrogram branch": networks_table(table, "spectrogram", 3),
        "Recurrent branch": networks_table(table, "recurrent", 4),
        "Differences": differences_table(table),
        "Comparison with the paper's other models": paper_models_table(table),
        "Cost": costs_table(table),
        "Found architectures": _architectures(table.searches),
        "Architecture weights by epoch": _architecture_weights(table.searches, folders),
        "Rounds of successive halving": rounds_tables(table.searches),
    }
    sections = [
        f"<section>\n<{heading}>{title}</{heading}>\n{body}\n</section>" for title, body in parts.items() if body
    ]
    return "\n".join([_verdict_list(table), *sections])


def _header(table: SearchTable) -> str:
    return (
        f"<header>\n<p class='kicker'>Architecture search</p>\n<h1>{escape(table.name)}</h1>\n"
        f"<p class='line'>{_protocol_line(table)}</p>\n</header>"
    )


def _protocol_line(table: SearchTable) -> str:
    note = f", {table.note}" if table.note else ""
    speakers = f" of {quantity(table.speakers, 'speaker')}" if table.speakers else ""
    intervals = f" Intervals: {table.rows[0].scores.intervals}." if table.rows else ""
    unknown = f" The speakers are unknown: {table.speakers_unknown}." if table.speakers_unknown else ""
    line = (
        f"{table.title}{note}; {table.protocol}; test set of {table.utterances} utterances{speakers}; {table.verdict}; "
        f"split {table.split_hash}; labels {table.labels}: {', '.join(table.emotions)}. "
        f"Epoch: {RULES[table.selection]}.{intervals}{unknown}"
    )
    return escape(line).replace(table.verdict, f"<strong>{table.verdict}</strong>", 1)


def _verdict_list(table: SearchTable) -> str:
    all_verdicts = verdicts(table)
    alarms = [
        f'<div class="alarm" role="alert"><p>{escape(verdict.text)}</p></div>'
        for verdict in all_verdicts
        if verdict.kind == "warning"
    ]
    items = [
        f'<li class="{verdict.kind}"><span class="tag">{TAGS[verdict.kind]}</span>'
        f"<span>{escape(verdict.text)}</span></li>"
        for verdict in all_verdicts
        if verdict.kind != "warning"
    ]
    return "\n".join([*alarms, '<ul class="verdicts">', *items, "</ul>"])


def _architectures(searches: Sequence[SearchOutcome]) -> str:
    return "\n".join(
        f"<details{' open' if index < NUM_OPEN else ''}><summary>{escape(search.title)}</summary>"
        f"{_genotype(search)}{_recurrent_cell(search)}</details>"
        for index, search in enumerate(searches)
        if search.genotype or search.recipe
    )


def _genotype(search: SearchOutcome) -> str:
    if search.genotype is None:
        return ""
    figures = [
        _figure(draw_graph(genotype_graph(search.genotype[kind]), name).svg, name.capitalize())
        for kind, name in CELL_KINDS.items()
    ]
    state = (
        ""
        if FOUND_CELL in search.stages
        else "<p class='small'>The search is running: this is the genotype of the latest epoch.</p>"
    )
    return state + "".join(figures) + _json("genotype", search.genotype)


def _recurrent_cell(search: SearchOutcome) -> str:
    cell_graph = search.recipe
    if cell_graph is None:
        return ""
    caption = f"Recurrent cell, candidate {search.recipe_name}"
    return _figure(draw_recurrent_cell(cell_graph), caption) + _json("cell graph", cell_graph)


def _figure(svg: str, caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption><div class='scroll'>{svg}</div></figure>"


def _json(name: str, content: Mapping[str, Any]) -> str:
    return f"<details class='small'><summary>{name}, JSON</summary><pre>{escape(to_json(content))}</pre></details>"


def _architecture_weights(outcomes: Sequence[SearchOutcome], folders: Sequence[Search]) -> str:
    blocks = []
    for outcome, folder in zip(outcomes, folders, strict=True):
        log = next((run.log() for run in stage_runs(folder, "cell search").values()), [])
        if log:
            blocks.append(_weights_of_search(outcome, log))
    if not blocks:
        return ""
    note = (
        "Softmax weight of each operation, as the mean over the edges of a kind of cell. All operations begin at 12.5 %; "
        "an operation that stays near this value was hardly preferred to others."
    )
    return f"<p class='small'>{note}</p><p class='legend'>{legend()}</p>" + "\n".join(blocks)


def _weights_of_search(search: SearchOutcome, log: Sequence[Mapping[str, Any]]) -> str:
    mean_figures, edge_figures = [], []
    for kind, name in CELL_KINDS.items():
        weights, genes = softmax_weights(log, kind), log[-1]["genotype"][kind]
        title = f"{name}, {search.title}"
        mean_figures.append(_figure(draw_mean_weights(weights, title), f"{name.capitalize()}, {search.title}"))
        edge_figures.append(_figure(draw_edges(weights, genes, f"edges of the {title}"), name.capitalize()))
    return (
        f"<div class='pair'>{''.join(mean_figures)}</div><details><summary>Every edge, {escape(search.title)}</summary>"
        f"{''.join(edge_figures)}</details>"
    )
