"""Corpora in an object store: their files are copied to the cache when they are first read."""

from __future__ import annotations

import functools
import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from affekt.errors import AffektError, BadCorpus, BadOutput
from affekt.files import atomic_folder, cache_root
from affekt.json_text import to_json
from affekt.plural import quantity
from affekt.storage import open_filesystem

logger = logging.getLogger(__name__)

COPIES = "corpora"
"""Name of the folder below the cache root."""
KEY_DIGITS = 12
VERSIONS = ("ETag", "etag", "md5Hash", "checksum", "generation", "LastModified", "last_modified", "mtime", "created")
"""Keys of a file's information in fsspec that change with the file's content; which of them exist depends on the store."""


@functools.cache
def fetch_corpus(url: str) -> Path:
    """Return the local copy of a remote folder; copy the folder to the cache if it is not there yet.

    The copy's path contains a hash of the names, sizes and versions of all files, so a folder that has changed is copied
    again. In one process, each URL is looked up only once.

    Raises:
        BadConfig: The URL is invalid.
        BadCorpus: The folder does not exist, is empty or cannot be read.
        BadOutput: The cache has too little space.
        MissingExtra: A package is not installed.
    """
    filesystem, root = open_filesystem(url)
    try:
        files = _list(filesystem, root)
    except Exception as error:  # libraries for object stores have errors of their own
        raise BadCorpus(
            f"{url} cannot be read ({type(error).__name__}: {error}): check the URL and the access"
        ) from error
    if not files:
        raise BadCorpus(f"{url} has no files: expected the folder of a corpus")
    content = to_json([[name, info["size"], _version(info)] for name, info in sorted(files.items())])
    key = hashlib.sha256(content.encode()).hexdigest()[:KEY_DIGITS]
    folder = cache_root() / COPIES / key / (PurePosixPath(root).name or key)
    if not folder.is_dir():
        _copy(url, filesystem, files, folder)
    return folder


def _list(filesystem: Any, root: str) -> dict[str, Mapping[str, Any]]:
    """Return the files of a remote folder: path relative to the folder -> what the file system states about it."""
    root = root.rstrip("/")
    return {
        path.removeprefix(root).lstrip("/"): info
        for path, info in filesystem.find(root, detail=True).items()
        if path.startswith(f"{root}/") and info["type"] == "file"
    }


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in VERSIONS if info.get(name)), "")


def _copy(url: str, filesystem: Any, files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Copy files to a new folder, which gets its name only when all files are copied."""
    size = sum(info["size"] for info in files.values())
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder.parent).free) < size:
        raise BadOutput(
            f"{url} has {size / 1e9:.2f} GB, and {cache_root()} only {free / 1e9:.2f} GB left: set AFFEKT_CACHE to a folder "
            "on another disk"
        )
    logger.info("%s: copying %s, %.2f GB, to %s", url, quantity(len(files), "file"), size / 1e9, folder)
    try:
        with atomic_folder(folder) as temporary:
            for name, info in files.items():
                if ".." in PurePosixPath(name).parts:
                    raise BadCorpus(f"{url} has a file {name!r}, which would be outside the corpus")
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                filesystem.get_file(info["name"], str(path))
    except AffektError:
        raise
    except Exception as error:
        if folder.is_dir():  # another process was faster
            return
        raise BadCorpus(f"{url} cannot be copied to {folder} ({type(error).__name__}: {error})") from error
