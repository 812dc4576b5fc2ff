"""`affekt recognize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from affekt.errors import BadAudio


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

    from affekt.audio.read import name_of
    from affekt.cli.display import Display
    from affekt.inference.recognizer import Recognizer, expand
    from affekt.inference.results_file import ResultsFile

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
