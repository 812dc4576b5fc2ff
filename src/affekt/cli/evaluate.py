"""`affekt evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from affekt.errors import UnknownName
from affekt.registry import did_you_mean


def evaluate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle: a folder, or a shipped name.")],
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="The corpus's name: cremad, emodb.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The corpus's folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Score a bundle on a corpus: on the people its training left untouched, or on all of a corpus it never saw."""
    import json as jsonlib

    from affekt.bundle import Bundle
    from affekt.corpora import corpora
    from affekt.extras import need

    Bundle.open(bundle)  # what is misspelt is said before anything is asked to be installed
    if corpus not in corpora:
        raise UnknownName(f"there is no corpus {corpus!r}{did_you_mean(corpus, corpora)} (known: {', '.join(corpora)})")
    need("torch", extra="train", purpose="evaluation")

    from affekt import experiments
    from affekt.terminal import print_scores

    scores = experiments.evaluate(bundle, corpus, root, say=lambda text: print(text, file=sys.stderr))
    if json:
        print(jsonlib.dumps(scores))
    else:
        print_scores(scores)
