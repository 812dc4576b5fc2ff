"""Features on disk: computed once, found again by what they were made of.

ROOT/features/whisper-0123456789ab/description.json    what the feature is: encoder, settings, hash of the weights
ROOT/features/whisper-0123456789ab/ab/abcdef....npy    (frames, dim), or (dim,), named by the hash of audio and segment

Many processes may write at once, on a network disk too: a file is made under a name of its own and renamed when it is
complete, so that under its final name it is whole or not there. What a full disk or a lost server cut off all the same is
shorter than its header says: it counts as not there, and is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import AffektError
from affekt.files import atomic_write
from affekt.utterance import Utterance

if TYPE_CHECKING:
    from hashlib import _Hash

FEATURES = "features"  # the folder below the root
DESCRIPTION = "description.json"
HEXADECIMAL = 12  # digits of a description's hash in its folder's name


def cache_root() -> Path:
    """AFFEKT_CACHE, or the place where the system keeps what can be computed again."""
    if chosen := os.environ.get("AFFEKT_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "affekt"


class FeatureStore:
    """The features of one description. Values are kept in 16 bits; those that 16 bits cannot hold are refused."""

    def __init__(self, name: str, description: Mapping[str, Any], root: Path | None = None) -> None:
        content = json.dumps(description, sort_keys=True, indent=1).encode()
        self.folder = (root or cache_root()) / FEATURES / f"{name}-{description_hash(content)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / DESCRIPTION
        if not place.is_file() or place.read_bytes() != content:
            with atomic_write(place) as temporary:
                temporary.write_bytes(content)
        with contextlib.suppress(OSError):  # somebody else's store, which may only be read
            os.utime(place)  # when it was last used

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def __contains__(self, key: str) -> bool:
        return shape_of(self.path(key)) is not None

    def __getitem__(self, key: str) -> NDArray[np.float16]:
        """(frames, dim), memory-mapped. Raises `AffektError` where it is not there, or not whole."""
        path = self.path(key)
        if shape_of(path) is None:
            state = "damaged" if path.is_file() else "gone"
            raise AffektError(
                f"{path} is {state}: run the same command again, which computes it anew", code="bad_store"
            )
        stored: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        return stored

    def __setitem__(self, key: str, values: NDArray[Any]) -> None:
        """Raises `AffektError` for values that are not finite in 16 bits."""
        with np.errstate(over="ignore"):
            stored = values.astype(np.float16)
        if not np.isfinite(stored).all():
            raise AffektError(
                "its features are not finite, or go beyond 65504, the most that 16 bits hold", code="bad_store"
            )
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, stored, allow_pickle=False)


def shape_of(path: Path) -> tuple[int, ...] | None:
    """The shape of a stored array, from its header; None where there is no file, or not one as long as its header says."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            whole = file.tell() + prod(shape) * dtype.itemsize == os.fstat(file.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):
        return None
    return shape if whole and dtype == np.float16 else None


def description_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:HEXADECIMAL]


class Stored(Sequence[NDArray[np.float16]]):
    """The features under these keys, each opened when it is asked for: a system lends only so many open files."""

    def __init__(self, store: FeatureStore, keys: Sequence[str]) -> None:
        self.store, self.keys = store, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        return self.store[self.keys[index]]


def file_hash(path: Path) -> _Hash:
    """The SHA-256 of a file, which may go on to take in more. Raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def audio_key(utterance: Utterance, content: Callable[[Path], _Hash] = file_hash) -> str:
    """The hash of an utterance's sound: its file's bytes, and which stretch of them.

    content: gives a file's hash; whoever has many utterances of one file keeps what `file_hash` gave.
    """
    assert utterance.audio is not None
    digest = content(utterance.audio).copy()
    if utterance.start != 0.0 or utterance.end is not None:
        digest.update(f"{utterance.start}-{utterance.end}".encode())
    return digest.hexdigest()
