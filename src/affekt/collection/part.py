"""Write the results of one shard: the columns that a shard worker computes, then those of the manifest."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from affekt.collection.folder import COUNTS, Counts, ResultsFolder
from affekt.collection.manifest import Clip
from affekt.collection.shards import Shard
from affekt.extras import need
from affekt.json_text import to_json
from affekt.processes import Message

PREFIX = "manifest_"
"""Prefix for a column of the manifest that has the same name as a computed column of the results."""


class ShardWorker(Protocol):
    """Processes the clips of shards, in a `with` statement."""

    def __enter__(self) -> ShardWorker:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def schema(self) -> Any:
        """Return the schema of the tables; one of its columns is "status", whose value "error" means a failure."""
        raise NotImplementedError

    def writer_options(self) -> Mapping[str, Any]:
        """Return further options of pyarrow's `ParquetWriter`."""
        raise NotImplementedError

    def tables(self, clips: Sequence[Clip], on_clip: Callable[[], None]) -> Iterator[Any]:
        """Yield tables with a row for each clip, in order.

        Args:
            clips: The clips.
            on_clip: Called after each clip.
        """
        raise NotImplementedError


class WorkerFactory(Protocol):
    """Creates a shard worker on the machine that it is to run on."""

    def __call__(self, setup: Message, jobs: int, machine: str) -> AbstractContextManager[ShardWorker]:
        """Return a worker.

        Args:
            setup: The description of its task, which can be encoded as JSON.
            jobs: The number of its processes.
            machine: The name of the machine, for messages about files that cannot be read there; "" on the machine where
                the command runs.
        """
        raise NotImplementedError


def find_worker(entry: str) -> WorkerFactory:
    """Return the class or function MODULE:NAME that creates shard workers."""
    module, name = entry.split(":")
    factory: WorkerFactory = getattr(importlib.import_module(module), name)
    return factory


def write_part(
    folder: ResultsFolder,
    shard: Shard,
    kinds: Mapping[str, str],
    worker: ShardWorker,
    on_clip: Callable[[], None] = lambda: None,
) -> Counts:
    """Process a shard and write its file; return its counts.

    Args:
        folder: The folder of the results.
        shard: The shard.
        kinds: Column of the manifest -> kind of its values.
        worker: The shard worker.
        on_clip: Called after each clip.

    Raises:
        BadOutput: The file cannot be written.
    """
    arrow = need("pyarrow", extra="parquet", purpose="writing Parquet")
    parquet = need("pyarrow.parquet", extra="parquet", purpose="writing Parquet")
    schema = full_schema(worker.schema(), kinds)
    clips = shard.clips()

    def fill(path: Path) -> Counts:
        counts = Counts()
        with parquet.ParquetWriter(path, schema, compression="zstd", **worker.writer_options()) as writer:
            for table in worker.tables(clips, on_clip):
                rows = clips[counts.rows : counts.rows + table.num_rows]
                arrays = [*table.columns, *_manifest_columns(rows, kinds)]
                writer.write_table(arrow.table(arrays, schema=schema))
                failed = table.column("status").to_pylist().count("error")
                counts += Counts(table.num_rows, failed)
            assert counts.rows == len(clips), "a shard worker returned too few rows"
            writer.add_key_value_metadata({COUNTS: to_json({"rows": counts.rows, "failed": counts.failed}).encode()})
        return counts

    return folder.write(ResultsFolder.part_name(shard), fill)


def full_schema(computed: Any, kinds: Mapping[str, str]) -> Any:
    """Return the schema of the results: the computed columns, then the manifest's."""
    arrow = need("pyarrow", extra="parquet", purpose="writing Parquet")
    types = {"integer": arrow.int64(), "number": arrow.float64(), "boolean": arrow.bool_()}
    fields = list(computed)
    for column, kind in kinds.items():
        name = column
        while name in [field.name for field in fields] or (name != column and name in kinds):
            name = PREFIX + name
        fields.append(arrow.field(name, types.get(kind, arrow.string())))
    return arrow.schema(fields)


def _manifest_columns(clips: Sequence[Clip], kinds: Mapping[str, str]) -> list[list[Any]]:
    """Return the values of the manifest's columns for some clips, one list for each column."""
    return [[_convert(clip.carried.get(column), kind) for clip in clips] for column, kind in kinds.items()]


def _convert(value: Any, kind: str) -> Any:
    """Convert a value to the type of its column in the results; lists and objects become JSON text."""
    if value is None or kind in ("integer", "boolean"):
        return value
    if kind == "number":
        return float(value)
    text = value if isinstance(value, str) else to_json(value, ascii_only=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
