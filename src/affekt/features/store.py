"""The feature store on disk: features are computed once and identified by everything they depend on.

ROOT/features/whisper-0123456789ab/description.json    encoder, settings, hash of the weights, library versions
ROOT/features/whisper-0123456789ab/ab/abcdef....npy    (frames, dim), or (dim,), named by the hash of audio and segment

Several processes may write at once, also on a network disk: a file is written under a temporary name and renamed when it
is complete. If a file is truncated nevertheless (a full disk, a lost server), it is shorter than its header states: it
counts as missing and is computed again. With AFFEKT_FEATURES, features are also shared through an object store
(`affekt.features.remote_store`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import AffektError
from affekt.features.remote_store import RemoteFeatures
from affekt.files import atomic_write, cache_root
from affekt.utterance import Utterance

if TYPE_CHECKING:
    from hashlib import _Hash

FEATURES = "features"  # name of the folder below the cache root
DESCRIPTION = "description.json"
HASH_DIGITS = 12  # hexadecimal digits of a description's hash in its folder's name


class FeatureStore:
    """The stored features of one description, as 16-bit floats. Values that 16 bits cannot represent are refused."""

    def __init__(self, name: str, description: Mapping[str, Any], root: Path | None = None) -> None:
        content = json.dumps(description, sort_keys=True, indent=1).encode()
        self.folder = (root or cache_root()) / FEATURES / f"{name}-{description_hash(content)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / DESCRIPTION
        if not path.is_file() or path.read_bytes() != content:
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
        with contextlib.suppress(OSError):  # the store may be read-only
            os.utime(path)  # its modification time is the time of last use
        self._remote = RemoteFeatures.find(self.folder.name) if root is None else None

    def path(self, key: str) -> Path:
        """Return the path of a key's array."""
        return self.folder / key[:2] / f"{key}.npy"

    def __contains__(self, key: str) -> bool:
        path = self.path(key)
        is_stored = shape_of(path) is not None
        if self._remote is None:
            return is_stored
        if is_stored and key not in self._remote:  # stored before AFFEKT_FEATURES was set
            self._remote.upload(key, path, self.folder / DESCRIPTION)
        return is_stored or (self._remote.download(key, path) and shape_of(path) is not None)

    def __getitem__(self, key: str) -> NDArray[np.float16]:
        """Return a stored array (frames, dim), memory-mapped. Raises `AffektError` if it is missing or truncated."""
        path = self.path(key)
        if shape_of(path) is None:
            state = "damaged" if path.is_file() else "missing"
            raise AffektError(f"{path} is {state}: run the same command again to recompute it", code="bad_store")
        stored: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        return stored

    def __setitem__(self, key: str, values: NDArray[Any]) -> None:
        """Store an array. Raises `AffektError` for values that are not finite in 16 bits."""
        stored = to_16_bits(values)
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, stored, allow_pickle=False)
        if self._remote:
            self._remote.upload(key, path, self.folder / DESCRIPTION)


def to_16_bits(values: NDArray[Any]) -> NDArray[np.float16]:
    """Return features as 16-bit floats. Raises `AffektError` for values that are not finite in 16 bits."""
    with np.errstate(over="ignore"):
        stored = values.astype(np.float16)
    if not np.isfinite(stored).all():
        raise AffektError("its features are not finite, or exceed 65504, the largest 16-bit float", code="bad_store")
    return stored


def shape_of(path: Path) -> tuple[int, ...] | None:
    """Return the shape of a stored array from its header.

    None if the file is missing, is not an array of 16-bit floats, or is not as long as its header states.
    """
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            complete = file.tell() + prod(shape) * dtype.itemsize == os.fstat(file.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):
        return None
    return shape if complete and dtype == np.float16 else None


def description_hash(content: bytes) -> str:
    """Return the hash of a description's JSON text, as in the folder's name."""
    return hashlib.sha256(content).hexdigest()[:HASH_DIGITS]


class StoredArrays(Sequence[NDArray[np.float16]]):
    """The stored features of a list of keys. Each array is opened on access, since the number of open files is limited."""

    def __init__(self, store: FeatureStore, keys: Sequence[str]) -> None:
        self.store, self.keys = store, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        return self.store[self.keys[index]]


def file_hash(path: Path) -> _Hash:
    """Return the SHA-256 of a file as a hash object that can be updated further. Raises `OSError`."""
    if not stat.S_ISREG(path.stat().st_mode):  # reading a named pipe may never end
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def audio_key(utterance: Utterance, hash_file: Callable[[Path], _Hash] = file_hash) -> str:
    """Return the key of an utterance's audio: the hash of its file's bytes and of the segment's times.

    Args:
        utterance: An utterance with audio.
        hash_file: Returns a file's hash. Pass a cached `file_hash` for several utterances of one file.
    """
    assert utterance.audio is not None
    digest = hash_file(utterance.audio).copy()
    if utterance.start != 0.0 or utterance.end is not None:
        digest.update(f"{utterance.start}-{utterance.end}".encode())
    return digest.hexdigest()
