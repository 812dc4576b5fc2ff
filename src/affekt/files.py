"""Write files and folders atomically: a path is either complete or does not exist. The cache is a folder of such files."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from affekt.errors import BadConfig, BadOutput
from affekt.storage import is_url

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
FULL_DISK_MESSAGES = ("No space left on device", " requested and ")
"""Phrases in the errors of safetensors and numpy, which have no error number."""


def cache_root() -> Path:
    """Return the cache folder: AFFEKT_CACHE, or a folder in the system's cache.

    Raises:
        BadConfig: AFFEKT_CACHE is a URL.
    """
    if chosen := os.environ.get("AFFEKT_CACHE"):
        if is_url(chosen):
            raise BadConfig(
                f"AFFEKT_CACHE = {chosen!r}: expected a folder on a disk; for features in an object store, set "
                "AFFEKT_FEATURES to its URL"
            )
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "affekt"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, delete it on failure.

    A reader finds the old file or the new one, never a partial one. Many processes may write the same path, even on a network
    disk. The yielded path is an empty file with the permissions of any file that the user creates. The result keeps these
    permissions, even if a library would make it readable by its owner alone (safetensors' `save_file`).

    Raises:
        BadOutput: The disk is full.
        OSError: The folder does not exist or cannot be written.
    """
    temporary = _temporary_path(path)
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        temporary.replace(path)
    except Exception as error:  # safetensors has an error of its own
        _raise_if_full(error, path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _raise_if_full(error: Exception, path: Path) -> None:
    """Raise `BadOutput` if an error means that the disk of `path` is full."""
    if getattr(error, "errno", None) in FULL_DISK or any(message in str(error) for message in FULL_DISK_MESSAGES):
        raise BadOutput(
            f"{path}: its disk is full: free some space, or choose a folder on another disk; the same command then goes on "
            "where it stopped"
        ) from error


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder beside `path`; rename it to `path` on success, delete it on failure.

    Args:
        path: The folder to write.
        replace: Delete the folder `path` on success, if it exists, before the new one gets its name.

    Raises:
        BadOutput: The disk is full.
        OSError: `path` is a folder that is not empty and `replace` is false, or its parent cannot be written.
    """
    temporary = _temporary_path(path)
    try:
        temporary.mkdir()
        yield temporary
        if replace:
            shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except Exception as error:
        _raise_if_full(error, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_path(path: Path) -> Path:
    """Return a new hidden path in the same folder. Its random part also separates threads, and machines on a network disk."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
