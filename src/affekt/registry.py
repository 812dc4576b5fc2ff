"""Registries: readable tables of name -> "module:attribute". A module is imported when its entry is first looked up."""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from affekt.errors import UnknownName


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message that suggests the closest known name; "" if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


class Registry:
    """A read-only table of classes or objects of one kind. `registry[name]` imports and returns the entry.

    Args:
        kind: The word for an entry in messages.
        table: Name -> "module:attribute", where the entry is.
        renamed: Former name -> present name.
    """

    def __init__(self, kind: str, table: Mapping[str, str], *, renamed: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self.table = dict(table)
        self.renamed = dict(renamed or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, name: object) -> bool:
        return name in self.table

    def __getitem__(self, name: str) -> Any:
        if name in self.renamed:
            raise UnknownName(f"the {self.kind} {name!r} was renamed to {self.renamed[name]!r}")
        if name not in self.table:
            raise UnknownName(
                f"there is no {self.kind} {name!r}{did_you_mean(name, self.table)} (known: {', '.join(self.table)})"
            )
        module, attribute = self.table[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve(self, name: str) -> tuple[Any, Mapping[str, Any]]:
        """Return the entry of NAME or NAME-PRESET, and the settings of the preset ({} without one).

        The presets are the entry's attribute `presets`, a mapping from their names to settings.
        """
        base = max((known for known in self.table if name.startswith(f"{known}-")), key=len, default="")
        if name in self.table or not base:
            return self[name], {}
        entry = self[base]
        preset, presets = name.removeprefix(f"{base}-"), getattr(entry, "presets", {})
        if preset not in presets:
            names = ", ".join(f"{base}-{other}" for other in presets) or "none"
            raise UnknownName(
                f"{self.kind} {base!r} has no preset {preset!r}{did_you_mean(preset, presets)} (known: {names})"
            )
        return entry, presets[preset]

    def __repr__(self) -> str:
        return f"Registry({self.kind}: {', '.join(self.table)})"
