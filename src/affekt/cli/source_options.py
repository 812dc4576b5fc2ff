"""Options of the commands that read corpora: how to read folders and tables of the user's own data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.corpora.source import Source

Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="For tables: read FIELD from COLUMN, such as audio=clip; with an empty COLUMN (session=), FIELD is not read. "
        "Repeatable.",
    ),
]
Emotions = Annotated[
    list[str] | None,
    typer.Option(
        "--emotion",
        metavar="LABEL=EMOTION",
        help="For folders and tables: map a custom label to an emotion. Repeatable.",
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        "--layout",
        metavar="LEVELS",
        help="For folders: what the folders name, such as emotion/speaker or speaker/emotion/split; default: "
        "recognized from their names.",
    ),
]
Delimiter = Annotated[
    str,
    typer.Option(
        metavar="CHARACTER",
        help="For tables in CSV or TSV: the delimiter, such as ';', tab, comma or pipe; default: it is detected.",
    ),
]
Annotators = Annotated[
    str,
    typer.Option(
        metavar="RULE",
        help="For tables in which several annotators label the same segment, one row each: error (refuse the table), "
        "majority (leave out segments without a majority) or votes (soft labels: the fraction of the rows for each emotion).",
    ),
]
Only = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Read only the clips that a file lists: a text file with a name per line, or a table with a column of names.",
    ),
]


def set_options(
    sources: Sequence[Source],
    columns: list[str] | None = None,
    emotions: list[str] | None = None,
    layout: str = "",
    delimiter: str = "",
    annotators: str = "error",
    only: str = "",
) -> list[Source]:
    """Return the sources with these options set, each option in the sources that have it.

    Raises:
        BadConfig: An option is given that no source has.
    """
    given: dict[str, Any] = {
        "columns": parse_pairs("--column", columns),
        "emotions": parse_pairs("--emotion", emotions),
        "layout": layout,
        "delimiter": delimiter,
        "annotators": "" if annotators == "error" else annotators,
    }
    options = {name: value for name, value in given.items() if value}
    if only:
        sources = [replace(source, only=only) for source in sources]
    unused = options.keys() - {name for source in sources for name in source.corpus.options}
    return [
        replace(
            source,
            **{name: value for name, value in options.items() if name in source.corpus.options or name in unused},
        )
        for source in sources
    ]


def parse_pairs(option: str, values: list[str] | None) -> dict[str, str]:
    """Parse the KEY=VALUE arguments of a repeatable option."""
    parsed = {}
    for value in values or ():
        key, equals, text = value.partition("=")
        if not key or not equals:
            raise BadConfig(f"{option} {value!r}: expected KEY=VALUE")
        parsed[key] = text
    return parsed
