"""Settings: frozen dataclasses, stored as TOML. An unknown key is an error."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from affekt.errors import BadConfig, UnknownName
from affekt.extras import need
from affekt.registry import Registry, did_you_mean

Settings = TypeVar("Settings")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises `BadConfig` if it does not exist or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfig(f"{path} does not exist") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # not TOML, not UTF-8, an integer of thousands of digits, or deep nesting
        raise BadConfig(f"{path} is not TOML: {error}") from error


def is_outdated(config: Mapping[str, Any]) -> bool:
    """Return whether the configuration of a run, a search or a bundle has the keys of an earlier version."""
    return not {"encoder", "streams", "branches"}.isdisjoint(config)


def to_toml(settings: Mapping[str, Any]) -> str:
    """Return settings as TOML text, without those that are None, which TOML cannot express."""
    tomli_w = need("tomli_w", extra="train", purpose="writing a configuration")
    return str(tomli_w.dumps(_without_none(settings)))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_without_none(entry) for entry in value]
    return value


def add_missing(settings: Any, complete: Any) -> Any:
    """Return settings with the keys that they lack and `complete` has, in all tables, also in lists of the same length."""
    if isinstance(settings, Mapping) and isinstance(complete, Mapping):
        missing = {key: value for key, value in complete.items() if key not in settings}
        return {**{key: add_missing(value, complete.get(key)) for key, value in settings.items()}, **missing}
    if isinstance(settings, list) and isinstance(complete, list | tuple) and len(settings) == len(complete):
        return [add_missing(entry, other) for entry, other in zip(settings, complete, strict=True)]
    return settings


def encode(settings: Any) -> dict[str, Any]:
    """Return a dataclass as a mapping for `decode`, with all settings including defaults."""
    builtins: dict[str, Any] = msgspec.to_builtins(dataclasses.asdict(settings))
    return builtins


def decode(kind: type[Settings], data: Mapping[str, Any], where: str) -> Settings:
    """Build a dataclass from a mapping.

    A dataclass may declare `renamed: ClassVar[Mapping[str, str]]`, its former keys and their present names, and
    `renamed_values`, the same for the values of each key. A former name is an error that states the present one.

    Args:
        kind: The dataclass.
        data: Its settings, as read from TOML or JSON.
        where: What the settings belong to, for error messages: a file's name, for example.

    Raises:
        BadConfig: A key is unknown, missing or was renamed, or a value has the wrong type. The message names it.
    """
    _check_keys(kind, data, where)
    try:
        return msgspec.convert(dict(data), kind, strict=True)
    except ValueError as error:  # msgspec's own errors are ValueErrors, and so are those of a dataclass's own checks
        raise BadConfig(f"{where}: {error}{_choices(kind, str(error))}") from error


def _choices(kind: Any, message: str) -> str:
    """Return the end of an error message that lists the allowed values, if msgspec reports an invalid choice."""
    match = re.search(r"at `\$\.(\w+)`$", message)
    if not match or not message.startswith("Invalid enum"):
        return ""
    hint = get_type_hints(kind)[match[1]]
    literals = [option for option in (hint, *get_args(hint)) if get_origin(option) is Literal]
    choices = [choice for literal in literals for choice in get_args(literal)]
    return f": expected {', '.join(map(repr, choices))}" if choices else ""


def _check_keys(hint: Any, value: Any, where: str) -> None:
    """Raise `BadConfig` for an unknown key of a dataclass, or of one nested in it, in a list, a table or a union."""
    if isinstance(value, list):
        for argument in get_args(hint):
            for number, entry in enumerate(value, start=1):
                _check_keys(argument, entry, f"{where}, entry {number}")
    elif isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
        known = {field.name for field in dataclasses.fields(hint)}
        hints = get_type_hints(hint)
        for key, entry in value.items():
            if key not in known:
                raise BadConfig(f"{where}: {_unknown_key(key, known, getattr(hint, 'renamed', {}))}")
            new_value = getattr(hint, "renamed_values", {}).get(key, {}).get(entry) if isinstance(entry, str) else None
            if new_value is not None:
                raise BadConfig(f"{where}: the value {entry!r} of {key} was renamed to {new_value!r}")
            _check_keys(hints[key], entry, f"{where}, {key}")
    elif isinstance(value, Mapping) and get_origin(hint) in (dict, Mapping):
        for key, entry in value.items():
            _check_keys(get_args(hint)[1], entry, f"{where}, {key}")
    elif isinstance(value, Mapping):
        for argument in get_args(hint):
            _check_keys(argument, value, where)


def _unknown_key(key: str, known: Collection[str], renamed: Mapping[str, str]) -> str:
    if key in renamed:
        return f"{key!r} was renamed to {renamed[key]!r}"
    return f"unknown key {key!r}{did_you_mean(key, known)} (known: {', '.join(sorted(known))})"


def decode_named(registry: Registry, section: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """Return the class and the settings of a section `{name = "mstr", ...}`.

    The name may include a preset ("tdfnet-small"), whose settings the other keys override. The settings are an instance of
    the class's `Config`, or of the class itself if it has none (a protocol is a dataclass of its own settings).

    Raises:
        BadConfig: The name or a key is unknown, or a value is invalid.
    """
    if not isinstance(section.get("name"), str):
        raise BadConfig(f"{where}: needs the key 'name', the name of a {registry.kind} (known: {', '.join(registry)})")
    try:
        entry, preset = registry.resolve(section["name"])
    except UnknownName as error:
        raise BadConfig(f"{where}: {error}") from error
    settings = {**preset, **{key: value for key, value in section.items() if key != "name"}}
    return entry, decode(getattr(entry, "Config", entry), settings, where)


def override(data: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return the data with `a.b=value` assignments applied; a value that is not TOML is a plain string.

    Raises:
        BadConfig: An assignment has no "=", or does not fit the data.
    """
    result = dict(data)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise BadConfig(f"{assignment!r}: expected key=value, such as training.epochs=5")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *parents, last = path.strip().split(".")
        section = result
        for parent in parents:
            if not isinstance(section.get(parent, {}), Mapping):
                raise BadConfig(f"{assignment!r}: {parent} is not a section")
            section[parent] = dict(section.get(parent, {}))
            section = section[parent]
        section[last] = value
    return result
