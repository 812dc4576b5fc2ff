"""Paths of audio files in tables, which may have been written on another system."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from affekt.storage import local_path


def find_audio(folder: Path, name: str) -> Path:
    """Return the path of a file that a table names.

    If there is no such file, other spellings of the name are tried: a file URL, the home folder "~", Windows separators, and
    the other Unicode forms, since macOS decomposes accents in the names of files.

    Args:
        folder: The table's folder.
        name: The name in the table.
    """
    path = folder / name
    others = [spelling for spelling in _spellings(name) if spelling != name]
    if not others or os.path.isfile(path):  # noqa: PTH113 - does not raise if the name is too long
        return path
    return next((folder / other for other in others if os.path.isfile(folder / other)), path)  # noqa: PTH113


def _spellings(name: str) -> Iterator[str]:
    local = local_path(name)
    if local.startswith("~/"):
        local = os.path.expanduser(local)  # noqa: PTH111 - does not raise without a home folder
    for spelling in dict.fromkeys((local, local.replace("\\", "/"))):
        for form in ("NFC", "NFD"):
            yield unicodedata.normalize(form, spelling)
        yield spelling
