"""Object stores and other remote files, through fsspec: `s3://`, `gs://`, `memory://` and others.

fsspec, from the extra `ray`, and the package for a protocol are imported only when a URL is opened.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote

from affekt.errors import BadConfig, MissingExtra
from affekt.extras import need

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
FILE_URL = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
SPOOL_BYTES = 1 << 24
"""Size from which the copy of a remote file is on disk instead of in memory."""


def is_url(name: str) -> bool:
    """Return whether a name is a URL of something other than a local file."""
    return URL.match(name) is not None and FILE_URL.match(name) is None


def local_path(name: str) -> str:
    """Return the path of a local file from its URL; other names are returned unchanged."""
    return unquote(FILE_URL.sub("", name, count=1)) if FILE_URL.match(name) else name


def join(folder: str, name: str) -> str:
    """Return the path or URL of a file in a folder, which may be a URL itself."""
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def open_filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises:
        BadConfig: fsspec does not know the protocol, or the URL is invalid.
        MissingExtra: fsspec, or the package for the protocol, is not installed.
    """
    core = need("fsspec.core", extra="ray", purpose=f"{url} (a URL)")
    try:
        filesystem, path = core.url_to_fs(url)
    except ImportError as error:  # fsspec's own message names the package: "Install s3fs to access S3"
        raise MissingExtra(f"{url} needs a package that is not installed: {error}") from error
    except ValueError as error:
        raise BadConfig(f"{url} cannot be opened: {error}") from error
    return filesystem, path


@contextmanager
def open_copy(url: str) -> Iterator[IO[bytes]]:
    """Yield a seekable copy of a remote file, at its beginning: in memory if it is small, otherwise on disk.

    Raises:
        BadConfig: The URL is invalid.
        MissingExtra: A package is not installed.
        OSError: The file cannot be read; `FileNotFoundError` if it does not exist.
    """
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as copy:
        _copy(url, copy)
        copy.seek(0)
        yield cast(IO[bytes], copy)


def download(url: str, path: Path) -> None:
    """Copy a remote file to a local one; errors as for `open_copy`."""
    with path.open("wb") as target:
        _copy(url, target)


def _copy(url: str, target: Any) -> None:
    filesystem, path = open_filesystem(url)
    try:
        with filesystem.open(path, "rb") as source:
            shutil.copyfileobj(source, target)
    except OSError:
        raise
    except Exception as error:  # libraries for object stores have errors of their own
        raise OSError(f"{type(error).__name__}: {error}") from error
