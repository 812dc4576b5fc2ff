"""Name -> "module:attribute" tables that can be read at a glance. Nothing is imported before it is asked for."""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from affekt.errors import UnknownName


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an error message: the nearest known name, if one is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


class Registry:
    """A read-only table of the things of one kind. `registry[name]` imports and returns the thing."""

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self.table = dict(table)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, name: object) -> bool:
        return name in self.table

    def __getitem__(self, name: str) -> Any:
        if name not in self.table:
            raise UnknownName(
                f"there is no {self.kind} {name!r}{did_you_mean(name, self.table)} (known: {', '.join(self.table)})"
            )
        module, attribute = self.table[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve(self, name: str) -> tuple[Any, Mapping[str, Any]]:
        """The thing of a name, or of NAME-PRESET, and the settings of that preset, which the thing lists in `presets`."""
        base = max((one for one in self.table if name.startswith(f"{one}-")), key=len, default="")
        if name in self.table or not base:
            return self[name], {}
        thing = self[base]
        preset, known = name.removeprefix(f"{base}-"), getattr(thing, "presets", {})
        if preset not in known:
            named = ", ".join(f"{base}-{one}" for one in known) or "none"
            raise UnknownName(
                f"{self.kind} {base!r} has no preset {preset!r}{did_you_mean(preset, known)} (known: {named})"
            )
        return thing, known[preset]

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self.table)})"
