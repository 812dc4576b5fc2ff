"""`affekt recipes`: list the recipes for the rows of the papers' tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from affekt.published import PaperRow


def recipes(
    paper: Annotated[
        str, typer.Option(metavar="P", help="Only this paper: mstr, tdfnet, mcsan, ks_transformer or emotionnas.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON list with one entry per published value.")] = False,
) -> None:
    """List the recipes for the rows of the papers' tables.

    The values that the paper prints are listed beside them. `affekt reproduce` takes the name of a recipe or of a table.
    `affekt train` also takes the name of a recipe, except for EmotionNAS, whose recipes `affekt search` takes.
    """
    from affekt.json_text import to_json
    from affekt.published import paper_rows

    rows = paper_rows(paper)
    if json:
        print(to_json([entry for row in rows for entry in _entries(row)], indent=1))
    else:
        _print_table(rows)


def _entries(row: PaperRow) -> list[dict[str, object]]:
    """Return an entry for each figure of a row; `published` is null for a figure that the paper only plots."""
    shared = {"name": row.name, "paper": row.result.paper, "table": row.result.table, "row": row.result.row}
    corpus = "+".join(row.corpora)
    return [
        {**shared, "metric": metric, "published": value, "corpus": corpus}
        for metric, value in row.result.values.items()
    ]


def _print_table(rows: list[PaperRow]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("recipe", "table", "row", "corpus", "published"):
        table.add_column(title, no_wrap=title == "recipe")
    for row in rows:
        values = ", ".join(_format(metric, value) for metric, value in row.result.values.items())
        title = f"{row.result.paper}, {row.result.table}"
        table.add_row(row.name, title, row.result.row, "+".join(row.corpora), values)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def _format(metric: str, value: float | None) -> str:
    """Format a figure: scores in percent, numbers of parameters and operations in millions."""
    if value is None:
        return f"{metric} plotted"
    return f"{value / 1e6:g} M {metric}" if value > 1 else f"{metric} {round(100 * value, 2):g} %"
