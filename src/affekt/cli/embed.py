"""`affekt embed`: compute embeddings of recordings."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.recognition_options import Jobs, Lenient, Model, Threads, Timeout


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER",
            help="Audio files; folders are searched recursively for audio files.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A new .parquet, .npy or .csv file. With .npy, the names of the recordings are in NAME.files.csv.",
        ),
    ],
    model: Model = "default",
    lenient: Lenient = False,
    jobs: Jobs = None,
    threads: Threads = 1,
    timeout: Timeout = None,
) -> None:
    """Compute embeddings of recordings.

    An embedding is a vector of the features inside a model, for your own classifiers and searches.

    Recordings that cannot be read or have no speech have a row without an embedding. An interrupted run continues with the
    same command.

    Exit status: 0 if every file could be read, 2 if any failed.
    """
    from affekt.audio.time_limit import TIMEOUT
    from affekt.cli.progress_bars import progress_bar
    from affekt.inference.recognizer import Recognizer
    from affekt.plural import quantity
    from affekt.terminal import escape_controls
    from affekt.workflows.embed_files import embed_files

    recognizer = Recognizer.load(model, threads=threads)
    limit = TIMEOUT if timeout is None else timeout
    counts = {"ok": 0, "silence": 0, "no_speech": 0, "error": 0}
    try:
        with progress_bar() as progress:
            options = {"lenient": lenient, "timeout": limit, "jobs": jobs, "progress": progress}
            for embedding in embed_files(inputs, output, recognizer=recognizer, **options):  # type: ignore[arg-type]
                counts[embedding.status] += 1
                if embedding.error:
                    print(escape_controls(embedding.error["message"]), file=sys.stderr)
    except KeyboardInterrupt:
        print(f"interrupted; run the same command again to continue {output}", file=sys.stderr)
        raise
    without = counts["silence"] + counts["no_speech"]
    size = recognizer.graph.statistics_size
    print(
        f"{output}: {quantity(counts['ok'], 'embedding')} of {size} values by {recognizer.model}, {without} without speech, "
        f"{counts['error']} failed",
        file=sys.stderr,
    )
    sys.exit(2 if counts["error"] else 0)
