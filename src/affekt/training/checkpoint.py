"""State on disk without pickle: tensors as safetensors, everything else as JSON in the same file's header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from affekt.files import atomic_write


def save_state(state: Any, path: Path) -> None:
    """Write nested dicts, lists, numbers, strings and tensors atomically."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    skeleton = _flatten(state, "", tensors)
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, metadata={"state": json.dumps(skeleton)})


def load_state(path: Path) -> Any:
    """Read what `save_state` wrote, bit-identical."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (`file` cannot be iterated)
        skeleton = json.loads(file.metadata()["state"])
    return _unflatten(skeleton, tensors)


def _flatten(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # safetensors refuses tensors that share storage
        return {"tensor": name}
    if isinstance(value, dict):  # as pairs: an optimizer's keys are integers, and JSON's are strings
        return {"dict": [[key, _flatten(entry, f"{name}/{key}", tensors)] for key, entry in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_flatten(entry, f"{name}/{index}", tensors) for index, entry in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    raise TypeError(f"{name}: {type(value).__name__} cannot be stored in a checkpoint")


def _unflatten(skeleton: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unflatten(entry, tensors) for key, entry in content}
    if kind == "list":
        return [_unflatten(entry, tensors) for entry in content]
    return content
