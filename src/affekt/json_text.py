"""JSON text for other programs. It is always valid; `json.dumps` alone would write NaN and Infinity, which are not JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def to_json(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """Return a value as JSON. NaN and infinite numbers, such as the recall of an emotion without utterances, become null.

    Args:
        value: The value, as `json.dumps` takes it.
        indent: Number of spaces of indentation; None for a single line.
        ascii_only: Escape all characters beyond ASCII.
    """
    try:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    except ValueError:
        return json.dumps(_replace(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _replace(value: Any) -> Any:
    """Return a copy of a value with None instead of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_replace_key(key): _replace(entry) for key, entry in value.items()}
    return [_replace(entry) for entry in value] if isinstance(value, list | tuple) else value


def _replace_key(key: Any) -> Any:
    """Return a key as JSON accepts it: a float, which may not be finite, becomes a string."""
    return str(key) if isinstance(key, float) else key
