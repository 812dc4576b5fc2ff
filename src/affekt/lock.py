"""A lock between processes that write the same file."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import IO


class Locked(OSError):
    """Another process, or another object in this one, has the lock."""


class FileLock:
    """An exclusive lock on a path, which the system releases when the process ends, however it ends.

    The lock is on a hidden file `.NAME.lock` beside the path, which `release` deletes. File systems that have no locks are
    used without one.

    Raises:
        Locked: The lock is taken.
        OSError: The folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = lock_path(path)
        self._file = self._acquire()

    def _acquire(self) -> IO[bytes]:
        while True:
            file = self.path.open("ab")
            try:
                _lock(file)
                if _is_same(file, self.path):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()  # its last owner deleted it before it was locked here

    def release(self) -> None:
        """Release the lock; more than once is allowed."""
        if self._file.closed:
            return
        if sys.platform == "win32":  # which cannot delete an open file
            self._file.close()
        try:
            self.path.unlink(missing_ok=True)
        except OSError:  # on Windows, another process has opened it
            pass
        finally:
            self._file.close()


def lock_path(path: Path) -> Path:
    """Return the path of the file that is locked for a path."""
    return path.with_name(f".{path.name}.lock")


def _is_same(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes]) -> None:
    """Lock an open file, or raise `Locked` at once."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            raise Locked(error.errno, "locked by another process") from error
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
