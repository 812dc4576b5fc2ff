"""`affekt search`."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.corpora.source import Source
    from affekt.search.recipe import SearchRecipe


def search(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A search recipe: a TOML file, or a shipped name.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT",
            help="The folder of the recipe's corpus; or NAME[:PATH], another corpus: folder:PATH (happy/1.wav), table:FILE.",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The search's folder; by default runs/RECIPE.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=1, help="Train so many networks side by side.")] = 1,
    bundles: Annotated[bool, typer.Option(help="Make a bundle of each network that is found.")] = True,
) -> None:
    """Search for an architecture (EmotionNAS): cells, a recurrent cell, their fusion; with a page of what was found.

    Run again, it goes on where it was stopped.
    """
    from affekt.extras import need

    need("torch", extra="train", purpose="searching")
    from affekt.cli.display import progress_bar, show_log
    from affekt.search.recipe import load_search
    from affekt.search.search import PAGE, bundles_of
    from affekt.search.search import search as search_architecture
    from affekt.workflows.jobs import JobRunner, LocalLauncher, Workers

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log that is watched grows with the search
    chosen = load_search(recipe, settings)
    if corpus is not None:
        chosen = replace(chosen, corpora=(_source(corpus, chosen),))
    folder = run or Path("runs") / chosen.name
    with contextlib.ExitStack() as stack:
        show_log()
        progress = stack.enter_context(progress_bar())
        workshop = JobRunner(progress=progress)
        launcher = stack.enter_context(Workers(workers)) if workers > 1 else LocalLauncher(workshop)
        found = search_architecture(chosen, folder, launcher=launcher, bundles=bundles)
    for bundle in (one for each in found for one in bundles_of(each)):
        print(f"found: {bundle.folder}; affekt recognize FILE --model {bundle.folder}")
    print(f"what was found, and beside what: {folder / PAGE}")


def _source(text: str, recipe: SearchRecipe) -> Source:
    """The corpus that the option names: a folder that holds the recipe's own, or another."""
    from affekt.corpora import corpora
    from affekt.corpora.source import Source

    if text.partition(":")[0] in corpora:
        return Source.parse(text)
    own = [one if isinstance(one, Source) else Source.parse(one) for one in recipe.corpora]
    if len(own) != 1:
        raise BadConfig(
            f"--corpus {text}: the recipe has {len(own)} corpora; set each one's folder: corpora=['NAME:PATH', ...]"
        )
    return replace(own[0], root=text)
