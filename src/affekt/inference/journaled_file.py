"""A file that is written from a journal, to which each entry is appended at once, so that an interrupted run can be resumed.

A lock keeps other processes from writing the same file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from affekt.errors import BadOutput
from affekt.files import atomic_write
from affekt.lock import FileLock, Locked


class JournaledFile(ABC):
    """A file that is being written. It is completed when its `with` block ends without an error.

    Args:
        path: The file.
        journal: Its journal, which may be the file itself.

    Raises:
        BadOutput: The file cannot be written or is being written by another run.
    """

    kind: ClassVar[str]
    """The kind of file, for error messages."""

    def __init__(self, path: Path, journal: Path) -> None:
        self.path, self.journal = path, journal
        with report_errors(path, self.kind):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path)
            try:
                self._lines = self._open_journal()
            except BaseException:
                self._lock.release()
                raise

    @abstractmethod
    def _open_journal(self) -> IO[str]:
        """Read the entries of earlier runs, and open the journal to append others."""

    @abstractmethod
    def _write_file(self, temporary: Path) -> None:
        """Write the completed file to a temporary path."""

    def _write_line(self, line: str) -> None:
        """Append an entry, which ends with a newline, to the journal."""
        with report_errors(self.path, self.kind):
            self._lines.write(line)
            self._lines.flush()

    def _complete(self) -> None:
        with atomic_write(self.path) as temporary:
            self._write_file(temporary)
        if self.path != self.journal:
            self.journal.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with report_errors(self.path, self.kind):
                self._lines.close()
                if kind is None:
                    self._complete()
        finally:
            self._lock.release()


def partial_path(path: Path) -> Path:
    """Return the journal beside a file: NAME.partial.jsonl."""
    return path.with_name(path.name + ".partial.jsonl")


@contextmanager
def report_errors(path: Path, kind: str) -> Iterator[None]:
    """Raise an `OSError` that occurs in the block as `BadOutput`."""
    try:
        yield
    except Locked as error:
        raise BadOutput(
            f"{kind} {path} is being written by another run: wait until it has ended, or choose another file"
        ) from error
    except OSError as error:
        raise BadOutput(f"{kind} {path} cannot be written: {error.strerror or error}") from error
