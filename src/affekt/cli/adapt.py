"""`affekt adapt`: learn a profile of one source from unlabeled recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affekt.cli.profile_options import Expected, learn, summarize
from affekt.cli.recognition_options import Jobs, Lenient, Model, Threads, Timeout


def adapt(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER",
            help="Recordings of one source, without labels; folders are searched recursively for audio files.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The profile to write, such as mine.affekt. An existing file is replaced only if it is a profile.",
        ),
    ],
    model: Model = "default",
    expected: Expected = None,
    lenient: Lenient = False,
    jobs: Jobs = None,
    threads: Threads = 1,
    timeout: Timeout = None,
) -> None:
    """Adapt a model to unlabeled recordings.

    Learns a profile, which affekt recognize --profile applies. All recordings must be from one source: one microphone and
    room, one call center, one archive. At least 8 are needed; 50 or more are better. Unless --expected states otherwise, all
    emotions are assumed to be about equally frequent in them.
    """
    from affekt.audio.time_limit import TIMEOUT
    from affekt.inference.profile import check_output
    from affekt.inference.recognizer import Recognizer
    from affekt.terminal import escape_controls

    check_output(output)
    recognizer = Recognizer.load(model, threads=threads)
    limit = TIMEOUT if timeout is None else timeout
    name = escape_controls(output.stem)
    profile = learn(inputs, recognizer, name=name, expected=expected, lenient=lenient, timeout=limit, jobs=jobs)
    profile.write(output)
    print(f"{output}: {summarize(profile)}")
