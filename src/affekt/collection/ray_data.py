"""Process shards on a Ray cluster, through Ray Data.

Each shard is an item of a dataset, and a pool of actors processes the items. An actor has its own shard worker, with one
worker process. It writes the file of a shard, and returns only the row counts. If an actor or its machine dies, Ray sends
the item to another actor, which skips the shard if its file was already written. If an audio file makes a worker process
die, the shard worker handles this, and the actor survives.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from affekt import __version__, errors
from affekt.collection.folder import Counts, ResultsFolder
from affekt.collection.part import ShardWorker, find_worker, write_part
from affekt.collection.process import Work
from affekt.collection.shards import Shard
from affekt.errors import AffektError, BadConfig
from affekt.processes import Message
from affekt.ray_cluster import connect, worker_name

logger = logging.getLogger(__name__)

WAVE = 20_000
"""Number of shards that are sent to a cluster at once: 20 million clips, about 200 MB, for shards of 1000 rows."""
MAX_BLOCKS = 2000
"""Number of blocks of a dataset. With more shards, an actor gets several of them at once."""


class ShardActor:
    """Processes shards on a machine of the cluster.

    Args:
        entry: The class or function that creates the shard worker.
        setup: The description of its task.
        location: The folder of the results.
        kinds: Column of the manifest -> kind of its values.
        version: The version of affekt on the machine that started the run.
    """

    def __init__(
        self, entry: str, setup: Message, location: str, kinds: Mapping[str, str], version: str = __version__
    ) -> None:
        self._entry, self._setup, self._kinds, self._version = entry, setup, kinds, version
        self._folder = ResultsFolder(location)
        self._stack = contextlib.ExitStack()
        self._worker: ShardWorker | None = None

    def __call__(self, items: Any) -> Any:
        """Process the shards of a table. Return a table with a row for each: its counts, or an error that ends the run."""
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
        if not again and self._folder.exists(name):  # written by an actor that died afterwards
            return self._folder.counts(name)
        if self._version != __version__:
            raise BadConfig(
                f"this worker has affekt {__version__}, but the run was started with {self._version}: install the same "
                "version"
            )
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
    """Process shards on a cluster; yield the index and the counts of each shard when it is finished, in any order.

    Args:
        address: The address of the cluster, or "auto".
        shards: The shards.
        folder: The folder of the results.
        kinds: Column of the manifest -> kind of its values.
        work: What to do with each clip.
        setup: The description of the task for the shard workers.
        jobs: The largest number of actors; None for as many as the cluster has room for.

    Raises:
        AffektError: A worker cannot process any shard or write its file; the message names the worker.
        BadConfig: There is no cluster at the address.
        MissingExtra: Ray is not installed.
    """
    existing = set(folder.names())
    with connect(address, purpose="--ray") as ray:
        _warn_if_too_small(ray, work)
        actor = (work.entry, setup, folder.location, dict(kinds), __version__)
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
            size = min(len(items), jobs or _room(ray.cluster_resources(), work))
            for result in _map(items, actor, size=size, max_size=jobs or len(items), work=work):
                if result["error"]:
                    raise getattr(errors, result["kind"])(result["error"], code=result["code"])
                yield result["index"], Counts(result["rows"], result["failed"])


def _room(resources: Mapping[str, float], work: Work) -> int:
    """Return how many actors a cluster has room for, at least 1."""
    room = resources.get("CPU", 0.0) / work.threads
    return max(1, math.floor(min(room, resources.get("GPU", 0.0) / work.gpus) if work.gpus else room))


def _warn_if_too_small(ray: ModuleType, work: Work) -> None:
    """Log a warning if the cluster has no room for an actor now: Ray would wait for it without a message."""
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
    items: list[dict[str, Any]], actor: tuple[Any, ...], *, size: int, max_size: int, work: Work
) -> Iterator[dict[str, Any]]:
    """Send items to a pool of actors, and yield what they return.

    Args:
        items: The items.
        actor: The arguments of `ShardActor`.
        size: The number of actors at the beginning.
        max_size: The number of actors to which the pool may grow if machines join the cluster.
        work: What to do with each clip.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about settings of Ray that will change
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
        compute=data.ActorPoolStrategy(min_size=size, max_size=max(size, max_size), max_tasks_in_flight_per_actor=1),
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            table: Any = batch
            yield from table.to_pylist()
    except ray.exceptions.RayError as error:
        if "No module named 'affekt" not in str(error):
            raise
        raise BadConfig(
            "a node of the Ray cluster lacks this version of affekt in the environment in which Ray was started: run "
            "pip install 'affekt[ray]' there"
        ) from error
