"""`affekt report`: compare finished trainings and searches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, folders of searches, or folders that contain them."),
    ],
    output: Annotated[Path | None, typer.Option(metavar="FILE.md", help="Write the page to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of the page.")] = False,
) -> None:
    """Compare finished trainings in Markdown: scores over seeds, by selection rule, and paired comparisons.

    Of an architecture search, its networks are compared; it may still be running.

    Neither audio nor models are needed. Speakers are read from the corpora, where AFFEKT_DATA or the recipe gives their
    place.
    """
    import json as jsonlib

    from affekt.reports.sections import page, sections

    parts = [sections[name](runs) for name in sections]
    for reason in dict.fromkeys(reason for part in parts for reason in part.unknown_speakers):
        print(f"speakers unknown: {reason}", file=sys.stderr)
    if output is not None:
        output.write_text(page(parts), encoding="utf-8")
        print(f"{output}: {', '.join(part.count for part in parts)}", file=sys.stderr)
    if json:
        print(jsonlib.dumps({name: value for part in parts for name, value in part.facts.items()}))
    elif output is None:
        print(page(parts), end="")
