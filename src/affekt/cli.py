"""The command line: a command is a verb, and calls one public function. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from affekt import __version__
from affekt.errors import AffektError, BadAudio, UnknownName
from affekt.registry import did_you_mean

app = typer.Typer(
    name="affekt",
    help="Speech emotion recognition: from a voice to the emotion in it.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The entry point: our errors are one line and exit status 2; a traceback is a bug."""
    try:
        app()
    except AffektError as error:
        print(f"affekt: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        print(f"affekt: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)


def _version(asked: bool) -> None:
    if asked:
        print(f"affekt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def recognize(
    inputs: Annotated[list[str], typer.Argument(metavar="FILE|FOLDER", help="Audio files; folders are searched.")],
    model: Annotated[
        str, typer.Option(metavar="BUNDLE", help="A trained bundle: a folder, or a shipped name.")
    ] = "default",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object per file, one a line.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write rows to a .jsonl, .csv or .parquet file. Run again, it goes on: a file that it holds, by name, is "
            "not heard again, one that failed is.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Cores that one file may use.")] = 1,
) -> None:
    """Recognise the emotion in each file's voice.

    Exit status: 0 if every file was recognised, 2 if any could not be; the others are done all the same.
    """
    from contextlib import ExitStack

    from affekt.audio import name_of
    from affekt.inference.output import ResultsFile
    from affekt.inference.recognizer import Recognizer, expand
    from affekt.terminal import Display

    if "" in inputs:
        raise BadAudio("an empty name stands among the files: is a variable of the shell not set?", code="missing")
    files = {name_of(path): path for path in expand(inputs)}
    recognizer = Recognizer.load(model, threads=threads)
    with ExitStack() as stack:
        results = stack.enter_context(ResultsFile(output, recognizer.model)) if output else None
        display = stack.enter_context(Display(list(files), recognizer.emotions, json=json, output=output))
        for name, path in files.items():
            earlier = results.kept(name) if results else None
            row = earlier or next(recognizer.rows([path]))
            if results and not earlier:
                results.append(row)
            display.show(row, earlier=earlier is not None)
    sys.exit(2 if display.failed else 0)


@app.command()
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


@app.command()
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


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A file that torch.save wrote: .pt, .ckpt, .bin.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .safetensors file to write.")],
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object: name -> shape.")] = False,
) -> None:
    """Take the tensors out of somebody else's checkpoint, without running what it may carry."""
    from affekt.extras import need

    need("torch", extra="train", purpose="reading a checkpoint")
    import json as jsonlib

    from affekt.checkpoint import convert_checkpoint

    shapes = convert_checkpoint(source, target)
    print(jsonlib.dumps(shapes) if json else f"{target}: {len(shapes)} tensors")
