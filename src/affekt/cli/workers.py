"""The options of several commands that train networks: --workers, --jobs, --ray and what a job reserves on a cluster."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from affekt.errors import BadConfig

if TYPE_CHECKING:
    from affekt.progress import Progress
    from affekt.workflows.job_runner import JobRunner
    from affekt.workflows.jobs import Launcher

Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Number of networks to train in parallel; default: 1, with --ray as many as the cluster has room for.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Number of processes that compute features on the CPU, which share its cores. Default: this process, "
        "with all cores. The last bits of features depend on the number of threads, so always use the same N.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="auto|ADDRESS",
        help="Train on a Ray cluster: HOST:PORT of its head node, or auto for the cluster of this machine.",
    ),
]
CpusPerJob = Annotated[
    float | None,
    typer.Option(
        metavar="N", min=0.01, help="With --ray: CPUs for each network; default: training.threads, at least 1."
    ),
]
GpusPerJob = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        min=0.0,
        help="With --ray: GPUs for each network, such as 0.5 or 4; default: 1 if the device is cuda.",
    ),
]


def check_run_folder(folder: Path | None) -> Path | None:
    """Return the value of --run. Raises `BadConfig` for a URL, whose files cannot be locked and replaced atomically."""
    if folder is not None and re.match(r"[A-Za-z][\w+.-]+:/", str(folder)):
        raise BadConfig(f"--run {folder}: expected a local folder or one on a shared disk, not a URL")
    return folder


@dataclass(frozen=True)
class Parallelism:
    """The values of these options."""

    workers: int | None = None
    jobs: int | None = None
    ray: str | None = None
    cpus_per_job: float | None = None
    gpus_per_job: float | None = None

    def __post_init__(self) -> None:
        if self.ray is None and (self.cpus_per_job is not None or self.gpus_per_job is not None):
            raise BadConfig(
                "--cpus-per-job and --gpus-per-job need --ray, the cluster whose CPUs and GPUs they reserve"
            )


@contextlib.contextmanager
def open_launcher(options: Parallelism, progress: Progress | None) -> Iterator[Launcher]:
    """Yield the launcher of the training jobs: this process for one worker, worker processes for several, or a cluster.

    Args:
        options: The options.
        progress: Called with the progress of feature extraction.
    """
    import torch

    from affekt.workflows.feature_pool import FeaturePool
    from affekt.workflows.job_runner import JobRunner

    try:
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(FeaturePool(options.jobs)) if options.jobs else None
            feature_threads = max(1, torch.get_num_threads() // (options.jobs or 1))
            runner = JobRunner(feature_threads=feature_threads, progress=progress, pool=pool)
            yield stack.enter_context(_launcher(options, runner))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        raise


def _launcher(options: Parallelism, runner: JobRunner) -> contextlib.AbstractContextManager[Launcher]:
    from affekt.workflows.jobs import LocalLauncher, WorkerLauncher
    from affekt.workflows.ray_launcher import RayLauncher

    if options.ray is not None:
        return RayLauncher(
            options.ray,
            runner,
            cpus_per_job=options.cpus_per_job,
            gpus_per_job=options.gpus_per_job,
            max_jobs=options.workers,
        )
    if options.workers is None or options.workers == 1:
        return contextlib.nullcontext(LocalLauncher(runner))
    return WorkerLauncher(options.workers, runner)
