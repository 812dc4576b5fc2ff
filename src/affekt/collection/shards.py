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
    """Consecutive rows of a manifest, compressed."""

    index: int
    key: str
    num_rows: int
    content: bytes

    @classmethod
    def make(cls, index: int, clips: Sequence[Clip], settings: Mapping[str, Any]) -> Shard:
        """Return the shard of some clips.

        Args:
            index: Its position in the manifest, counted from 0.
            clips: The rows.
            settings: Everything else that the result depends on.
        """
        text = to_json([[clip.audio, clip.start, clip.end, clip.carried] for clip in clips])
        digest = hashlib.sha256(f"{to_json(dict(sorted(settings.items())))}\n{text}".encode())
        return cls(index, digest.hexdigest()[:KEY_DIGITS], len(clips), zlib.compress(text.encode(), 6))

    def clips(self) -> list[Clip]:
        """Return the rows."""
        return [Clip(*row) for row in json.loads(zlib.decompress(self.content))]

    def first(self, num_rows: int, settings: Mapping[str, Any]) -> Shard:
        """Return the shard of the first rows."""
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

    A column whose kind is not known before its values are read has the narrowest kind that fits all of them.

    Args:
        kinds: Column -> kind, as far as it is known.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._known = dict(kinds)
        self._found: dict[str, str] = {}

    def add(self, clips: Iterable[Clip]) -> None:
        """Take the values of some clips into account."""
        for clip in clips:
            for name, value in clip.carried.items():
                if name not in self._known:
                    self._found[name] = _join(self._found.get(name), value)

    def kinds(self) -> dict[str, str]:
        """Return column -> kind: "text", "integer", "number", "boolean" or "nested"."""
        return {name: kind or "text" for name, kind in {**self._known, **self._found}.items()}


def _join(kind: str | None, value: Any) -> str:
    """Return the kind of a column with a further value; "" if all values are missing."""
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
