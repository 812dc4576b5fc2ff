"""The command line: one file per command, which parses the options and calls one public function.

Heavy imports are inside functions, so that `affekt --help` is fast.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn, TextIO

import typer

from affekt import __version__
from affekt.audio.decoder_messages import separate_streams
from affekt.cli import corpus, features
from affekt.cli.adapt import adapt
from affekt.cli.audit import audit
from affekt.cli.calibrate import calibrate
from affekt.cli.compare import compare
from affekt.cli.convert import convert
from affekt.cli.cost import cost
from affekt.cli.doctor import doctor
from affekt.cli.embed import embed
from affekt.cli.evaluate import evaluate
from affekt.cli.listen import listen
from affekt.cli.migrate import migrate
from affekt.cli.plot import plot
from affekt.cli.recipes import recipes
from affekt.cli.recognize import recognize
from affekt.cli.report import report
from affekt.cli.reproduce import reproduce
from affekt.cli.search import search
from affekt.cli.serve import serve
from affekt.cli.train import train
from affekt.cli.web import web
from affekt.errors import AffektError
from affekt.terminal import escape_controls

NEWLINE = "\n"

app = typer.Typer(
    name="affekt",
    help="Speech emotion recognition.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. An `AffektError` is printed as one line, with exit status 2; a traceback indicates a bug."""
    _open_closed_streams()
    _accept_shell_name(sys.argv[1:])
    if "--debug" not in sys.argv:
        separate_streams()
    try:
        try:
            app(
                prog_name="affekt"
            )  # also with `python -m affekt`, so that the shell-completion script has the right name
        finally:
            sys.stdout.flush()
    except AffektError as error:
        _fail(str(error))
    except OSError as error:
        _discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")
    finally:
        _end_abandoned_decoders()


def _fail(message: str) -> NoReturn:
    try:
        print(f"affekt: {escape_controls(message, keep=NEWLINE)}", file=sys.stderr)
    except OSError:
        _discard(sys.stderr)
    sys.exit(2)


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed, as with `2>&-`.

    Otherwise messages for standard error would be printed on standard output, and the next file that is opened would get
    the descriptor to which C libraries write their messages.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free
            if name != "stdin":  # which remains None: reading it is an error
                setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _discard(stream: TextIO) -> None:
    """Redirect a stream that cannot be written to the null device, so that flushing its buffer at exit cannot fail again."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, stream.fileno())
    os.close(null_device)


def _end_abandoned_decoders() -> None:
    """Exit at once if a decoder still runs after its time limit, since the interpreter would wait for it or crash."""
    time_limit = sys.modules.get("affekt.audio.time_limit")
    if time_limit is None or not time_limit.decoders_are_abandoned():
        return
    error = sys.exc_info()[1]
    code = error.code if isinstance(error, SystemExit) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _accept_shell_name(arguments: list[str]) -> None:
    """Let the options for shell completion take the name of a shell, as in `affekt --show-completion bash`.

    By default, typer ignores the name and detects the shell, which fails outside of a shell.
    """
    if len(arguments) == 2 and arguments[0] in ("--show-completion", "--install-completion"):
        os.environ["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"


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


for command in (
    recognize, listen, serve, web, adapt, calibrate, embed, train,
    search, recipes, reproduce, evaluate, compare, report, plot, cost, audit, convert, migrate, doctor,
):  # fmt: skip
    app.command()(command)
app.add_typer(corpus.app, name="corpus", help="List, describe, check, export and transcribe corpora.")
app.add_typer(features.app, name="features", help="Extract, list, verify and delete features.")
