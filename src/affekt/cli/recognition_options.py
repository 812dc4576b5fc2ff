"""The options of the commands that recognize recordings: affekt recognize and affekt adapt."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("--model", metavar="BUNDLE", help="The model: a bundle's folder, or the name of a shipped one.")
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", min=1, help="Number of cores to use for one file.")]
