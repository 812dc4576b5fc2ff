"""`affekt evaluate`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.corpus import Columns, Emotions, pairs
from affekt.errors import BadConfig
from affekt.registry import did_you_mean


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN|BUNDLE", help="A training's folder; a bundle's, or a shipped name.")
    ],
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus's name; or folder, table.")],
    root: Annotated[Path | None, typer.Argument(metavar="ROOT", help="Its folder, or file.")] = None,
    selection: Annotated[
        str | None, typer.Option(metavar="RULE", help="Of a training: last, validation or paper; else its recipe's.")
    ] = None,
    column: Columns = None,
    emotion: Emotions = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Score a training or a bundle on a corpus: its test part, or all of a corpus it never heard."""
    import json as jsonlib

    from affekt.corpora.source import Source
    from affekt.extras import need
    from affekt.runs.selection import RULES

    # What is misspelt is said before anything is asked to be installed.
    chosen = Source(corpus, str(root)) if root else Source.parse(corpus)
    chosen = replace(chosen, columns=pairs("--column", column), emotions=pairs("--emotion", emotion))
    if selection is not None and selection not in RULES:
        raise BadConfig(
            f"there is no selection {selection!r}{did_you_mean(selection, RULES)} (known: {', '.join(RULES)})"
        )
    if not any(Path(source).rglob("predictions")):
        _check_bundle(source)
    need("torch", extra="train", purpose="evaluation")
    from affekt.cli.display import print_scores, show_log
    from affekt.workflows.evaluate import evaluate as evaluate_on

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    show_log()
    scores = evaluate_on(source, chosen, selection=selection, say=say)
    if json:
        print(jsonlib.dumps(scores))
    else:
        print_scores(scores)


def _check_bundle(source: str) -> None:
    from affekt.bundle.folder import Bundle, shipped

    if source not in shipped() and not Path(source).is_dir():
        raise BadConfig(
            f"there is no {source}: give a training's folder (runs/NAME), or a bundle's, or {shipped()[0]!r}"
        )
    Bundle.open(source)
