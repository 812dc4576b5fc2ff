"""The option --workers, which several commands that train networks have."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from affekt.progress import Progress
    from affekt.workflows.jobs import Launcher

Workers = Annotated[int, typer.Option(metavar="N", min=1, help="Number of networks to train in parallel.")]


@contextlib.contextmanager
def open_launcher(workers: int, progress: Progress | None) -> Iterator[Launcher]:
    """Yield the launcher of the training jobs: this process for one worker, worker processes for several."""
    from affekt.workflows.job_runner import JobRunner
    from affekt.workflows.jobs import LocalLauncher, WorkerLauncher

    try:
        if workers == 1:
            yield LocalLauncher(JobRunner(progress=progress))
        else:
            with WorkerLauncher(workers, progress=progress) as launcher:
                yield launcher
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        raise
