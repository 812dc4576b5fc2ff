"""The options of the commands that process large collections, their progress and their summary."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from affekt.cli.source_options import parse_pairs
from affekt.errors import BadConfig
from affekt.plural import quantity

if TYPE_CHECKING:
    from affekt.collection.process import Summary
    from affekt.progress import Progress

LOG_INTERVAL = 30.0
"""Seconds between lines of progress where there is no terminal."""

MANIFEST = typer.Option(
    "--manifest",
    metavar="TABLE|FOLDER|URL",
    help="Process a large collection: a .csv, .tsv, .jsonl or .parquet table with a column of audio files or URLs, or a "
    "folder or URL (s3://bucket/prefix) whose audio files are listed. --output is then a folder.",
)
ManifestName = Annotated[str | None, MANIFEST]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="auto|HOST:PORT",
        help="With --manifest: process the shards on a Ray cluster: HOST:PORT of its head node, or auto for the cluster of "
        "this machine. --jobs is then the maximum number of processes on it; default: one for each core.",
    ),
]
ShardRows = Annotated[
    int | None,
    typer.Option("--shard-rows", metavar="N", min=1, help="With --manifest: rows of each Parquet file; default: 1000."),
]
ManifestColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="With --manifest: read FIELD (audio, start or end) from COLUMN. Repeatable.",
    ),
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="With --manifest: process shards with failed files again.")
]

OPTIONS = {
    "ray": "--ray",
    "shard_rows": "--shard-rows",
    "columns": "--column",
    "delimiter": "--delimiter",
    "retry_failed": "--retry-failed",
}
"""Argument -> option."""


@dataclass(frozen=True)
class ManifestOptions:
    """The values of the options."""

    manifest: str | None
    ray: str | None
    shard_rows: int | None
    columns: list[str] | None
    delimiter: str
    retry_failed: bool

    def arguments(self) -> dict[str, Any]:
        """Return the options as arguments of `affekt.collection.process.process`, those that are given."""
        given = {
            "shard_rows": self.shard_rows,
            "columns": parse_pairs("--column", self.columns),
            "delimiter": self.delimiter,
            "retry_failed": self.retry_failed,
            "ray": self.ray,
        }
        return {name: value for name, value in given.items() if value}

    def are_used(self, inputs: Sequence[str] | None, output: object, excluded: Mapping[str, object]) -> bool:
        """Return whether a manifest is given instead of files.

        Args:
            inputs: The files.
            output: The folder of the results.
            excluded: Other options that a manifest excludes, with their values.

        Raises:
            BadConfig: The options contradict one another.
        """
        if self.manifest is None:
            if given := [OPTIONS[name] for name in self.arguments()]:
                raise BadConfig(f"{given[0]} is an option for large collections: it needs --manifest")
            if not inputs:
                raise BadConfig("nothing to recognize: expected audio files, folders, or --manifest")
            return False
        if inputs:
            raise BadConfig(f"--manifest lists the files: leave out {inputs[0]}, or --manifest")
        if output is None:
            raise BadConfig("--manifest needs --output FOLDER, in which the results are written")
        if given := [name for name, value in excluded.items() if value]:
            raise BadConfig(f"{given[0]} cannot be used with --manifest")
        return True


def run(work: Callable[[Progress], Summary], output: str) -> int:
    """Process a collection with progress on standard error, print a summary, and return the exit status.

    Args:
        work: Processes the collection.
        output: The folder of the results.
    """
    try:
        with show_progress() as progress:
            summary = work(progress)
    except KeyboardInterrupt:
        print(f"interrupted; run the same command again to continue {output}", file=sys.stderr)
        raise
    resumed = f", {summary.resumed} from an earlier run" if summary.resumed else ""
    retry = "; --retry-failed processes their shards again" if summary.failed else ""
    print(f"{output}: {quantity(summary.rows, 'row')}{resumed}, {summary.failed} failed{retry}", file=sys.stderr)
    return 2 if summary.failed else 0


@contextlib.contextmanager
def show_progress() -> Iterator[Progress]:
    """Show how many clips are done, how many in a second and the time left: as a bar, or as a line now and then."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console

    from affekt.cli.progress_bars import make_bars

    with make_bars(Console(stderr=True)) as bars:
        task, rate = bars.add_task("reading the manifest", total=None), _Rate()

        def update(name: str, done: int, total: int) -> None:
            bars.update(task, description=f"{name} {rate.add(done):.1f}/s", completed=done, total=total)

        yield update


class _Rate:
    """The number of steps in a second."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._first: int | None = None

    def add(self, done: int) -> float:
        """Return the rate since the first call."""
        if self._first is None:
            self._first, self._start = done, time.monotonic()
        return (done - self._first) / max(time.monotonic() - self._start, 1e-3)


class _Lines:
    """Prints a line of progress now and then."""

    def __init__(self) -> None:
        self._rate, self._last = _Rate(), time.monotonic()

    def __call__(self, task: str, done: int, total: int) -> None:
        rate, now = self._rate.add(done), time.monotonic()
        if now - self._last >= LOG_INTERVAL and rate:
            self._last = now
            minutes = (total - done) / rate / 60
            print(
                f"{task}: {done} of {total}, {rate:.1f}/s, about {minutes:.0f} minutes left",
                file=sys.stderr,
                flush=True,
            )
