"""`affekt report`: compare finished training runs and searches."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.reports.sections import PageOptions, Section

PAGE = "report.html"
FORMATS = ("html", "markdown")
FIGURE_FORMATS = ("png", "pdf", "svg")


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders, search folders, or folders that contain some."),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Compare all runs with this reference only, not every pair of runs. Repeatable, for references on several "
            "splits.",
        ),
    ] = None,
    by_fold: Annotated[bool, typer.Option("--by-fold", help="Add a table with one line per fold.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help=f"Write the page to this file; default: {PAGE}; Markdown is printed by default."
        ),
    ] = None,
    page_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="html|markdown",
            help="The format of the page; default: markdown for FILE.md, else html.",
        ),
    ] = "",
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write every figure to a file in this folder.")
    ] = None,
    figure_format: Annotated[
        str, typer.Option(metavar="|".join(FIGURE_FORMATS), help="The format of the files in --figures.")
    ] = "png",
    models: Annotated[
        bool,
        typer.Option(
            help="Run the trained models on their test sets, for figures of embeddings, attention and scales."
        ),
    ] = True,
    embed_text: Annotated[
        bool, typer.Option("--embed-text", help="Show transcripts of the corpus in the HTML page.")
    ] = False,
    embed_audio: Annotated[
        bool, typer.Option("--embed-audio", help="Embed recordings of the corpus in the HTML page.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of the page.")] = False,
) -> None:
    """Compare finished training runs and searches in an HTML page.

    The page has scores over seeds, scores by selection rule, paired comparisons and figures. It is one file, which loads
    nothing from elsewhere, and it contains no audio and no text of a corpus unless you ask for it.

    With --format markdown, the tables are printed in Markdown.

    The networks of an architecture search are compared with each other, even while the search is still running.

    Tables and most figures need neither audio nor models. Speakers are read from the corpora, if AFFEKT_DATA or the
    recipe says where these are.
    """
    from affekt.json_text import to_json
    from affekt.reports.sections import Options, PageOptions, page, read_sections

    chosen = _choose_format(page_format, output)
    if figure_format not in FIGURE_FORMATS:
        raise BadConfig(f"--figure-format {figure_format!r}: expected {', '.join(FIGURE_FORMATS)}")
    parts = read_sections(runs, Options(tuple(against or ()), by_fold))
    for reason in dict.fromkeys(reason for part in parts for reason in part.unknown_speakers):
        print(f"speakers unknown: {reason}", file=sys.stderr)
    if json:
        print(to_json({name: value for part in parts for name, value in part.facts.items()}))
    if chosen == "markdown" and output is not None:
        _write(output, page(parts), parts)
    elif chosen == "markdown" and not json:
        print(page(parts), end="")
    elif chosen == "html" and (output is not None or not json):
        options = PageOptions(models=models, embed_text=embed_text, embed_audio=embed_audio)
        _write_html(runs, output or Path(PAGE), parts, figures, figure_format, options)


def _choose_format(page_format: str, output: Path | None) -> str:
    if page_format and page_format not in FORMATS:
        raise BadConfig(f"--format {page_format!r}: expected {' or '.join(FORMATS)}")
    return page_format or ("markdown" if output and output.suffix == ".md" else "html")


def _write_html(
    runs: list[Path],
    output: Path,
    parts: list[Section],
    figures: Path | None,
    figure_format: str,
    options: PageOptions,
) -> None:
    from affekt.cli.log import show_log
    from affekt.reports.page.page import build_sections, html_page, write_figures

    show_log()
    sections = build_sections(parts, options)
    if figures is not None:
        paths = write_figures(sections, figures, figure_format)
        print(f"{figures}: {len(paths)} figures", file=sys.stderr)
    _write(output, html_page(runs, sections, [rule for part in parts for rule in part.rules]), parts)


def _write(output: Path, text: str, parts: list[Section]) -> None:
    output.write_text(text, encoding="utf-8")
    print(f"{output}: {', '.join(part.count for part in parts)}", file=sys.stderr)
