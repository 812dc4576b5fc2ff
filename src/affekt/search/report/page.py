"""An architecture search as one self-contained HTML page: its conclusions, the tables of EmotionNAS's paper
(Sun et al., arXiv 2203.13617 v1, Tables 1 to 4) with ours, what the search cost, and drawings of its cells, architecture
weights and rounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from affekt.errors import BadConfig
from affekt.runs.selection import RULES
from affekt.search.folder import Search
from affekt.search.report.draw_alphas import draw_edges, draw_mean_weights, legend, softmax_weights
from affekt.search.report.draw_cells import KINDS, cell_graph, draw_recurrent_cell, picture
from affekt.search.report.html_tables import beside, branches, costs, differences, networks, rounds
from affekt.search.report.networks import FOUND_CELL, runs_of
from affekt.search.report.style import STYLE
from affekt.search.report.tables import Found, SearchTable, alike, search_results
from affekt.search.report.verdicts import verdicts

LABELS = {"better": "better", "worse": "worse", "open": "not shown", "early": "not yet", "note": "note"}
OPEN = 3  # number of searches whose pictures are open at first


def search_page(folder: Path) -> str:
    """Return the page of all searches below a folder, finished or not. Raises `BadConfig` if none has begun."""
    tables, groups = search_results([folder]), alike([folder])
    if not tables:
        raise BadConfig(
            f"{folder} holds no search that has begun: expected search.toml and runs, as affekt search makes them"
        )
    title = ", ".join(dict.fromkeys(table.name for table in tables))
    parts = [_search(table, searches) for table, searches in zip(tables, groups, strict=True)]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Architecture search: {escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _search(table: SearchTable, searches: Sequence[Search]) -> str:
    sections = [
        _head(table),
        _verdicts(table),
        _section("Branches and fusion", branches(table)),
        _section("Spectrogram branch", networks(table, "spectrogram", 3)),
        _section("Recurrent branch", networks(table, "recurrent", 4)),
        _section("Differences", differences(table)),
        _section("Comparison with the paper's other models", beside(table)),
        _section("Cost", costs(table)),
        _section("Found architectures", _found(table.searches)),
        _section("Architecture weights by epoch", _shares(table.searches, searches)),
        _section("Rounds of successive halving", rounds(table.searches)),
    ]
    return "\n".join(filter(None, sections))


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def _head(table: SearchTable) -> str:
    note = f", {table.note}" if table.note else ""
    speakers = f" of {table.people} speakers" if table.people else ""
    intervals = f" Intervals: {table.rows[0].scores.intervals}." if table.rows else ""
    doubt = f" Who speaks is not known here: {table.doubt}." if table.doubt else ""
    line = (
        f"{table.title}{note}; {table.protocol}; test set of {table.utterances} utterances{speakers}; {table.verdict}; "
        f"split {table.split_hash}; labels {table.labels}: {', '.join(table.emotions)}. "
        f"Epoch: {RULES[table.selection]}.{intervals}{doubt}"
    )
    return (
        f"<header>\n<p class='kicker'>Architecture search</p>\n<h1>{escape(table.name)}</h1>\n"
        f"<p class='line'>{escape(line).replace(table.verdict, f'<strong>{table.verdict}</strong>', 1)}</p>\n</header>"
    )


def _verdicts(table: SearchTable) -> str:
    told = verdicts(table)
    alarms = [
        f'<div class="alarm" role="alert"><p>{escape(one.text)}</p></div>' for one in told if one.kind == "warning"
    ]
    rows = [
        f'<li class="{one.kind}"><span class="tag">{LABELS[one.kind]}</span><span>{escape(one.text)}</span></li>'
        for one in told
        if one.kind != "warning"
    ]
    return "\n".join([*alarms, '<ul class="verdicts">', *rows, "</ul>"])


def _found(searches: Sequence[Found]) -> str:
    return "\n".join(
        f"<details{' open' if number < OPEN else ''}><summary>{escape(one.title)}</summary>"
        f"{_cells(one)}{_recipe(one)}</details>"
        for number, one in enumerate(searches)
        if one.genotype or one.recipe
    )


def _cells(one: Found) -> str:
    if one.genotype is None:
        return ""
    pictures = [
        _figure(picture(cell_graph(one.genotype[kind]), name).svg, name.capitalize()) for kind, name in KINDS.items()
    ]
    state = (
        ""
        if FOUND_CELL in one.stages
        else "<p class='small'>The search is running: this is the genotype of the latest epoch.</p>"
    )
    return state + "".join(pictures) + _json("genotype", one.genotype)


def _recipe(one: Found) -> str:
    if one.recipe is None:
        return ""
    caption = f"Recurrent cell, candidate {one.recipe_name}"
    return _figure(draw_recurrent_cell(one.recipe), caption) + _json("recipe", one.recipe)


def _figure(svg: str, caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption><div class='scroll'>{svg}</div></figure>"


def _json(name: str, content: Mapping[str, Any]) -> str:
    return f"<details class='small'><summary>{name}, JSON</summary><pre>{escape(json.dumps(content))}</pre></details>"


def _shares(found: Sequence[Found], searches: Sequence[Search]) -> str:
    blocks = []
    for one, search in zip(found, searches, strict=True):
        log = next((run.log() for run in runs_of(search, "search of the cell").values()), [])
        if log:
            blocks.append(_shares_of(one, log))
    if not blocks:
        return ""
    told = (
        "Softmax weight of each operation, as the mean over the edges of a kind of cell. All operations begin at 12.5 %; "
        "an operation that stays near it was hardly preferred."
    )
    return f"<p class='small'>{told}</p><p class='legend'>{legend()}</p>" + "\n".join(blocks)


def _shares_of(one: Found, log: Sequence[Mapping[str, Any]]) -> str:
    means, edges = [], []
    for kind, name in KINDS.items():
        weights, genes = softmax_weights(log, kind), log[-1]["genotype"][kind]
        means.append(_figure(draw_mean_weights(weights, f"{name}, {one.title}"), f"{name.capitalize()}, {one.title}"))
        edges.append(_figure(draw_edges(weights, genes, f"edges of the {name}, {one.title}"), name.capitalize()))
    return (
        f"<div class='pair'>{''.join(means)}</div><details><summary>Every edge, {escape(one.title)}</summary>"
        f"{''.join(edges)}</details>"
    )
