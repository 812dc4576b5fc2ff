"""The options of the commands that recognize speech."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("--model", metavar="BUNDLE", help="The model: a bundle's folder, or the name of a shipped one.")
]
Threads = Annotated[
    int, typer.Option("--threads", metavar="N", min=1, help="Number of cores to use for one recording.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        metavar="N",
        min=1,
        help="Number of files to process at once, each in its own process. Default: the number of cores that may be used, or "
        "fewer if more would not save time.",
    ),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option("--profile", metavar="FILE", help="A profile made by affekt adapt, which adapts the model."),
]
VadOption = Annotated[
    str,
    typer.Option(
        "--vad",
        metavar="off|auto|on",
        help="What decides whether there is speech: on also lets voice activity detection judge short recordings and the "
        "windows of long ones, which auto does for timelines only; off refuses nothing but digital silence.",
    ),
]
Lenient = Annotated[
    bool,
    typer.Option("--lenient", help="Read as much as possible of damaged or cut-off files."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="Give up on a file that takes longer, and go on; default: one hour."
    ),
]
