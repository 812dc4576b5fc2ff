"""Shards of a manifest, their keys, and the columns that are carried over to the results."""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affekt.collection.manifest import Clip
from affekt.json_text import to_json

KEY_DIGITS = 16
"""Hexadecimal digits of a shard's key."""
SHARD_ROWS = 1000
"""Default number of rows of a shard."""


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of a manifest."""

    index: int
    """Position of the shard in the manifest, counted from 0."""
    key: str
    """Hash of the rows and of all settings."""
    num_rows: int
    content: bytes
    """The rows as compressed JSON."""

    @classmethod
    def make(cls, index: int, clips: Sequence[Clip], settings: Mapping[str, Any]) -> Shard:
        """Return the shard that consists of some clips.

        Args:
            index: Position of the shard in the manifest, counted from 0.
            clips: The rows.
            settings: Everything else that the results depend on.
        """
        text = to_json([[clip.audio, clip.start, clip.end, clip.carried] for clip in clips])
        digest = hashlib.sha256(f"{to_json(dict(sorted(settings.items())))}\n{text}".encode())
        return cls(index, digest.hexdigest()[:KEY_DIGITS], len(clips), zlib.compress(text.encode(), 6))

    def clips(self) -> list[Clip]:
        """Return the rows."""
        return [Clip(*row) for row in json.loads(zlib.decompress(self.content))]

    def first_rows(self, num_rows: int, settings: Mapping[str, Any]) -> Shard:
        """Return a shard with only the first `num_rows` rows of this one."""
        return self.make(self.index, self.clips()[:num_rows], settings)


def divide(clips: Iterable[Clip], num_rows: int, settings: Mapping[str, Any]) -> Iterable[tuple[Shard, list[Clip]]]:
    """Yield the shards of a manifest, each with its clips; the last one may have fewer rows than the others."""
    clips = iter(clips)
    for index in itertools.count():
        rows = list(itertools.islice(clips, num_rows))
        if not rows:
            return
        yield Shard.make(index, rows, settings), rows


class Columns:
    """The columns that are carried over to the results, with the kinds of their values.

    If the kind of a column is not known in advance, it is the narrowest kind that fits all values of the column.

    Args:
        kinds: Column -> kind, for the columns whose kind is known in advance.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._known = dict(kinds)
        self._found: dict[str, str] = {}

    def add(self, clips: Iterable[Clip]) -> None:
        """Update the kinds so that they fit the values of these clips."""
        for clip in clips:
            for name, value in clip.carried.items():
                if name not in self._known:
                    self._found[name] = _widen(self._found.get(name), value)

    def kinds(self) -> dict[str, str]:
        """Return column -> kind: "text", "integer", "number", "boolean" or "nested"."""
        return {name: kind or "text" for name, kind in {**self._known, **self._found}.items()}


def _widen(kind: str | None, value: Any) -> str:
    """Return the kind that fits the earlier values of a column, of this kind, and a further value; "" if all are None."""
    if value is None:
        return kind or ""
    if isinstance(value, bool):
        new = "boolean"
    elif isinstance(value, int):
        new = "integer" if -(2**63) <= value < 2**63 else "nested"
    else:
        new = "number" if isinstance(value, float) else "text" if isinstance(value, str) else "nested"
    if not kind or kind == new:
        return new
    return "number" if {kind, new} == {"integer", "number"} else "nested"
