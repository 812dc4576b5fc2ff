"""What is in the store, whether it is whole, and what may go: the logic of `affekt features`. Nothing here needs torch."""

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
from affekt.features.store import DESCRIPTION, FEATURES, HEXADECIMAL, cache_root, description_hash, shape_of
from affekt.registry import did_you_mean

STORE = re.compile(rf"(.+)-[0-9a-f]{{{HEXADECIMAL}}}")
LEFTOVER = re.compile(r"\.[0-9a-f]{32}(\.npy)?")
WRITING = 3600.0  # s: an unfinished file that is younger may still be being written
DAY = 86_400.0  # s


@dataclass(frozen=True)
class StoredFeature:
    """One folder of the store, as it is found on disk."""

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
        """None where there is none that can be read."""
        try:
            found = json.loads((self.folder / DESCRIPTION).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    @cached_property
    def files(self) -> list[tuple[Path, int]]:
        """The stored arrays and their sizes in bytes."""
        return [(path, size) for path, size, _ in self._found if not path.name.startswith(".")]

    @cached_property
    def leftovers(self) -> list[tuple[Path, int]]:
        """What writers that were killed left, and its sizes in bytes."""
        past = time.time() - WRITING
        return [(path, size) for path, size, at in self._found if LEFTOVER.fullmatch(path.name) and at < past]

    @cached_property
    def _found(self) -> list[tuple[Path, int, float]]:
        """Path, size and time of what is in the folder, but for its description."""
        found = []
        for path in sorted(self.folder.rglob("*")):
            try:
                status = path.lstat()
            except FileNotFoundError:  # another process gave it its final name
                continue
            if path.name != DESCRIPTION and not path.is_dir():
                found.append((path, status.st_size, status.st_mtime))
        return found

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(size for _, size, _ in self._found)

    @cached_property
    def used(self) -> float:
        """When it was last used, in seconds since 1970."""
        place = self.folder / DESCRIPTION
        return (place if place.is_file() else self.folder).stat().st_mtime

    def settings(self) -> dict[str, Any]:
        """What tells it from others in short: settings, copy, and how it was computed. The description says all."""
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
    """All that is stored, or what goes by these names, with the hash or without. Raises `UnknownName`."""
    place = (root or cache_root()) / FEATURES
    folders = sorted(place.iterdir()) if place.is_dir() else []
    found = [StoredFeature(folder) for folder in folders if STORE.fullmatch(folder.name) and folder.is_dir()]
    known = {one.name for one in found} | {one.feature for one in found}
    for name in names:
        if name not in known:
            raise UnknownName(
                f"there is nothing stored under {name!r} in {place}{did_you_mean(name, known)} "
                f"(known: {', '.join(sorted(known)) or 'nothing'})"
            )
    return [one for one in found if not names or one.name in names or one.feature in names]


def damages(stored: StoredFeature) -> Iterator[tuple[Path, str]]:
    """File by file what is wrong with it, "" where nothing is; the description comes first."""
    description = stored.description
    place = stored.folder / DESCRIPTION
    if description is None:
        yield place, "is missing, or is no JSON object"
    elif not stored.name.endswith(description_hash(place.read_bytes())):
        yield place, "is not the one that the folder is named after"
    dim = (description or {}).get("dim")
    for path, _ in stored.files:
        yield path, damage(path, dim)


def damage(path: Path, dim: int | None) -> str:
    """What is wrong with a stored array, "" where nothing is; `dim` is what its description promises."""
    shape = shape_of(path)
    if shape is None:
        return "is not an array of 16-bit numbers as long as its header says"
    if len(shape) not in (1, 2) or not shape[0] or (dim is not None and shape[-1] != dim):
        return f"has shape {shape}; expected (frames, {dim or 'dim'}), or ({dim or 'dim'},) without time"
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return "" if np.isfinite(values).all() else "holds values that are not finite"


@dataclass(frozen=True)
class Pruning:
    """What goes: whole folders, and the leftovers of the others."""

    stored: tuple[StoredFeature, ...]
    leftovers: tuple[tuple[Path, int], ...]

    @property
    def size(self) -> int:
        """Bytes that become free."""
        return sum(one.size for one in self.stored) + sum(size for _, size in self.leftovers)

    def carry_out(self) -> None:
        """Delete. What is in use by another process is then computed again by it, or missed: that is said, not hidden."""
        for one in self.stored:
            shutil.rmtree(one.folder)
        for path, _ in self.leftovers:
            path.unlink(missing_ok=True)


def plan(
    names: Sequence[str] = (), *, older_than: float | None = None, everything: bool = False, root: Path | None = None
) -> Pruning:
    """What may go: the named or all, and of these those not used for `older_than` days; leftovers always.

    Raises `BadConfig` for options that contradict one another, `UnknownName` for a name that nothing has.
    """
    if names and everything:
        raise BadConfig(f"either names ({', '.join(names)}) or --all, not both")
    if older_than is not None and older_than < 0:
        raise BadConfig(f"--older-than {older_than}: expected days, 0 or more")
    chosen = stored_features(names, root) if names or everything or older_than is not None else []
    latest = time.time() - (older_than or 0.0) * DAY
    going = tuple(one for one in chosen if one.used <= latest)
    gone = {one.name for one in going}
    return Pruning(going, tuple(x for one in stored_features((), root) if one.name not in gone for x in one.leftovers))
