"""Recipe files: find them by name, apply `extends`, and read them as settings.

A recipe that has `extends = "NAME"` contains only what differs from the recipe NAME, a shipped recipe or a file:

- Tables are merged key by key. A table with another `name`, of a model or a feature for example, replaces the whole table,
  because the settings of the one are not those of the other.
- `drop = ["fusion", "model.hidden"]` leaves out settings of the extended recipe, and assumptions about them.
- `[[assumptions]]` are added to those of the extended recipe; one with the same `setting` replaces it.
- `[published]` is not inherited: its values belong to the row of a table that the extended recipe reproduces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from affekt.config import decode, override, read_toml
from affekt.errors import BadConfig
from affekt.registry import did_you_mean

Settings = TypeVar("Settings")

RECIPES = Path(__file__).parent / "recipes"
SEARCHES = RECIPES / "searches"
COMMANDS = {RECIPES: "train", SEARCHES: "search"}
"""Folder of shipped recipes -> the command that runs them."""


def shipped_files(folder: Path) -> dict[str, Path]:
    """Return the TOML files inside the package by name: those of a folder, and those below it in papers/PAPER/."""
    paths = [path for pattern in ("*.toml", "papers/*/*.toml") for path in folder.glob(pattern)]
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def load_settings(
    kind: type[Settings], label: str, shipped_dir: Path, source: str, assignments: Sequence[str] | None = None
) -> Settings:
    """Load a dataclass from a TOML file, or by the name of one inside the package, and apply `key=value` assignments.

    Args:
        kind: The dataclass.
        label: What the file contains, for error messages, such as "recipe".
        shipped_dir: The folder of the files inside the package.
        source: A path, or the name of a shipped file without ".toml".
        assignments: Settings to change.

    Raises:
        BadConfig: There is no such file, it has unknown keys or invalid values, or it extends itself.
    """
    path = find_file(label, shipped_dir, source)
    return decode(kind, override(read_extended(path, label, shipped_dir), assignments or []), str(path))


def find_file(label: str, shipped_dir: Path, source: str, *, beside: Path = Path()) -> Path:
    """Return the path of a shipped file by its name, or of another file. Raises `BadConfig` if there is none.

    Args:
        label: What the file contains, for error messages.
        shipped_dir: The folder of the files inside the package.
        source: A path, or the name of a shipped file.
        beside: The folder that a relative path refers to.
    """
    shipped = shipped_files(shipped_dir)
    path = shipped.get(source, beside / source)
    if not path.is_file():
        for folder, command in COMMANDS.items():
            if source in shipped_files(folder):
                raise BadConfig(f"{source!r} is no {label}, but a recipe for `affekt {command} {source}`")
        # The recipes of the papers are too many for a message; `affekt recipes` lists them.
        names = ", ".join(sorted(path.stem for path in shipped_dir.glob("*.toml")))
        raise BadConfig(f"{label} {source!r} not found{did_you_mean(source, shipped)} (shipped: {names})")
    return path


def read_extended(path: Path, label: str, shipped_dir: Path, chain: Sequence[Path] = ()) -> dict[str, Any]:
    """Read a TOML file together with the files that it extends.

    Args:
        path: The file.
        label: What the file contains, for error messages.
        shipped_dir: The folder of the shipped files that it may extend by their names.
        chain: The files that extend this one, the first one first.

    Raises:
        BadConfig: A file does not exist, is not TOML, or extends itself.
    """
    if path.resolve() in [other.resolve() for other in chain]:
        names = " extends ".join(other.stem for other in (*chain, path))
        raise BadConfig(f"{chain[0]} extends itself: {names}; remove one `extends`")
    own = read_toml(path)
    parent, dropped = own.pop("extends", None), own.pop("drop", [])
    if parent is None and not dropped:
        return own
    if not isinstance(parent, str):
        raise BadConfig(f"{path}: extends = {parent!r}: expected the name of a {label}, or a path")
    if not isinstance(dropped, list) or not all(isinstance(key, str) for key in dropped):
        raise BadConfig(f"{path}: drop = {dropped!r}: expected a list of keys, such as drop = ['model.hidden']")
    try:
        base = read_extended(
            find_file(label, shipped_dir, parent, beside=path.parent), label, shipped_dir, (*chain, path)
        )
    except BadConfig as error:
        if chain:
            raise
        raise BadConfig(f"{path}, extends: {error}") from error
    for key in dropped:
        base = _without(base, key, path)
    return _extend(base, own)


def _extend(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a recipe that extends another one."""
    merged = _merge({name: value for name, value in base.items() if name != "published"}, own)
    if "assumptions" in base and "assumptions" in own:
        by_setting = {entry.get("setting"): entry for entry in (*base["assumptions"], *own["assumptions"])}
        merged["assumptions"] = list(by_setting.values())
    return merged


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; a table with another `name` replaces the whole table."""
    merged = dict(base)
    for key, value in own.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and _same_name(before, value):
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged


def _same_name(base: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    return bool(own.get("name", base.get("name")) == base.get("name"))


def _without(settings: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Return settings without a key, such as "model.hidden", and without the assumptions about it."""
    result, removed = _remove(settings, key.split("."))
    assumptions = settings.get("assumptions", [])
    kept = [entry for entry in assumptions if not f"{entry.get('setting')}.".startswith(f"{key}.")]
    if not removed and len(kept) == len(assumptions):
        raise BadConfig(f"{path}, drop: the extended recipe has no {key}")
    return {**result, "assumptions": kept} if assumptions else result


def _remove(settings: Mapping[str, Any], keys: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """Return settings without a nested key, and whether there was one."""
    first, *rest = keys
    if first not in settings or (rest and not isinstance(settings[first], Mapping)):
        return dict(settings), False
    if not rest:
        return {name: value for name, value in settings.items() if name != first}, True
    inner, removed = _remove(settings[first], rest)
    return {**settings, first: inner}, removed
