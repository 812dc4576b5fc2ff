"""`affekt train`."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.corpus import Columns, Emotions, pairs
from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.bundle.folder import Bundle
    from affekt.corpora.source import Source

OWN = "affekt train --from default --corpus folder:PATH --output BUNDLE"


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
    column: Columns = None,
    emotion: Emotions = None,
    run: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The run folder; by default runs/RECIPE.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Make a bundle of the finished training here.")
    ] = None,
) -> None:
    """Train a recipe, or fine-tune a bundle on your own data. Run again, it goes on where it was stopped."""
    from affekt.extras import need

    given = list(words or [])
    name = given.pop(0) if given and "=" not in given[0] else None
    if start is None and name is None:
        raise BadConfig(f"give a recipe (affekt train default), or your own data: {OWN}")
    if start is not None and name is not None:
        raise BadConfig(f"{name!r} is no KEY=VALUE: give a recipe, or --from {start} with --corpus, and not both")
    if start is not None and not corpus:
        raise BadConfig(f"--from needs --corpus, your data: {OWN}")
    if start is None and (corpus or column or emotion):
        raise BadConfig(
            "--corpus, --column and --emotion go with --from; a recipe names its corpora itself: corpora=[...]"
        )
    need("torch", extra="train", purpose="training")
    from affekt.cli.display import progress_bar, show_log
    from affekt.training.recipe import load_recipe
    from affekt.workflows.finetune import finetuning_recipe
    from affekt.workflows.make_bundle import check_place, make_bundle
    from affekt.workflows.train import train as train_recipe

    if output is not None:
        check_place(output)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log that is watched grows with the training
    if start is not None:
        sources = [_source(one, column, emotion) for one in corpus or ()]
        named = output.resolve().name if output else sources[0].id
        chosen = finetuning_recipe(start, sources, named, given)
    else:
        chosen = load_recipe(str(name), given)
    folder = run or Path("runs") / chosen.name
    first = os.environ.get("RANK", "0") == "0"  # under torchrun, only the first process prints
    if first:
        show_log()
    with progress_bar() as progress:
        runs = train_recipe(chosen, folder, one_model=output is not None, progress=progress)
    if not first:
        return
    if output is None:
        print(f"trained: {folder}; affekt evaluate {folder} CORPUS ROOT scores it")
    else:
        _print_made(make_bundle(chosen, runs, output), output)


def _print_made(made: Bundle, output: Path) -> None:
    for name, entry in made.results["scores"].items():
        scores = entry["model"]
        ua, wa = (f"{metric} {100 * scores[metric]['value']:.1f} %" for metric in ("UA", "WA"))
        verdict = made.config["protocol"]["verdict"]
        print(f"{name}: {ua}, {wa} on {scores['utterances']} utterances held out, {verdict}")
    print(f"{made.id} in {output}; its card: {output / 'README.md'}")


def _source(text: str, columns: list[str] | None, emotions: list[str] | None) -> Source:
    from affekt.corpora.source import Source

    source = Source.parse(text)
    return replace(source, columns=pairs("--column", columns), emotions=pairs("--emotion", emotions))
