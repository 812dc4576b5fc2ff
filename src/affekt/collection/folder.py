"""The folder of a collection's results, on a disk or in an object store.

FOLDER/_affekt.json                           settings, columns, and at the end of a run the numbers of rows
FOLDER/part-00000-0123456789abcdef.parquet    the results of shard 0, with its index and key in the name (a "part")

All parts have the same columns: pyarrow, pandas, DuckDB and Spark read the folder as one table, and skip `_affekt.json`.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from affekt import __version__
from affekt.collection.shards import Shard
from affekt.errors import AffektError, BadOutput
from affekt.extras import need
from affekt.files import atomic_write, atomic_write_text
from affekt.json_text import to_json
from affekt.lock import FileLock, Locked
from affekt.storage import is_url, join, local_path, open_filesystem

SETTINGS = "_affekt.json"
SCHEMA = 1
"""Version of the format of SETTINGS."""
PART = re.compile(r"part-(\d{5,})-([0-9a-f]+)\.parquet")
COUNTS = b"affekt"
"""Key in the Parquet metadata of a part; its value is the row counts as JSON."""


@dataclass(frozen=True)
class Counts:
    """Row counts: all rows, and those that failed."""

    rows: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.rows + other.rows, self.failed + other.failed)


class ResultsFolder:
    """A folder of results. Creating this object reads and writes nothing.

    Args:
        location: The folder or its URL.
    """

    def __init__(self, location: str) -> None:
        location = local_path(location)
        self.location = location if is_url(location) else str(Path(location).absolute())

    def path(self, name: str) -> str:
        """Return the path or URL of a file in the folder."""
        return join(self.location, name)

    @staticmethod
    def part_name(shard: Shard) -> str:
        """Return the name of a shard's file."""
        return f"part-{shard.index:05}-{shard.key}.parquet"

    @contextmanager
    def open(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Create the folder if it does not exist, and lock it if it is on a disk.

        Args:
            settings: Everything that the results depend on, apart from the rows of the manifest.

        Raises:
            BadOutput: The folder cannot be written, is being written by another run, or contains anything other than results
                with the same settings.
        """
        with contextlib.ExitStack() as stack:
            with self._errors():
                if not is_url(self.location):
                    folder = Path(self.location)
                    if folder.exists() and not folder.is_dir():
                        raise BadOutput(f"{folder} is a file: expected a folder to write the results to")
                    folder.mkdir(parents=True, exist_ok=True)
                    stack.callback(FileLock(folder / SETTINGS).release)
                self._check(settings)
            yield

    def _check(self, settings: Mapping[str, Any]) -> None:
        names = self.names()
        if SETTINGS not in names:
            if names:
                raise BadOutput(
                    f"{self.location} contains other files, such as {names[0]}: choose a new or an empty folder"
                )
            self._write_settings({"schema": SCHEMA, "version": __version__, "settings": dict(settings)})
        stored, current = self._read_settings()["settings"], json.loads(to_json(dict(settings)))
        if changed := [name for name in {**stored, **current} if stored.get(name) != current.get(name)]:
            name = changed[0]
            raise BadOutput(
                f"{self.location} contains results with {name} = {to_json(stored.get(name))}, but this run has "
                f"{to_json(current.get(name))}: choose another folder, or delete this one"
            )

    def record(self, columns: Mapping[str, str], counts: Counts | None = None) -> None:
        """Write the columns of the manifest, and the row counts when all shards are finished, to `_affekt.json`.

        Raises:
            BadOutput: The columns are not those of the parts that exist.
        """
        content = self._read_settings()
        if (stored := content.get("columns", columns)) != dict(columns):
            raise BadOutput(
                f"{self.location} contains results with the columns {_list(stored)} of the manifest, but now it has "
                f"{_list(columns)}: choose another folder, or restore the columns"
            )
        summary = {} if counts is None else {"rows": counts.rows, "failed": counts.failed}
        if content != (new := {**content, "columns": dict(columns), **summary}):
            self._write_settings(new)

    def _read_settings(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._read(SETTINGS))
            schema, _ = content["schema"], dict(content["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadOutput(f"{self.path(SETTINGS)} is damaged ({error}): choose another folder") from error
        if schema != SCHEMA:
            raise BadOutput(f"{self.location} has schema {schema!r}; this version of affekt writes {SCHEMA}")
        return content

    def _write_settings(self, content: Mapping[str, Any]) -> None:
        text = to_json(content, indent=1) + "\n"
        with self._errors(SETTINGS):
            if is_url(self.location):
                filesystem, path = open_filesystem(self.path(SETTINGS))
                filesystem.pipe_file(path, text.encode())
            else:
                atomic_write_text(Path(self.location, SETTINGS), text)

    def names(self) -> list[str]:
        """Return the sorted names of the files in the folder, without hidden ones; [] if it does not exist."""
        if not is_url(self.location):
            names = [path.name for path in Path(self.location).iterdir()] if Path(self.location).exists() else []
        else:
            filesystem, path = open_filesystem(self.location)
            with contextlib.suppress(Exception):  # fsspec may have cached an old listing
                filesystem.invalidate_cache(path)
            try:
                names = [entry.rstrip("/").rpartition("/")[2] for entry in filesystem.ls(path, detail=False)]
            except FileNotFoundError:
                names = []
        return sorted(name for name in names if name and not name.startswith("."))

    def parts(self) -> dict[int, dict[str, str]]:
        """Return the finished parts as a nested dictionary: index of the shard -> key of the shard -> name of the file."""
        parts: dict[int, dict[str, str]] = {}
        for name in self.names():
            if match := PART.fullmatch(name):
                parts.setdefault(int(match[1]), {})[match[2]] = name
        return parts

    def exists(self, name: str) -> bool:
        """Return whether there is a file with this name."""
        if not is_url(self.location):
            return Path(self.location, name).exists()
        filesystem, path = open_filesystem(self.path(name))
        return bool(filesystem.exists(path))

    def delete(self, name: str) -> None:
        """Delete a file."""
        with self._errors():
            if is_url(self.location):
                filesystem, path = open_filesystem(self.path(name))
                filesystem.rm(path)
            else:
                Path(self.location, name).unlink(missing_ok=True)

    def delete_unfinished(self) -> None:
        """Delete the temporary files that killed workers have left on a disk. No worker may be running."""
        if not is_url(self.location):
            with self._errors():
                for path in Path(self.location).glob(".part-*.parquet.*"):
                    path.unlink(missing_ok=True)

    def counts(self, name: str) -> Counts:
        """Return the row counts of a part. Raises `BadOutput` if it cannot be read."""
        parquet = need("pyarrow.parquet", extra="parquet", purpose="reading Parquet")
        try:
            with self._open(name) as stream:
                counts = json.loads(parquet.read_metadata(stream).metadata[COUNTS])
                return Counts(int(counts["rows"]), int(counts["failed"]))
        except Exception as error:  # libraries for object stores have errors of their own
            raise BadOutput(
                f"{self.path(name)} is damaged ({error}): delete it; the same command writes it again"
            ) from error

    def _open(self, name: str) -> Any:
        if not is_url(self.location):
            return Path(self.location, name).open("rb")
        filesystem, path = open_filesystem(self.path(name))
        return filesystem.open(path, "rb")

    def _read(self, name: str) -> bytes:
        with self._open(name) as stream:
            content: bytes = stream.read()
            return content

    def write(self, name: str, fill: Callable[[Path], Counts]) -> Counts:
        """Write a file atomically, and return what `fill` returns.

        Args:
            name: The name of the file.
            fill: Writes the content to the path that it is given.

        Raises:
            BadOutput: The file cannot be written.
        """
        if not is_url(self.location):
            with self._errors(name), atomic_write(Path(self.location, name)) as path:
                return fill(path)
        with tempfile.TemporaryDirectory() as folder:
            counts = fill(Path(folder, name))
            with self._errors(name):
                filesystem, target = open_filesystem(self.path(name))
                filesystem.put_file(str(Path(folder, name)), target)
            return counts

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Convert an `OSError`, or an error of an object store's library, that occurs in the block to `BadOutput`."""
        try:
            yield
        except AffektError:
            raise
        except Locked as error:
            raise BadOutput(
                f"{self.location} is being written by another run: wait until it has ended, or choose another folder"
            ) from error
        except Exception as error:  # libraries for object stores have errors of their own
            if not (isinstance(error, OSError) or is_url(self.location)):
                raise
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise BadOutput(f"{self.path(name) if name else self.location} cannot be written: {reason}") from error


def _list(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in columns.items()) or "(none)"
