"""Unpack audio that comes with its sample rate: pairs, and the dictionaries of the library `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.errors import BadAudio

EXPECTED = 'expected {"array": ..., "sampling_rate": ...} or {"bytes": ..., "path": ...}, as `datasets` returns them'


def unpack(source: Any, sample_rate: Any = None) -> tuple[Any, Any]:
    """Return a source as `affekt.audio.read.blocks` reads it, and its sample rate; other sources are returned unchanged.

    Args:
        source: A pair (array, sample_rate); audio as `datasets` returns it: a dictionary {"array", "sampling_rate"} if it is
            decoded, {"bytes", "path"} if it is not, or the decoder object of version 4; or any other source.
        sample_rate: The sample rate in Hz, if it was passed separately.

    Raises:
        BadAudio: The pair or dictionary has other contents, or contradicts `sample_rate`.
    """
    if isinstance(source, tuple):
        source, rate = _unpack_pair(source)
    elif isinstance(source, Mapping):
        source, rate = _unpack_mapping(source)
    elif hasattr(source, "get_all_samples"):
        samples = source.get_all_samples()
        source, rate = _to_array(samples.data), samples.sample_rate
    else:
        return source, sample_rate
    if rate is None:
        return source, sample_rate
    if sample_rate is not None and sample_rate != rate:
        raise BadAudio(f"sample_rate={sample_rate!r}, but the audio comes with the rate {rate!r}", code="not_audio")
    return source, rate


def named_part(source: Any) -> Any:
    """Return the part of a pair or dictionary from which its name is made; other sources are returned unchanged.

    This is the path, if there is one, and otherwise empty bytes or an empty array.
    """
    array = np.zeros(0, np.float32)
    if isinstance(source, tuple):
        return source[0] if source and _is_file(source[0]) else array
    if isinstance(source, Mapping):
        return source.get("path") or (array if source.get("bytes") is None else b"")
    return array if hasattr(source, "get_all_samples") else source


def _unpack_pair(pair: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(pair) != 2:
        raise BadAudio(
            f"a tuple of {len(pair)} is not audio: expected the pair (array, sample_rate), or a single array",
            code="not_audio",
        )
    if isinstance(pair[0], int | float | np.number) and not isinstance(pair[1], int | float | np.number):
        raise BadAudio("the pair is (sample_rate, array): expected (array, sample_rate)", code="not_audio")
    if isinstance(pair[0], Mapping | tuple):
        raise BadAudio(f"the first of the pair is a {type(pair[0]).__name__}: expected an array", code="not_audio")
    return pair[0] if _is_file(pair[0]) else _to_array(pair[0]), pair[1]


def _is_file(source: Any) -> bool:
    return isinstance(source, str | PathLike | bytes | bytearray | memoryview) or hasattr(source, "read")


def _unpack_mapping(mapping: Mapping[str, Any]) -> tuple[Any, Any]:
    if mapping.get("array") is not None:
        if mapping.get("sampling_rate") is None:
            raise BadAudio(f"the dictionary has no 'sampling_rate': {EXPECTED}", code="not_audio")
        return _to_array(mapping["array"]), mapping["sampling_rate"]
    data, path = mapping.get("bytes"), mapping.get("path")
    if isinstance(data, bytes | bytearray | memoryview) or (data is None and path is not None):
        return path if data is None else data, None
    keys = ", ".join(map(repr, mapping)) or "none"
    raise BadAudio(f"the dictionary has no audio (its keys: {keys}): {EXPECTED}", code="not_audio")


def _to_array(values: Any) -> NDArray[Any]:
    """Return an array, a tensor or a list of numbers as an array. Raises `BadAudio`."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadAudio(f"{type(values).__name__} is not an array of samples: {error}", code="not_audio") from error
