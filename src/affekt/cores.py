"""The processor cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from affekt.errors import BadConfig

MAX_THREADS_PER_CORE = 2
"""Maximum number of threads for each core of the machine. More threads would only compete for memory and time."""


def usable_cores() -> int:
    """Return how many cores this process may use. Its CPU affinity or a quota may allow fewer than the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def check_threads(threads: int, setting: str = "threads") -> None:
    """Raise `BadConfig` unless a number of threads is from 1 to twice the number of the machine's cores.

    Args:
        threads: The number of threads, of all processes together.
        setting: Name of the setting with this number, for the error message.
    """
    cores = os.cpu_count() or 1
    if not 1 <= threads <= MAX_THREADS_PER_CORE * cores:
        raise BadConfig(
            f"{setting} {threads}: expected 1 to {MAX_THREADS_PER_CORE * cores}, twice the number of this machine's cores"
        )


def check_jobs(jobs: int | None, threads: int) -> None:
    """Raise `BadConfig` if the number of processes, or their total number of threads, is too small or too large."""
    if jobs is not None:
        check_threads(jobs, "jobs")
        check_threads(jobs * threads, "jobs times threads:")


def _quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPU quota of this process by Linux's control groups (cgroups), in cores; infinity without a limit.

    Args:
        root: Where the control groups are mounted.
        groups: The file that lists the groups of this process, as lines ID:CONTROLLERS:PATH.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = (
            root / "cpu" if controllers else root
        )  # version 1 of control groups names its controllers, version 2 none
        group = base / path.lstrip("/")
        # In a container, the path may be the host's, and the container's own group is mounted at the root.
        for folder in (group, *group.parents):
            if folder.is_relative_to(base):
                quotas.append(_read_quota(folder))
    return min(quotas)


def _read_quota(folder: Path) -> float:
    """Return the quota of one control group in cores; infinity if it has none."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # "max" is no number
        return math.inf
