"""The options --workers and --jobs, which several commands that train networks have."""

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

Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Number of processes that compute features on the CPU, which share its cores. Default: this process, "
        "with all cores. The last bits of features depend on the number of threads: keep to one N.",
    ),
]


@contextlib.contextmanager
def open_launcher(workers: int, jobs: int | None, progress: Progress | None) -> Iterator[Launcher]:
    """Yield the launcher of the training jobs: this process for one worker, worker processes for several.

    Args:
        workers: The number of networks that are trained in parallel.
        jobs: The number of processes that compute features; None for this one.
        progress: Called with the progress of feature extraction.
    """
    import torch

    from affekt.workflows.feature_pool import FeaturePool
    from affekt.workflows.job_runner import JobRunner
    from affekt.workflows.jobs import LocalLauncher, WorkerLauncher

    try:
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(FeaturePool(jobs)) if jobs else None
            feature_threads = max(1, torch.get_num_threads() // (jobs or 1))
            runner = JobRunner(feature_threads=feature_threads, progress=progress, pool=pool)
            if workers == 1:
                yield LocalLauncher(runner)
            else:
                yield stack.enter_context(WorkerLauncher(workers, runner))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        raise
