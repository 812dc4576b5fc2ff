"""Features on disk: computed once, found again by what they were made of.

ROOT/whisper-0123456789ab/description.json    what the feature is: encoder, settings, hash of the weights
ROOT/whisper-0123456789ab/ab/abcdef....npy    (frames, dim), named by the hash of the audio file and the segment

Many processes may write at once: a file is made under another name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.utterance import Utterance


def cache_root() -> Path:
    """AFFEKT_CACHE, or the place where the system keeps what can be computed again."""
    if chosen := os.environ.get("AFFEKT_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(base) if base else Path.home() / ".cache") / "affekt"


class FeatureStore:
    """The features of one description. Values are kept in 16 bits."""

    def __init__(self, name: str, description: Mapping[str, Any], root: Path | None = None) -> None:
        text = json.dumps(description, sort_keys=True, indent=1)
        self.folder = (root or cache_root()) / "features" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "description.json", text.encode())

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def __getitem__(self, key: str) -> NDArray[np.float16]:
        """(frames, dim), memory-mapped."""
        stored: NDArray[np.float16] = np.load(self.path(key), mmap_mode="r", allow_pickle=False)
        return stored

    def __setitem__(self, key: str, values: NDArray[Any]) -> None:
        path = self.path(key)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{uuid.uuid4().hex}.npy")
        np.save(temporary, values.astype(np.float16), allow_pickle=False)
        temporary.replace(path)


class Stored(Sequence[NDArray[np.float16]]):
    """The features under these keys, each opened when it is asked for: a system lends only so many open files."""

    def __init__(self, store: FeatureStore, keys: Sequence[str]) -> None:
        self.store, self.keys = store, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        return self.store[self.keys[index]]


def audio_key(utterance: Utterance) -> str:
    """The hash of an utterance's sound: its file's bytes, and which stretch of them."""
    assert utterance.audio is not None
    segment = "" if utterance.start == 0.0 and utterance.end is None else f"{utterance.start}-{utterance.end}"
    return hashlib.sha256(utterance.audio.read_bytes() + segment.encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    if not path.is_file():
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        temporary.write_bytes(content)
        temporary.replace(path)
