"""Settings are frozen dataclasses; TOML is how they are written down. An unknown key is an error, never ignored."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from affekt.errors import BadConfig
from affekt.extras import need
from affekt.registry import Registry, did_you_mean

Settings = TypeVar("Settings")


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadConfig(f"{path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not TOML: {error}") from error


def to_toml(settings: Mapping[str, Any]) -> str:
    """TOML text. None has no place in TOML: a setting that may be absent is left out."""
    tomli_w = need("tomli_w", extra="train", purpose="writing a configuration")
    return str(tomli_w.dumps(_without_none(settings)))


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list | tuple):
        return [_without_none(entry) for entry in value]
    return value


def encode(settings: Any) -> dict[str, Any]:
    """A dataclass as a mapping that `decode` reads back."""
    builtins: dict[str, Any] = msgspec.to_builtins(settings)
    return builtins


def decode(kind: type[Settings], data: Mapping[str, Any], where: str) -> Settings:
    """A dataclass from a mapping: unknown keys, missing keys and wrong types raise `BadConfig` that names them."""
    _check_keys(kind, data, where)
    try:
        return msgspec.convert(dict(data), kind, strict=True)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{where}: {error}") from error
    except ValueError as error:
        raise BadConfig(f"{where}: {error}") from error


def _check_keys(kind: Any, data: Mapping[str, Any], where: str) -> None:
    known = {field.name for field in dataclasses.fields(kind)}
    hints = get_type_hints(kind)
    for key, value in data.items():
        if key not in known:
            raise BadConfig(
                f"{where}: unknown key {key!r}{did_you_mean(key, known)} (known: {', '.join(sorted(known))})"
            )
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hints[key]):
            _check_keys(hints[key], value, f"{where}, {key}")


def decode_named(registry: Registry, section: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """A section `{name = "mstr", ...}`: the registry's class of that name and its `Config` made of the other keys."""
    if not isinstance(section.get("name"), str):
        raise BadConfig(f"{where}: needs name, the {registry.kind}'s (known: {', '.join(registry)})")
    if section["name"] not in registry:
        raise BadConfig(
            f"{where}: there is no {registry.kind} {section['name']!r}{did_you_mean(section['name'], registry)} "
            f"(known: {', '.join(registry)})"
        )
    thing = registry[section["name"]]
    rest = {key: value for key, value in section.items() if key != "name"}
    return thing, decode(thing.Config, rest, where)


def override(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """The data with `a.b=value` assignments applied; a value is TOML, or a plain word."""
    result = tomllib.loads("")
    result.update(data)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise BadConfig(f"{assignment!r}: expected key=value, such as training.epochs=5")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *parents, last = path.strip().split(".")
        level = result
        for parent in parents:
            level[parent] = dict(level.get(parent, {}))
            level = level[parent]
        level[last] = value
    return result
