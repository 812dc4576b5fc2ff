"""Process a collection shard by shard: on this machine, or on a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypedDict

from affekt.collection.folder import Counts, ResultsFolder
from affekt.collection.manifest import Manifest, open_manifest
from affekt.collection.part import find_worker, write_part
from affekt.collection.shards import SHARD_ROWS, Columns, Shard, divide
from affekt.cores import check_jobs, usable_cores
from affekt.errors import BadConfig, BadOutput
from affekt.extras import need
from affekt.processes import Message
from affekt.progress import Progress

READERS = 16
"""Number of threads that read the row counts from the files of finished shards."""


@dataclass(frozen=True)
class Work:
    """The task to do for each clip, and the workers that do it."""

    name: str
    """The text before a progress bar, such as "recognizing"."""
    entry: str
    """The class or function that creates the shard workers (an `affekt.collection.part.WorkerFactory`), as MODULE:NAME."""
    setup: Message
    """The description of the task for the workers, which can be encoded as JSON. `process` adds the key "base", the folder
    of the manifest."""
    settings: Mapping[str, Any]
    """Everything that the results depend on, apart from the manifest."""
    threads: int = 1
    """The number of cores of each process."""
    gpus: float = 0.0
    """The number of GPUs of each process on a cluster."""


@dataclass(frozen=True)
class Summary:
    """The outcome of a run."""

    rows: int
    """Rows of the manifest."""
    failed: int
    """Rows with an error, including those from earlier runs."""
    resumed: int
    """Rows of shards that an earlier run had finished."""
    seconds: float


class ProcessOptions(TypedDict, total=False):
    """The options of `process`, which explains them, that do not depend on the work."""

    shard_rows: int
    columns: Mapping[str, str] | None
    delimiter: str
    retry_failed: bool
    jobs: int | None
    ray: str | None
    progress: Progress | None


def process(
    manifest: str,
    output: str,
    work: Work,
    *,
    shard_rows: int = SHARD_ROWS,
    columns: Mapping[str, str] | None = None,
    delimiter: str = "",
    retry_failed: bool = False,
    jobs: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Process the clips of a manifest, and write a Parquet file for each shard of it.

    Args:
        manifest: A table of audio files, or a folder, or the URL of either (`affekt.collection.manifest.open_manifest`).
        output: The folder of the results, or its URL. Shards whose files it already contains are skipped.
        work: What to do with each clip.
        shard_rows: The number of rows of a shard.
        columns: Field -> column of the manifest.
        delimiter: The delimiter of a manifest in CSV; by default it is detected.
        retry_failed: Whether to process shards with failed rows again.
        jobs: The number of processes on this machine, or the maximum number on a cluster; by default as many as the cores
            suffice for.
        ray: The address of a Ray cluster, or "auto" (`affekt.ray_cluster.connect`); None for this machine.
        progress: Called after each clip on this machine, and after each shard on a cluster.

    Raises:
        BadConfig: An argument is out of range, or there is no cluster.
        BadCorpus: The manifest cannot be read.
        BadOutput: The folder cannot be written, or contains results of other rows or settings.
        MissingExtra: A package is not installed.
    """
    need("pyarrow", extra="parquet", purpose="writing Parquet")
    if shard_rows < 1:
        raise BadConfig(f"shard_rows = {shard_rows}: expected at least 1")
    if ray is None:
        check_jobs(jobs, work.threads)
    start = time.monotonic()
    folder = ResultsFolder(output)
    settings = {**work.settings, "shard_rows": shard_rows}
    with open_manifest(manifest, columns, delimiter) as opened, folder.open(settings):
        plan = _Plan.make(opened, folder, settings, shard_rows, retry_failed)
        setup = {**work.setup, "base": opened.base}
        folder.record(plan.kinds)
        counts = plan.finished
        for index in plan.replaced.keys() - {
            shard.index for shard in plan.shards
        }:  # the last run ended before it deleted these
            plan.delete_replaced(folder, index)
        for index, done in _run(plan, folder, work, setup, jobs, ray, progress):
            counts += done
            plan.delete_replaced(folder, index)
        _require_parts(folder, plan)
        folder.delete_unfinished()
        folder.record(plan.kinds, counts)
    return Summary(counts.rows, counts.failed, plan.finished.rows, time.monotonic() - start)


@dataclass(frozen=True)
class _Plan:
    """The shards of a manifest, and which of them are finished."""

    kinds: dict[str, str]
    """Column to carry over -> kind of its values."""
    shards: list[Shard]
    """The shards to process."""
    finished: Counts
    """The row counts of the shards that are finished already."""
    names: set[str]
    """The names of the files of all shards."""
    replaced: dict[int, list[str]]
    """Index of a shard -> the files that it replaces, written when the manifest had fewer rows of this shard. They are
    deleted when the shard is finished."""

    @classmethod
    def make(
        cls, manifest: Manifest, folder: ResultsFolder, settings: Mapping[str, Any], shard_rows: int, retry: bool
    ) -> _Plan:
        parts, columns = folder.parts(), Columns(manifest.kinds)
        plan = cls({}, [], Counts(), set(), {})
        finished: list[Shard] = []
        for shard, clips in divide(manifest.clips, shard_rows, settings):
            columns.add(clips)
            plan.names.add(folder.part_name(shard))
            existing = parts.pop(shard.index, {})
            if shard.key in existing:
                finished.append(shard)
                existing.pop(shard.key)
            else:
                plan.shards.append(shard)
            for key, name in existing.items():
                _check_replaceable(folder, shard, key, name, settings)
                plan.replaced.setdefault(shard.index, []).append(name)
        if parts:
            name = next(iter(parts[min(parts)].values()))
            raise BadOutput(
                f"{folder.path(name)} contains results of rows that {manifest.name} no longer has: choose another folder, "
                "or delete such files"
            )
        if not plan.names:
            raise BadConfig(f"{manifest.name} has no rows: expected a row for each audio file")
        plan.kinds.update(columns.kinds())
        with ThreadPoolExecutor(READERS) as threads:
            counts = list(threads.map(lambda shard: folder.counts(folder.part_name(shard)), finished))
        to_retry = [shard for shard, count in zip(finished, counts, strict=True) if retry and count.failed]
        finished_counts = sum((count for count in counts if not (retry and count.failed)), Counts())
        shards = sorted([*plan.shards, *to_retry], key=lambda shard: shard.index)
        return cls(plan.kinds, shards, finished_counts, plan.names, plan.replaced)

    def delete_replaced(self, folder: ResultsFolder, index: int) -> None:
        """Delete the files that a finished shard replaces."""
        for name in self.replaced.get(index, ()):
            folder.delete(name)


def _check_replaceable(folder: ResultsFolder, shard: Shard, key: str, name: str, settings: Mapping[str, Any]) -> None:
    """Raise `BadOutput` unless a file contains the results of the shard's first rows, before further rows were appended."""
    rows = folder.counts(name).rows
    if rows >= shard.num_rows or shard.first_rows(rows, settings).key != key:
        raise BadOutput(
            f"{folder.path(name)} contains results of rows that have since been changed in the manifest: choose another "
            "folder, or delete this one. Rows may be appended to a manifest, but not changed, moved or removed"
        )


def _run(
    plan: _Plan,
    folder: ResultsFolder,
    work: Work,
    setup: Message,
    jobs: int | None,
    ray: str | None,
    progress: Progress | None,
) -> Iterator[tuple[int, Counts]]:
    """Process the shards of a plan, and yield the index and the counts of each shard when it is finished."""
    done, total = plan.finished.rows, plan.finished.rows + sum(shard.num_rows for shard in plan.shards)

    def add(number: int = 1) -> None:
        nonlocal done
        done += number
        if progress:
            progress(work.name, done, total)

    add(0)
    if not plan.shards:
        return
    if ray is not None:
        from affekt.collection.ray_data import run_on_ray

        for index, counts in run_on_ray(ray, plan.shards, folder, plan.kinds, work, setup, jobs):
            add(counts.rows)
            yield index, counts
        return
    jobs = min(jobs or max(1, usable_cores() // work.threads), sum(shard.num_rows for shard in plan.shards))
    with find_worker(work.entry)(setup, jobs, "") as worker:
        for shard in plan.shards:
            yield shard.index, write_part(folder, shard, plan.kinds, worker, add)


def _require_parts(folder: ResultsFolder, plan: _Plan) -> None:
    """Raise `BadOutput` if files that workers have written are not visible on this machine."""
    if missing := sorted(plan.names - set(folder.names())):
        raise BadOutput(
            f"{len(missing)} files, such as {missing[0]}, were written but are not in {folder.location}: on a cluster, the "
            "folder must be on a disk that all machines share, or in an object store (a URL such as s3://bucket/results)"
        )
