"""`affekt search`: search for an architecture."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.source_options import Annotators, Columns, Delimiter, Emotions, Layout, set_options
from affekt.cli.workers import CpusPerJob, GpusPerJob, Jobs, Parallelism, Ray, Workers, check_run_folder, open_launcher
from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.corpora.source import Source
    from affekt.search.recipe import SearchRecipe


def search(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A search recipe: a TOML file or a shipped one.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change.")] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="ROOT",
            help="The folder of the recipe's corpus; or another corpus as NAME[:PATH], such as folder:PATH or table:FILE.",
        ),
    ] = None,
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", callback=check_run_folder, help="The folder of the search; default: runs/RECIPE."
        ),
    ] = None,
    workers: Workers = None,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus_per_job: CpusPerJob = None,
    gpus_per_job: GpusPerJob = None,
    bundles: Annotated[bool, typer.Option(help="Write a bundle for each network found.")] = True,
) -> None:
    """Search for an architecture with EmotionNAS.

    An architecture consists of convolutional cells, a recurrent cell and their fusion. The results are written to
    page.html in the folder of the search. Running the same command again resumes an interrupted search.
    """
    from affekt.extras import need

    parallelism = Parallelism(workers, jobs, ray, cpus_per_job, gpus_per_job)
    need("torch", extra="train", purpose="searching")
    from affekt.cli.log import show_log
    from affekt.cli.progress_bars import progress_bar
    from affekt.search.recipe import load_search
    from affekt.search.search import PAGE, bundles_of
    from affekt.search.search import search as search_architecture

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # write each line at once, even to a file or pipe
    search_recipe = load_search(recipe, settings)
    if corpus is not None:
        source = _parse_corpus(corpus, search_recipe)
        sources = set_options([source], column, emotion, layout, delimiter, annotators)
        search_recipe = replace(search_recipe, corpora=tuple(sources))
    elif column or emotion or layout or delimiter or annotators != "error":
        raise BadConfig(
            "--column, --emotion, --layout, --delimiter and --annotators need --corpus; to change the corpora of a recipe, "
            "use corpora=[...]"
        )
    folder = run or Path("runs") / search_recipe.name
    with contextlib.ExitStack() as stack:
        show_log()
        progress = stack.enter_context(progress_bar())
        launcher = stack.enter_context(open_launcher(parallelism, progress))
        searches = search_architecture(search_recipe, folder, launcher=launcher, bundles=bundles)
    for bundle in (bundle for search in searches for bundle in bundles_of(search)):
        print(f"bundle: {bundle.folder}; use it with: affekt recognize FILE --model {bundle.folder}")
    print(f"results: {folder / PAGE}")


def _parse_corpus(text: str, recipe: SearchRecipe) -> Source:
    """Return the corpus of the option --corpus: a named corpus, or the recipe's own corpus in the folder `text`."""
    from affekt.corpora import corpora
    from affekt.corpora.source import Source

    if text.partition(":")[0] in corpora:
        return Source.parse(text)
    own = [Source.of(entry) for entry in recipe.corpora]
    if len(own) != 1:
        raise BadConfig(
            f"--corpus {text}: expected NAME[:PATH], since the recipe has {len(own)} corpora; or set the folder of "
            "each: corpora=['NAME:PATH', ...]"
        )
    return replace(own[0], root=text)
