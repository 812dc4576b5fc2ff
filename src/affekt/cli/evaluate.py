"""`affekt evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from affekt.errors import BadConfig


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN|BUNDLE", help="A training's folder; a bundle's, or a shipped name.")
    ],
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus's name; or folder, table.")],
    root: Annotated[Path | None, typer.Argument(metavar="ROOT", help="Its folder, or file.")] = None,
    selection: Annotated[
        str | None, typer.Option(metavar="RULE", help="Of a training: last, validation or paper; else its recipe's.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Score a training or a bundle on a corpus: its test part, or all of a corpus it never heard."""
    import json as jsonlib

    from affekt.bundle import Bundle
    from affekt.corpora.source import Source
    from affekt.evaluation.selection import RULES
    from affekt.extras import need

    # What is misspelt is said before anything is asked to be installed.
    chosen = Source(corpus, str(root)) if root else Source.parse(corpus)
    if selection is not None and selection not in RULES:
        raise BadConfig(f"there is no selection {selection!r} (known: {', '.join(RULES)})")
    if not any(Path(source).rglob("split.json")):
        Bundle.open(source)
    need("torch", extra="train", purpose="evaluation")
    from affekt import experiments
    from affekt.terminal import print_scores

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    scores = experiments.evaluate(source, chosen, selection=selection, say=say)
    if json:
        print(jsonlib.dumps(scores))
    else:
        print_scores(scores)
