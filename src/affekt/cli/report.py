"""`affekt report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of finished trainings, of searches, or folders above such."),
    ],
    output: Annotated[Path | None, typer.Option(metavar="FILE.md", help="Write the page here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of the page.")] = False,
) -> None:
    """Put finished trainings side by side: scores over seeds, the three selections, paired comparisons, as Markdown.

    Of an architecture search, its networks side by side; it may still go on.

    Neither audio nor models are needed. The corpora, where AFFEKT_DATA or the recipe's own path leads to them, tell who
    speaks and whether the audio is the original.
    """
    import dataclasses
    import json as jsonlib

    from affekt.reports.markdown import page
    from affekt.reports.results import results
    from affekt.search.report.tables import search_results

    found, searches = results(runs), search_results(runs)
    doubts = [row.doubt for row in found.rows] + [one.doubt for one in searches]
    for doubt in dict.fromkeys(filter(None, doubts)):
        print(f"who speaks is not known: {doubt}", file=sys.stderr)
    if output is not None:
        output.write_text(page(found, searches), encoding="utf-8")
        print(f"{output}: {len(found.rows)} trainings, {len(searches)} searches", file=sys.stderr)
    if json:
        print(jsonlib.dumps({**dataclasses.asdict(found), "searches": [dataclasses.asdict(one) for one in searches]}))
    elif output is None:
        print(page(found, searches), end="")
