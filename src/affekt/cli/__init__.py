"""The command line: one file per command, which parses the options and calls one public function.

Heavy imports are inside functions, so that `affekt --help` is fast.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from affekt import __version__
from affekt.cli import corpus, features
from affekt.cli.audit import audit
from affekt.cli.convert import convert
from affekt.cli.cost import cost
from affekt.cli.evaluate import evaluate
from affekt.cli.migrate import migrate
from affekt.cli.recognize import recognize
from affekt.cli.report import report
from affekt.cli.search import search
from affekt.cli.train import train
from affekt.errors import AffektError

app = typer.Typer(
    name="affekt",
    help="Speech emotion recognition.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. An `AffektError` is printed as one line and gives exit status 2; a traceback indicates a bug."""
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


def _print_version(requested: bool) -> None:
    if requested:
        print(f"affekt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


for command in (recognize, train, search, evaluate, report, cost, audit, convert, migrate):
    app.command()(command)
app.add_typer(corpus.app, name="corpus", help="Describe, check, export and transcribe corpora.")
app.add_typer(features.app, name="features", help="List, verify and delete stored features.")
