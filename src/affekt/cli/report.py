"""`affekt report`: compare finished training runs and searches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders, search folders, or folders that contain some."),
    ],
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Compare all runs with this reference only; default: with one another."),
    ] = None,
    by_fold: Annotated[bool, typer.Option("--by-fold", help="Add a table with one line per fold.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE.md", help="Write the page to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of the page.")] = False,
) -> None:
    """Compare finished training runs in Markdown.

    The report has scores over seeds, scores by selection rule, and paired comparisons.

    The networks of an architecture search are compared with each other, even while the search is still running.

    Neither audio nor models are needed. Speakers are read from the corpora, if AFFEKT_DATA or the recipe
    says where these are.
    """
    from affekt.json_text import to_json
    from affekt.reports.sections import Options, page, sections

    options = Options(against, by_fold)
    parts = [sections[name](runs, options) for name in sections]
    for reason in dict.fromkeys(reason for part in parts for reason in part.unknown_speakers):
        print(f"speakers unknown: {reason}", file=sys.stderr)
    if output is not None:
        output.write_text(page(parts), encoding="utf-8")
        print(f"{output}: {', '.join(part.count for part in parts)}", file=sys.stderr)
    if json:
        print(to_json({name: value for part in parts for name, value in part.facts.items()}))
    elif output is None:
        print(page(parts), end="")
