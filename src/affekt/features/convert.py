"""Convert checkpoints of other libraries to safetensors. This is the only module that opens a pickled file."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affekt.errors import BadConfig
from affekt.files import atomic_write


def convert_checkpoint(source: Path, target: Path) -> dict[str, list[int]]:
    """Write the tensors of another library's checkpoint as safetensors. A tensor's name is its path in the checkpoint, for
    example "model/conv.weight".

    The pickled file is opened with `weights_only`, which loads tensors and plain containers and runs no code. For fairseq's
    wav2vec, only the model's tensors are written, under their own names, and a config.json next to them, so that the
    feature `wav2vec` can load the folder.

    Returns:
        The shape of each tensor by its name.

    Raises:
        BadConfig: The file is not a checkpoint or cannot be loaded without running code, or the target's folder has the
            config.json of another network.
    """
    from safetensors.torch import save

    if target.suffix != ".safetensors":
        raise BadConfig(f"{target}: expected a name ending in .safetensors")
    content = _load(source)
    if wav2vec := _is_wav2vec(content):
        _write_settings(_arguments(content, source), target.with_name("config.json"))
    tensors: dict[str, Tensor] = {}
    _collect_tensors(content["model"] if wav2vec else content, "", tensors)
    if not tensors:
        raise BadConfig(f"{source} contains no tensor")
    with atomic_write(target) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))  # transformers requires the metadata
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


class _Placeholder:
    """A stand-in for objects of fairseq's classes in a checkpoint, which are not needed. It only stores attributes."""


def _load(source: Path) -> Any:
    # fairseq stores its arguments in a Namespace, which contains only values. Its old versions also store training meters,
    # which are replaced by placeholders, so fairseq is not imported.
    meters = [(_Placeholder, f"fairseq.meters.{name}") for name in ("AverageMeter", "StopwatchMeter", "TimeMeter")]
    try:
        with torch.serialization.safe_globals([Namespace, *meters]):
            return torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadConfig(f"{source} does not exist") from None
    except Exception as error:  # torch and its unpickler raise various exceptions
        reason = str(error).strip().splitlines()[0]
        raise BadConfig(
            f"{source} cannot be loaded without running code that it contains, or is damaged: {reason}"
        ) from error


def _is_wav2vec(content: Any) -> bool:
    """Return whether the content is fairseq's checkpoint of the first wav2vec; wav2vec 2.0 has no aggregator."""
    model = content.get("model") if isinstance(content, dict) else None
    return isinstance(model, dict) and any(str(name).startswith("feature_aggregator.") for name in model)


def _arguments(content: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """Return fairseq's training arguments: under `cfg` since fairseq 0.10, under `args` before."""
    arguments = content.get("args") or (content.get("cfg") or {}).get("model")
    if not isinstance(arguments, Namespace | dict):
        raise BadConfig(f"{source} does not contain its network's settings: expected fairseq's args or cfg")
    return dict(arguments) if isinstance(arguments, dict) else vars(arguments)


def _write_settings(arguments: Mapping[str, Any], path: Path) -> None:
    """Write config.json from fairseq's arguments."""
    from affekt.features.wav2vec import build_settings

    content = json.dumps(build_settings(arguments), indent=1).encode()
    if path.is_file() and path.read_bytes() != content:
        raise BadConfig(f"{path} belongs to another network: choose another folder")
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _collect_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> None:
    """Add all tensors in nested containers to `tensors`, named by their path."""
    if isinstance(value, Tensor):
        tensors[name or "tensor"] = value.detach().contiguous().clone()
    elif isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            _collect_tensors(entry, f"{name}/{key}" if name else str(key), tensors)
