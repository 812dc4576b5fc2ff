"""`affekt plot`: draw one figure of finished runs, or of a recording as a model sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affekt.reports.figures import KINDS


def plot(
    kind: Annotated[str, typer.Argument(metavar="FIGURE", help=f"One of: {', '.join(KINDS)}.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Run folders, or folders that contain some. For attention and scales: a run and the id of an utterance of "
            "its corpora, or a bundle and an audio file. For timeline: a .json file, and the recording if it is to be shown.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="A file ending in .svg, .png or .pdf, or a folder for SVG files; default: FIGURE.svg. For timeline also "
            ".html, a page that plays the recording.",
        ),
    ] = None,
    text: Annotated[
        str, typer.Option(metavar="TEXT", help="The transcript of the recording, for a bundle that takes text.")
    ] = "",
    attention: Annotated[
        str, typer.Option(metavar="NAME", help="For attention: one of the model's attention layers; default: all.")
    ] = "",
    layer: Annotated[int, typer.Option(metavar="N", help="For attention: the layer, from 0; -1 is the last.")] = -1,
    head: Annotated[
        int | None, typer.Option(metavar="N", help="For attention: the head, from 0; default: the mean over heads.")
    ] = None,
) -> None:
    """Draw one figure of finished runs, or of a recording.

    The HTML page of affekt report has the figures of runs.
    """
    from affekt.extras import need

    if kind == "timeline" and output and output.suffix == ".html":
        from affekt.workflows.plot import write_timeline_page

        write_timeline_page(sources, output)
        print(output)
        return

    need("matplotlib", extra="train", purpose="drawing figures")
    from affekt.workflows.plot import PlotOptions, draw_figures, save_figures

    figures = draw_figures(kind, sources, PlotOptions(text, attention, layer, head))
    for path in save_figures(figures, output or Path(f"{kind}.svg")):
        print(path)
