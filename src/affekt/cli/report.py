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
