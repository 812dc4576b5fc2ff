"""`affekt compare`: compare finished experiments on the same split, with paired tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig
from affekt.registry import did_you_mean

if TYPE_CHECKING:
    from affekt.reports.compare import CompareResult, Grid


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders, or folders that contain some. Seeds and folds are grouped."),
    ],
    metric: Annotated[str, typer.Option(metavar="UA|WA|WF1", help="The metric that is compared.")] = "UA",
    against: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Compare all others with this reference only, not every pair of runs. Repeatable.",
        ),
    ] = None,
    output_format: Annotated[
        str, typer.Option("--format", metavar="terminal|markdown|latex|csv|json", help="The form of the tables.")
    ] = "terminal",
    cost: Annotated[
        bool,
        typer.Option(
            "--cost",
            help="Add parameters, FLOPs and latency, separately for model and encoder, for an utterance of 3 s on this "
            "machine; needs torch and the encoders.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Show runs on different splits together, with a warning.")
    ] = False,
) -> None:
    """Compare the scores of finished runs statistically.

    Shows the scores over seeds and folds with intervals, the scores under every selection rule, the calibration, paired tests
    with Holm's correction, and a sentence for each comparison that says whether a difference is shown.

    Runs on different splits are refused. Neither audio nor models are needed; speakers are read from the corpora, if these
    are available.
    """
    from affekt.json_text import to_json
    from affekt.reports.compare import compare_runs
    from affekt.reports.formats import FORMATS

    known = ("terminal", *FORMATS, "json")
    if output_format not in known:
        raise BadConfig(f"--format {output_format}: expected {', '.join(known)}{did_you_mean(output_format, known)}")
    result = compare_runs(runs, metric=metric, against=against or (), force=force)
    if cost:
        from affekt.cli.log import show_log
        from affekt.workflows.run_cost import with_costs

        show_log()
        result = with_costs(result, [*(against or ()), *runs])
    for reason in dict.fromkeys(row.speakers_unknown for row in result.results.rows if row.speakers_unknown):
        print(f"speakers unknown: {reason}", file=sys.stderr)
    for warning in result.warnings:
        print(f"warning: {warning}; their scores cannot be compared", file=sys.stderr)
    if output_format == "json":
        print(to_json(result.to_json()))
    elif output_format == "terminal":
        _print(result)
    else:
        print(FORMATS[output_format](result), end="")


def _print(result: CompareResult) -> None:
    from rich.console import Console
    from rich.text import Text

    from affekt.reports.compare import grids

    console = Console(highlight=False, soft_wrap=True)
    for line in result.protocol_lines:
        console.print(Text(line))
    for grid in grids(result):
        console.print()
        _print_grid(console.width, grid)
    for line in result.conclusions:
        console.print()
        console.print(Text(line))


def _print_grid(width: int, grid: Grid) -> None:
    """Print a table. Columns in which all cells are empty are left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(grid.title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    shown = [column for column in range(len(grid.header)) if any(row[column] for row in grid.rows)]
    for column in shown:
        numeric = all(row[column][:1] in "+-0123456789" for row in grid.rows)
        table.add_column(Text(grid.header[column]), justify="right" if numeric else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(row[column]) for column in shown))
    # As wide as needed if the output is not a terminal, so that a file or a pipe gets whole words.
    console = Console(highlight=False, width=width if sys.stdout.isatty() else 1000)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())
