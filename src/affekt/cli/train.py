"""`affekt train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from affekt.errors import BadConfig


def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="A recipe: a TOML file, or a shipped name; and settings to change. With --from, settings alone.",
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="BUNDLE", help="Fine-tune a bundle on the corpora of --corpus.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:PATH]",
            help="With --from: folder:PATH (happy/1.wav), table:FILE, or a corpus; may be repeated.",
        ),
    ] = None,
    run: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The run folder; by default runs/RECIPE.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Make a bundle of the finished training here.")
    ] = None,
) -> None:
    """Train a recipe, or fine-tune a bundle on your own data. Run again, it goes on where it was stopped."""
    from affekt.extras import need

    given = list(words or [])
    name = given.pop(0) if given and "=" not in given[0] else None
    if (start is None) == (name is None):
        raise BadConfig("give a recipe, or --from BUNDLE with --corpus: one of them, and not both")
    if start is not None and (not corpus or output is None):
        raise BadConfig("--from needs --corpus folder:PATH (or table:FILE) and --output, where the new bundle goes")
    if start is None and corpus:
        raise BadConfig("--corpus goes with --from; a recipe names its corpora itself: corpora=[...]")
    need("torch", extra="train", purpose="training")
    from affekt import experiments
    from affekt.training.recipe import load_recipe

    if start is not None and corpus and output is not None:
        chosen = experiments.own_recipe(start, corpus, output.name, given)
    else:
        chosen = load_recipe(str(name), given)
    runs = experiments.train(chosen, run or Path("runs") / chosen.name)
    if output is not None and os.environ.get("RANK", "0") == "0":  # under torchrun, the first process alone
        made = experiments.make_bundle(chosen, runs, output)
        print(f"{made.id} in {output}; its card: {output / 'README.md'}")
