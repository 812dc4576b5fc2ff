"""Find the audio files in a folder."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from affekt.errors import BadAudio
from affekt.terminal import escape_controls

logger = logging.getLogger(__name__)

SNDFILE_SUFFIXES = {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".ircam", ".mp3", ".nist", ".oga", ".ogg"}
SNDFILE_SUFFIXES |= {".opus", ".paf", ".rf64", ".snd", ".sph", ".voc", ".w64", ".wav", ".wave", ".wve"}
MEDIA_SUFFIXES = {".3gp", ".aac", ".amr", ".avi", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4"}
MEDIA_SUFFIXES |= {".mpeg", ".mpg", ".webm", ".wma", ".wmv"}
MEDIA_SUFFIXES |= {".ac3", ".ec3", ".eac3", ".spx", ".tta", ".wv"}
SUFFIXES = SNDFILE_SUFFIXES | MEDIA_SUFFIXES
"""Suffixes by which audio files are recognized in a folder."""
SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders of operating systems, archivers and file servers, whose files are not recordings of the user."""


def is_folder(path: str | PathLike[str]) -> bool:
    """Return whether a path is a folder.

    Unlike `Path.is_dir` before Python 3.14, this does not raise if the name is too long or its folder is not accessible.
    """
    return os.path.isdir(path)  # noqa: PTH112


def require_access(folder: str | PathLike[str], name: str) -> None:
    """Raise `BadAudio` if a folder cannot be listed."""
    try:
        with os.scandir(folder):
            pass
    except OSError as error:
        raise BadAudio(f"{name} is a folder that cannot be opened: {error.strerror}", code="unreadable") from error


def find_files(folder: Path) -> list[Path]:
    """Return the files below a folder that have a suffix of an audio file, sorted.

    Hidden files and folders, and SYSTEM_FOLDERS, are skipped; so are named pipes, sockets and devices, with a warning in the
    log: reading a pipe waits until another program writes to it.
    """
    paths: list[Path] = []

    def add_inaccessible(error: OSError) -> None:
        # An inaccessible folder is not skipped, so that reading it raises an error.
        paths.append(Path(error.filename))

    for root, folders, files in os.walk(folder, onerror=add_inaccessible):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SYSTEM_FOLDERS)
        audio_names = (name for name in sorted(files) if Path(name).suffix.lower() in SUFFIXES)
        candidates = (Path(root, name) for name in audio_names if not name.startswith("."))
        paths.extend(path for path in candidates if _is_regular(path))
    return paths


def expand_folders(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the files, with each folder replaced by the audio files below it, without repetitions.

    A folder without audio files is kept, so that reading it raises an error.

    Raises:
        BadAudio: A name is empty, probably because a shell variable is not set.
    """
    inputs = list(inputs)
    if "" in inputs:
        raise BadAudio("one of the file names is empty; is a shell variable unset?", code="missing")
    files: dict[Path, None] = {}
    for entry in map(Path, inputs):
        files.update(dict.fromkeys((find_files(entry) or [entry]) if is_folder(entry) else [entry]))
    return list(files)


def _is_regular(path: Path) -> bool:
    """Return whether a path in a folder is to be read; log if it is not."""
    try:
        mode = path.stat().st_mode
    except OSError:  # for example a broken link: reading it raises an error that names it
        return True
    if not stat.S_ISREG(mode):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "not a regular file"
        logger.warning("%s is skipped: it is %s", escape_controls(str(path)), kind)
        return False
    return True
