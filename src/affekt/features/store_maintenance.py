"""List, verify and prune the feature store: the logic of `affekt features`. It does not need torch."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from affekt.errors import BadConfig, UnknownName
from affekt.features.store import DESCRIPTION, FEATURES, HASH_DIGITS, description_hash, shape_of
from affekt.files import cache_root
from affekt.registry import did_you_mean

STORE = re.compile(rf"(.+)-[0-9a-f]{{{HASH_DIGITS}}}")
# Temporary files: of `affekt.files.atomic_write` (.NAME.PID-HEX), and of earlier versions (.HEX or .HEX.npy).
LEFTOVER = re.compile(r"\..+\.\d+-[0-9a-f]{8}|\.[0-9a-f]{32}(\.npy)?")
MIN_AGE = 3600.0  # s: a newer temporary file may still be in use by its writer
DAY = 86_400.0  # s


@dataclass(frozen=True)
class StoredFeature:
    """The stored arrays of one feature: a folder of the store."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def feature(self) -> str:
        """The feature's name without the hash."""
        match = STORE.fullmatch(self.name)
        return match[1] if match else self.name

    @cached_property
    def description(self) -> dict[str, Any] | None:
        """The description; None if it is missing or cannot be read."""
        try:
            description = json.loads((self.folder / DESCRIPTION).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return description if isinstance(description, dict) else None

    @cached_property
    def files(self) -> list[tuple[Path, int]]:
        """The stored arrays and their sizes in bytes."""
        return [(path, size) for path, size, _ in self._contents if not path.name.startswith(".")]

    @cached_property
    def leftovers(self) -> list[tuple[Path, int]]:
        """The temporary files that killed processes left, and their sizes in bytes."""
        latest = time.time() - MIN_AGE
        return [(path, size) for path, size, time in self._contents if LEFTOVER.fullmatch(path.name) and time < latest]

    @cached_property
    def _contents(self) -> list[tuple[Path, int, float]]:
        """Path, size and modification time of the folder's files, without the description."""
        contents = []
        for path in sorted(self.folder.rglob("*")):
            try:
                status = path.lstat()
            except FileNotFoundError:  # another process renamed it meanwhile
                continue
            if path.name != DESCRIPTION and not path.is_dir():
                contents.append((path, status.st_size, status.st_mtime))
        return contents

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(size for _, size, _ in self._contents)

    @cached_property
    def last_used(self) -> float:
        """Time of last use, in seconds since 1970."""
        path = self.folder / DESCRIPTION
        return (path if path.is_file() else self.folder).stat().st_mtime

    def settings(self) -> dict[str, Any]:
        """Return a short form of the description that distinguishes the feature from others of the same name."""
        description = self.description or {}
        settings = description.get("settings", {})
        short = {
            name: value for name, value in settings.items() if not isinstance(value, dict) and value not in ("", None)
        }
        if description.get("copy"):
            short["copy"] = description["copy"]["number"]
        if description.get("device", "cpu") != "cpu":
            short["device"] = description["device"]
        if description.get("batched"):
            short["batched"] = True
        return short | {"threads": description["threads"]} if "threads" in description else short


def stored_features(names: Sequence[str] = (), root: Path | None = None) -> list[StoredFeature]:
    """Return all stored features, or those with these names, with or without the hash. Raises `UnknownName`."""
    path = (root or cache_root()) / FEATURES
    folders = sorted(path.iterdir()) if path.is_dir() else []
    stored = [StoredFeature(folder) for folder in folders if STORE.fullmatch(folder.name) and folder.is_dir()]
    known = {feature.name for feature in stored} | {feature.feature for feature in stored}
    for name in names:
        if name not in known:
            raise UnknownName(
                f"{path} has no feature {name!r}{did_you_mean(name, known)} "
                f"(known: {', '.join(sorted(known)) or 'none'})"
            )
    return [feature for feature in stored if not names or feature.name in names or feature.feature in names]


def verify(stored: StoredFeature) -> Iterator[tuple[Path, str]]:
    """Yield each array's path and its fault ("" for a valid file); before them, the description if it is damaged."""
    description = stored.description
    description_path = stored.folder / DESCRIPTION
    if description is None:
        yield description_path, "is missing or not a JSON object"
    elif not stored.name.endswith(description_hash(description_path.read_bytes())):
        yield description_path, "does not match the hash in the folder's name"
    dim = (description or {}).get("dim")
    for path, _ in stored.files:
        yield path, verify_array(path, dim)


def verify_array(path: Path, dim: int | None) -> str:
    """Return the fault of a stored array, "" if it is valid. `dim` is its expected last dimension."""
    shape = shape_of(path)
    if shape is None:
        return "is not an array of 16-bit floats as long as its header states"
    if len(shape) not in (1, 2) or not shape[0] or (dim is not None and shape[-1] != dim):
        return f"has shape {shape}; expected (frames, {dim or 'dim'}), or ({dim or 'dim'},) without a time axis"
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return "" if np.isfinite(values).all() else "contains values that are not finite"


@dataclass(frozen=True)
class PruningPlan:
    """The files to delete: all files of some features, and leftovers of the others."""

    stored: tuple[StoredFeature, ...]
    leftovers: tuple[tuple[Path, int], ...]

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(feature.size for feature in self.stored) + sum(size for _, size in self.leftovers)

    def delete(self) -> None:
        """Delete the files. A process that still uses one of them computes it again or stops with an error."""
        for feature in self.stored:
            shutil.rmtree(feature.folder)
        for path, _ in self.leftovers:
            path.unlink(missing_ok=True)


def plan_pruning(
    names: Sequence[str] = (), *, older_than: float | None = None, everything: bool = False, root: Path | None = None
) -> PruningPlan:
    """Plan which stored features to delete. Leftovers of killed processes are always deleted.

    Args:
        names: Names of features, with or without the hash.
        older_than: Delete only features not used for this number of days.
        everything: Delete all features instead of those named.
        root: The cache folder, if not the default one.

    Raises:
        BadConfig: The arguments contradict each other.
        UnknownName: No stored feature has one of the names.
    """
    if names and everything:
        raise BadConfig(f"give either names ({', '.join(names)}) or --all, not both")
    if older_than is not None and older_than < 0:
        raise BadConfig(f"--older-than {older_than}: expected a number of days, 0 or more")
    chosen = stored_features(names, root) if names or everything or older_than is not None else []
    latest = time.time() - (older_than or 0.0) * DAY
    stored = tuple(feature for feature in chosen if feature.last_used <= latest)
    deleted = {feature.name for feature in stored}
    others = [feature for feature in stored_features((), root) if feature.name not in deleted]
    return PruningPlan(stored, tuple(leftover for feature in others for leftover in feature.leftovers))
