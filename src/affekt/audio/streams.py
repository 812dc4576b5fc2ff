"""Open a source of audio (a path, bytes or a stream) as a seekable stream."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from affekt.audio.folders import is_folder, require_access
from affekt.audio.reliable import ReliableStream
from affekt.audio.sndfile import reason_of
from affekt.audio.sources import named_part
from affekt.errors import BadAudio, BadConfig
from affekt.storage import download, is_url, open_copy

AudioSource = str | PathLike[str] | bytes | IO[bytes] | NDArray[Any] | tuple[NDArray[Any], int] | Mapping[str, Any]
"""A path, a URL that fsspec reads (`affekt.storage`), "-" for standard input, the bytes or a binary file object of an audio
file, an array, a pair (array, sample_rate), or a dictionary of the library `datasets`: {"array", "sampling_rate"} or
{"bytes", "path"}."""
STANDARD_INPUT = "-"


def name_of(source: AudioSource) -> str:
    """Return the name of a source in rows and messages; bytes of a path that are not valid Unicode are escaped."""
    source = named_part(source)
    if isinstance(source, str | PathLike):
        name: Any = os.fspath(source)
    elif isinstance(source, np.ndarray):
        name = "<array>"
    elif isinstance(source, bytes | bytearray | memoryview):
        name = "<bytes>"
    else:
        name = getattr(source, "name", None)
    name = name if isinstance(name, str) and (name or isinstance(source, str)) else "<stream>"
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def open_source(source: Any, name: str) -> Iterator[IO[bytes]]:
    """Yield a seekable stream, at any position. Streams opened here are closed; the caller's stream stays open.

    Raises:
        BadAudio: The source is of another type, or cannot be opened.
    """
    with ExitStack() as stack:
        if isinstance(source, bytes | bytearray | memoryview):
            stream: IO[bytes] = io.BytesIO(source.tobytes() if isinstance(source, memoryview) else source)
        elif isinstance(source, str | PathLike) and os.fspath(source) == STANDARD_INPUT:
            stream = _standard_input()
        elif isinstance(source, str) and is_url(source):
            stream = stack.enter_context(_open_url(source))
        elif isinstance(source, str | PathLike):
            stream = stack.enter_context(_open_path(source, name))
        elif hasattr(source, "read") and not isinstance(source, io.TextIOBase):
            stream = source
        else:
            raise BadAudio(
                f"{type(source).__name__} is not audio: expected a path, bytes, a file opened in mode 'rb', a numpy "
                "array with its sample rate or a dictionary of `datasets`",
                code="not_audio",
            )
        reliable = ReliableStream(stream, name)
        if not reliable.seekable():
            reliable = ReliableStream(stack.enter_context(_spool(reliable)), name)
        reliable.seek(0)
        first = reliable.read(1)
        if not first:
            raise BadAudio(f"{name} is empty (0 bytes)", code="empty")
        yield cast(IO[bytes], reliable)


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:
        raise BadAudio("standard input (-) is closed: pipe an audio file into it", code="unreadable")
    return sys.stdin.buffer


def _open_path(path: str | PathLike[str], name: str) -> IO[bytes]:
    if path == "":
        raise BadAudio("the path is empty: expected that of an audio file", code="missing")
    if is_folder(path):
        require_access(path, name)
        raise BadAudio(
            f"{name} is a folder: expected an audio file or, on the command line, a folder with audio files",
            code="folder",
        )
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise BadAudio(f"{name} does not exist", code="missing") from None
    except OSError as error:
        raise BadAudio(f"{name} cannot be opened: {reason_of(error)}", code="unreadable") from error
    except ValueError as error:  # a NUL in the path
        raise BadAudio(f"{name!r} is not a valid path: {error}", code="missing") from error


@contextmanager
def local_copy(name: str) -> Iterator[Path]:
    """Yield the path of a local file unchanged, or that of a temporary copy of a remote one.

    Raises:
        BadAudio: The remote file cannot be read.
        MissingExtra: A package that its URL needs is not installed.
    """
    if not is_url(name):
        yield Path(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, PurePosixPath(name).name or "audio")
        with _remote_errors(name):
            download(name, path)
        yield path


@contextmanager
def _open_url(url: str) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        with _remote_errors(url):
            stream = stack.enter_context(open_copy(url))
        yield stream


@contextmanager
def _remote_errors(url: str) -> Iterator[None]:
    """Raise errors in reading a remote file as `BadAudio`."""
    try:
        yield
    except BadConfig as error:
        raise BadAudio(str(error), code="unreadable") from error
    except FileNotFoundError:
        raise BadAudio(f"{url} does not exist", code="missing") from None
    except OSError as error:
        raise BadAudio(f"{url} cannot be opened: {reason_of(error)}", code="unreadable") from error


def _spool(stream: ReliableStream) -> IO[bytes]:
    """Copy a pipe or socket to a seekable temporary file, on disk if it is long."""
    copy = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115 (the caller closes it)
    try:
        shutil.copyfileobj(stream, copy)
    except BaseException:
        copy.close()
        raise
    return cast(IO[bytes], copy)
