"""Process shards on a Ray cluster, through Ray Data.

A shard is an item of a dataset, and a pool of actors processes the items. Each actor has a shard worker of its own, with one
process, writes the shards' files itself and returns only their counts. If an actor or its machine dies, Ray sends the item to
another one, which finds the file if it was written in time. A file with which processes die is the shard worker's task.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from affekt import errors
from affekt.collection.folder import Counts, ResultsFolder
from affekt.collection.part import ShardWorker, find_worker, write_part
from affekt.collection.process import Work
from affekt.collection.shards import Shard
from affekt.errors import AffektError, BadConfig
from affekt.processes import Message
from affekt.ray_cluster import connect, worker_name

logger = logging.getLogger(__name__)

WAVE = 20_000
"""Number of shards that are sent to a cluster at once: the rows of 20 million clips are about 200 MB."""
MAX_BLOCKS = 2000
"""Number of blocks of a dataset. With more shards, an actor gets several of them at once."""


class ShardActor:
    """Processes shards on a machine of the cluster.

    Args:
        entry: The class or function that creates the shard worker.
        setup: The description of its task.
        location: The folder of the results.
        kinds: Column of the manifest -> kind of its values.
    """

    def __init__(self, entry: str, setup: Message, location: str, kinds: Mapping[str, str]) -> None:
        self._entry, self._setup, self._kinds = entry, setup, kinds
        self._folder = ResultsFolder(location)
        self._stack = contextlib.ExitStack()
        self._worker: ShardWorker | None = None

    def __call__(self, items: Any) -> Any:
        """Process the shards of a table, and return a table of their counts, or of the error that ends the run."""
        import pyarrow as pa

        results = [self._process(item) for item in items.to_pylist()]
        return pa.Table.from_pylist(results)

    def _process(self, item: Mapping[str, Any]) -> dict[str, Any]:
        shard = Shard(item["index"], item["key"], item["num_rows"], item["content"])
        result = {"index": shard.index, "rows": 0, "failed": 0, "error": "", "kind": "", "code": ""}
        try:
            counts = self._write(shard, again=item["again"])
        except AffektError as error:
            message = f"{error} (on the worker {worker_name()})"
            return result | {"error": message, "kind": type(error).__name__, "code": error.code}
        return result | {"rows": counts.rows, "failed": counts.failed}

    def _write(self, shard: Shard, *, again: bool) -> Counts:
        name = self._folder.part_name(shard)
        if not again and self._folder.exists(name):  # the actor before this one died after writing it
            return self._folder.counts(name)
        if self._worker is None:
            self._worker = self._stack.enter_context(find_worker(self._entry)(self._setup, 1, worker_name()))
        return write_part(self._folder, shard, self._kinds, self._worker)


def run_on_ray(
    address: str,
    shards: Sequence[Shard],
    folder: ResultsFolder,
    kinds: Mapping[str, str],
    work: Work,
    setup: Message,
    jobs: int | None,
) -> Iterator[tuple[int, Counts]]:
    """Process shards on a cluster; yield the index and the counts of each that is finished, in any order.

    Args:
        address: The address of the cluster, or "auto".
        shards: The shards.
        folder: The folder of the results.
        kinds: Column of the manifest -> kind of its values.
        work: The task for each clip.
        setup: The description of their task.
        jobs: The largest number of actors; None for as many as the cluster has room for.

    Raises:
        AffektError: A worker cannot process any shard or write its file; the message names the worker.
        BadConfig: There is no cluster at the address.
        MissingExtra: Ray is not installed.
    """
    existing = set(folder.names())
    with connect(address, purpose="--ray") as ray:
        _warn_if_too_small(ray, work)
        actor = (work.entry, setup, folder.location, dict(kinds))
        for start in range(0, len(shards), WAVE):
            wave = shards[start : start + WAVE]
            items = [
                {
                    "index": shard.index,
                    "key": shard.key,
                    "num_rows": shard.num_rows,
                    "content": shard.content,
                    "again": folder.part_name(shard) in existing,
                }
                for shard in wave
            ]
            size = min(len(items), jobs or max(1, math.floor(ray.cluster_resources().get("CPU", 1.0) / work.threads)))
            for result in _map(items, actor, size=size, most=jobs or len(items), work=work):
                if result["error"]:
                    raise getattr(errors, result["kind"])(result["error"], code=result["code"])
                yield result["index"], Counts(result["rows"], result["failed"])


def _warn_if_too_small(ray: ModuleType, work: Work) -> None:
    """Log if a cluster has no room for an actor now: Ray then waits without a message."""
    total, free = ray.cluster_resources(), ray.available_resources()
    if work.gpus and not total.get("GPU"):
        logger.warning(
            "the Ray cluster has no GPU: waiting until a machine with one joins it; to use none, set the device cpu"
        )
    elif total.get("CPU", 0.0) < work.threads:
        logger.warning(
            "the Ray cluster has %g cores, and %d are needed: waiting for more", total.get("CPU", 0), work.threads
        )
    elif free.get("CPU", 0.0) < work.threads or free.get("GPU", 0.0) < work.gpus:
        logger.warning("the Ray cluster is in use: waiting for free cores%s", " and GPUs" if work.gpus else "")


def _map(
    items: list[dict[str, Any]], actor: tuple[Any, ...], *, size: int, most: int, work: Work
) -> Iterator[dict[str, Any]]:
    """Send items to a pool of actors, and yield what they return.

    Args:
        items: The items.
        actor: The arguments of `ShardActor`.
        size: The number of actors at the beginning.
        most: The number to which the pool may grow, if the cluster does.
        work: The task for each clip.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, about coming changes of its settings
        import ray
        from ray import data
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray._private"):
        logging.getLogger(name).setLevel(logging.ERROR)
    dataset = data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS)).map_batches(
        ShardActor,
        fn_constructor_args=actor,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=work.threads,
        num_gpus=work.gpus or None,
        compute=data.ActorPoolStrategy(min_size=size, max_size=max(size, most), max_tasks_in_flight_per_actor=1),
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            table: Any = batch
            yield from table.to_pylist()
    except ray.exceptions.RayError as error:
        if "No module named 'affekt" not in str(error):
            raise
        raise BadConfig(
            "a node of the Ray cluster has no affekt, or an earlier version, where Ray was started: "
            "pip install 'affekt[ray]' there"
        ) from error
