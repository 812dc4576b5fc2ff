"""`affekt doctor`: check the installation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

INDENT = 28
"""Columns before the text of a finding."""


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per finding, one per line.")] = False,
) -> None:
    """Check the installation, and say what to do.

    The model, audio formats, extras, corpora, encoders and the cache are checked. "missing" is what is optional, such as an
    extra that is not installed; "fault" is what should work but does not.

    Exit status: 0 if there is no fault, 1 if there is.
    """
    import shutil
    import textwrap
    from dataclasses import asdict

    from affekt.inference.row import to_json_line
    from affekt.terminal import escape_controls
    from affekt.workflows.doctor import examine

    has_fault, indent = False, " " * INDENT
    width = max(shutil.get_terminal_size().columns, 2 * INDENT)
    for finding in examine():
        has_fault |= finding.status == "fault"
        if json:
            print(to_json_line(asdict(finding)), end="", flush=True)
            continue
        head = f"{finding.status:<8} {finding.topic:<18} "
        for text in filter(
            None, (head + escape_controls(finding.detail), indent + finding.cure if finding.cure else "")
        ):
            print(textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False), flush=True)
    sys.exit(1 if has_fault else 0)
