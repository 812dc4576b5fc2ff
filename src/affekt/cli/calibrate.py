"""`affekt calibrate`: calibrate the error rate of sets of emotions with labeled clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.recognition_options import Model
from affekt.cli.source_options import Annotators, Columns, Delimiter, Emotions, Layout, set_options
from affekt.errors import BadConfig


def calibrate(
    corpus: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS [ROOT]",
            help="The corpus's name ('folder' or 'table' for your own data), and its folder or the table's file.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="The calibration to write, such as mine.json.")],
    model: Model = "default",
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The profile with which recordings will be recognized, if any.")
    ] = None,
    column: Columns = None,
    emotion: Emotions = None,
    layout: Layout = "",
    delimiter: Delimiter = "",
    annotators: Annotators = "error",
) -> None:
    """Calibrate a model's confidence with your labeled clips.

    Prints how many clips are answered at each threshold, and how large the sets of emotions are at each error rate. Then use
    affekt recognize --error-rate FRACTION --calibration FILE. Clips that the model was trained on are left out.
    """
    from affekt.cli.log import show_log
    from affekt.cli.progress_bars import progress_bar
    from affekt.corpora.source import Source
    from affekt.inference.recognizer import Recognizer
    from affekt.reports.confidence import coverage_table, group_by_corpus, sets_table
    from affekt.workflows.calibrate import check_output, predict_labeled

    if len(corpus) > 2:
        raise BadConfig(f"{' '.join(corpus)}: expected CORPUS [ROOT]")
    sources = [Source(corpus[0], corpus[1])] if len(corpus) == 2 else [Source.parse(corpus[0])]
    sources = set_options(sources, column, emotion, layout, delimiter, annotators)
    check_output(output)
    show_log()
    recognizer = Recognizer.load(model, profile=profile)
    with progress_bar() as progress:
        predictions = predict_labeled(sources, recognizer, progress=progress)
    predictions.write(output)
    by_corpus = group_by_corpus(predictions, {source.id: source.title for source in sources})
    print(coverage_table(by_corpus))
    print(sets_table(predictions, by_corpus))
    print(f"{output}: a calibration of {predictions.model} with {len(predictions.labels)} clips")
