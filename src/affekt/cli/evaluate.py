"""`affekt evaluate`: score training runs or a bundle on a corpus, or a bundle across corpora."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.cli.source_options import Annotators, Columns, Delimiter, Emotions, Layout, set_options
from affekt.errors import BadConfig
from affekt.registry import did_you_mean

if TYPE_CHECKING:
    from affekt.corpora.source import Source


def evaluate(
    source: Annotated[
        str, typer.Argument(metavar="RUN|BUNDLE", help="A run folder, a bundle folder or the name of a shipped bundle.")
    ],
    corpus: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS [ROOT]",
            help="The corpus's name ('folder' or 'table' for your own data), and its folder or the table's file. With "
            "--across: one or more CORPUS[:ROOT].",
        ),
    ],
    selection: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="For runs: the rule that selects the epoch: last, validation, validation-wf1, validation-loss, or paper "
            "(the best on the test set, as in some published code); default: the recipe's.",
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For bundles: a profile made by affekt adapt, which adapts the model."),
    ] = None,
    across: Annotated[
        bool,
        typer.Option(
            "--across", help="Score a bundle on one or more corpora that it was not trained on; does not need torch."
        ),
    ] = False,
    emotions: Annotated[
        str,
        typer.Option(
            metavar="own|all",
            help="With --across: show UA of the most probable emotion among the corpus's own classes, or among all classes "
            "of the model; default: both.",
        ),
    ] = "",
    adapt: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="With --across: also score the bundle adapted to N unlabeled recordings of each corpus, drawn at random; "
            "if the corpus has at least four speakers and enough recordings, from speakers that are not scored with them.",
        ),
    ] = 0,
    record: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE",
            help="With --across: add the scores to this bundle's across.json and card. It is the scored bundle or, for "
            "leave-one-corpus-out scores, one trained with the same recipe.",
        ),
    ] = "",
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[CORPUS=]FILE", help="Score only the clips that a file lists. With several corpora: CORPUS=FILE."
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

    With --across, a bundle is scored on corpora that it was not trained on, in a table: restricted to the classes of each
    corpus, and over all classes of the model. A corpus that it was trained on is refused.
    """
    from affekt.cli.across import restrict_sources
    from affekt.corpora.source import Source
    from affekt.extras import need
    from affekt.json_text import to_json
    from affekt.runs.selection import RULES

    # Report misspelled names before asking the user to install anything.
    if not across and len(corpus) > 2:
        raise BadConfig(f"{' '.join(corpus)}: expected CORPUS [ROOT]; to score on several corpora, use --across")
    targets = (
        [Source(corpus[0], corpus[1])] if len(corpus) == 2 and not across else [Source.parse(name) for name in corpus]
    )
    targets = set_options(targets, column, emotion, layout, delimiter, annotators)
    targets = restrict_sources(targets, only or [])
    if across and profile:
        raise BadConfig(
            "--profile cannot be used with --across: a profile belongs to one source of recordings; use --adapt N instead"
        )
    if across:
        _score_across(source, targets, selection, emotions, adapt, record, json)
        return
    if emotions or adapt or record:
        raise BadConfig("--emotions, --adapt and --record need --across")
    (target,) = targets
    if selection is not None and selection not in RULES:
        raise BadConfig(
            f"there is no selection rule {selection!r}{did_you_mean(selection, RULES)} (known: {', '.join(RULES)})"
        )
    if not any(Path(source).rglob("predictions")):
        _check_bundle(source)
    need("torch", extra="train", purpose="evaluation")
    from affekt.cli.log import show_log
    from affekt.cli.scores import print_scores
    from affekt.inference.profile import Profile
    from affekt.workflows.evaluate import evaluate as evaluate_source

    show_log()
    adapted_to = Profile.read(profile) if profile else None
    scores = evaluate_source(source, target, selection=selection, profile=adapted_to).to_json()
    if json:
        print(to_json(scores))
    else:
        print_scores(scores)


def _score_across(
    source: str, targets: list[Source], selection: str | None, emotions: str, adapt: int, record: str, json: bool
) -> None:
    from affekt.cli.across import print_across
    from affekt.cli.log import show_log
    from affekt.cli.progress_bars import progress_bar
    from affekt.json_text import to_json
    from affekt.workflows.evaluate_across import evaluate_across, record_across

    if emotions not in ("", "own", "all"):
        raise BadConfig(f"--emotions {emotions!r}: expected own or all")
    if selection is not None:
        raise BadConfig(
            "--selection is for runs; --across scores bundles, whose epoch was selected when they were made"
        )
    _check_bundle(source)
    if record:
        _check_bundle(record)
    show_log()
    with progress_bar() as progress:
        scores = evaluate_across(source, targets, adapt=adapt, progress=progress)
    if record:
        record_across(scores, record)
    if json:
        print(to_json(scores.to_json()))
    else:
        print_across(scores.to_json(), emotions)


def _check_bundle(source: str) -> None:
    """Raise `BadConfig` or `BadBundle` if the source is not a bundle."""
    from affekt.bundle.folder import Bundle, shipped_bundles

    if source not in shipped_bundles() and not Path(source).is_dir():
        raise BadConfig(
            f"{source} not found: expected a run folder (runs/NAME), a bundle folder, or {shipped_bundles()[0]!r}"
        )
    Bundle.open(source)
