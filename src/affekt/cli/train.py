"""`affekt train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: a TOML file, or a shipped name.")],
    settings: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Settings to change.")] = None,
    run: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The run folder; by default runs/RECIPE.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Make a bundle of the finished run here.")
    ] = None,
) -> None:
    """Train a recipe into a run folder. Run again, it goes on where it was stopped."""
    from affekt.extras import need

    need("torch", extra="train", purpose="training")
    from affekt import experiments
    from affekt.training.recipe import load_recipe

    chosen = load_recipe(recipe, settings)
    runs = experiments.train(chosen, run or Path("runs") / chosen.name)
    if bundle is not None and os.environ.get("RANK", "0") == "0":  # under torchrun, the first process alone
        made = experiments.make_bundle(chosen, runs, bundle)
        print(f"{made.id} in {bundle}")
