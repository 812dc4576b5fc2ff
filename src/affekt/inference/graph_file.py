"""Check model.onnx before onnxruntime reads it."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from affekt.errors import BadBundle

MAX_BYTES = (1 << 31) - 1
"""The limit of a protobuf file."""
EXTERNAL = b"\x0a\x08location"
"""How the key "location" is encoded in a tensor whose data are in another file (onnx.proto, TensorProto.external_data)."""
GRAPH, INITIALIZER, EXTERNAL_DATA = 7, 5, 13
"""Numbers of the fields in onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.external_data."""
MEMORY_INFO = Path("/proc/meminfo")


def check_graph_file(path: Path) -> None:
    """Raise `BadBundle` if an ONNX file is empty, too large for protobuf or the memory, or has its tensors in other files."""
    size, available = path.stat().st_size, available_memory()
    if not size:
        raise BadBundle(f"{path} is empty; copy or make the bundle again")
    if size > MAX_BYTES:
        raise BadBundle(f"{path} has {size} bytes; an ONNX file can have at most {MAX_BYTES}: use a smaller model")
    if available is not None and size > available:
        raise BadBundle(
            f"{path} needs at least {size / 1e6:.0f} MB of memory, but only {available / 1e6:.0f} MB are available: "
            "close other programs or use a smaller model"
        )
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if _has_external_data(data):
            raise BadBundle(
                f"{path} has tensors in other files (external data), which a bundle must not have: save it as a single "
                "file, with onnx.save(model, path, save_as_external_data=False)"
            )


def _has_external_data(data: mmap.mmap) -> bool:
    """Return whether a tensor of a model has external data. The values of the graph's tensors are skipped, which is fast."""
    for field, start, end in _fields(data, 0, len(data)):
        if field != GRAPH:
            if data.find(EXTERNAL, start, end) >= 0:
                return True
            continue
        for part, first, last in _fields(data, start, end):
            if part != INITIALIZER:
                if data.find(EXTERNAL, first, last) >= 0:
                    return True
            elif any(number == EXTERNAL_DATA for number, *_ in _fields(data, first, last)):
                return True
    return False


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of the length-delimited fields of a protobuf message; stop where it is damaged."""
    while start < end:
        key, start = _read_varint(data, start, end)
        if key & 7 == 2:
            length, start = _read_varint(data, start, end)
            yield key >> 3, start, min(start + length, end)
            start += length
        elif key & 7 == 0:
            _, start = _read_varint(data, start, end)
        else:
            start += {1: 8, 5: 4}.get(key & 7, end)  # a type that ONNX does not use: stop


def _read_varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    """Return an integer in groups of seven bits, least significant first, and the position after it."""
    value = 0
    for position in range(start, min(start + 10, end)):
        value |= (data[position] & 0x7F) << 7 * (position - start)
        if data[position] < 0x80:
            return value, position + 1
    return 0, end  # damaged: onnxruntime reports it


def available_memory() -> int | None:
    """Return the memory that is available to new programs, in bytes; None if the system does not state it."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", MEMORY_INFO.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return 1024 * int(match[1]) if match else None
