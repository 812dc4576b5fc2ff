"""`affekt evaluate`: score training runs or a bundle on a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.source_options import Annotators, Columns, Delimiter, Emotions, Layout, set_options
from affekt.errors import BadConfig
from affekt.registry import did_you_mean


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN|BUNDLE", help="A run folder, a bundle folder or the name of a shipped bundle.")
    ],
    corpus: Annotated[
        str, typer.Argument(metavar="CORPUS", help="The corpus's name; 'folder' or 'table' for your own data.")
    ],
    root: Annotated[
        Path | None, typer.Argument(metavar="ROOT", help="The corpus's folder, or the table's file.")
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="For runs: the rule that selects the epoch: last, validation, validation-wf1, validation-loss, or paper "
            "(the best on the test set, as in some published code); default: the recipe's.",
        ),
    ] = None,
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Score a run or a bundle on a corpus.

    If the corpus was used in training, only its test set is scored; otherwise the whole corpus.
    """
    from affekt.corpora.source import Source
    from affekt.extras import need
    from affekt.json_text import to_json
    from affekt.runs.selection import RULES

    # Report misspelled names before asking the user to install anything.
    target = Source(corpus, str(root)) if root else Source.parse(corpus)
    (target,) = set_options([target], column, emotion, layout, delimiter, annotators)
    if selection is not None and selection not in RULES:
        raise BadConfig(
            f"there is no selection rule {selection!r}{did_you_mean(selection, RULES)} (known: {', '.join(RULES)})"
        )
    if not any(Path(source).rglob("predictions")):
        _check_bundle(source)
    need("torch", extra="train", purpose="evaluation")
    from affekt.cli.log import show_log
    from affekt.cli.scores import print_scores
    from affekt.workflows.evaluate import evaluate as evaluate_source

    show_log()
    scores = evaluate_source(source, target, selection=selection).to_json()
    if json:
        print(to_json(scores))
    else:
        print_scores(scores)


def _check_bundle(source: str) -> None:
    """Raise `BadConfig` or `BadBundle` if the source is not a bundle."""
    from affekt.bundle.folder import Bundle, shipped

    if source not in shipped() and not Path(source).is_dir():
        raise BadConfig(f"{source} not found: expected a run folder (runs/NAME), a bundle folder, or {shipped()[0]!r}")
    Bundle.open(source)
