"""Foreign checkpoints as safetensors: the one place where a pickled file is opened."""

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
    """Write the tensors of a foreign checkpoint as safetensors, named by their path in it ("model/conv.weight").

    The one place where a pickled file is opened, with `weights_only`: tensors and plain containers come in, code does not.
    Of fairseq's wav2vec the model's tensors alone are written, by their own names, and beside them config.json, so that
    the feature `wav2vec` can read the folder.
    Returns name -> shape. Raises `BadConfig` for a file that is no checkpoint, or that needs more than that to be read, and
    where another config.json is already there.
    """
    from safetensors.torch import save

    if target.suffix != ".safetensors":
        raise BadConfig(f"{target}: expected a name ending in .safetensors")
    content = _opened(source)
    if wav2vec := _is_wav2vec(content):
        _keep_settings(_arguments(content, source), target.with_name("config.json"))
    found: dict[str, Tensor] = {}
    _gathered(content["model"] if wav2vec else content, "", found)
    if not found:
        raise BadConfig(f"{source} holds no tensor")
    with atomic_write(target) as temporary:
        temporary.write_bytes(save(found, metadata={"format": "pt"}))  # without which transformers refuses it
    return {name: list(tensor.shape) for name, tensor in found.items()}


class _Inert:
    """Stands where a checkpoint has an object of fairseq's that nobody needs: it takes in values and does nothing."""


def _opened(source: Path) -> Any:
    # fairseq keeps its arguments in a Namespace, which holds values and runs nothing, and its old versions keep meters of
    # the training, in whose place ours stand: nothing of fairseq's is imported.
    meters = [(_Inert, f"fairseq.meters.{name}") for name in ("AverageMeter", "StopwatchMeter", "TimeMeter")]
    try:
        with torch.serialization.safe_globals([Namespace, *meters]):
            return torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadConfig(f"{source} does not exist") from None
    except Exception as error:  # torch raises whatever the unpickler meets
        reason = str(error).strip().splitlines()[0]
        raise BadConfig(
            f"{source} cannot be read without running code that it carries, or is damaged: {reason}"
        ) from error


def _is_wav2vec(content: Any) -> bool:
    """Whether it is fairseq's checkpoint of a wav2vec, the first of the name: wav2vec 2.0 has no aggregator."""
    model = content.get("model") if isinstance(content, dict) else None
    return isinstance(model, dict) and any(str(name).startswith("feature_aggregator.") for name in model)


def _arguments(content: Mapping[str, Any], source: Path) -> dict[str, Any]:
    """What fairseq trained it with: since its version 0.10 within cfg, before that in args."""
    found = content.get("args") or (content.get("cfg") or {}).get("model")
    if not isinstance(found, Namespace | dict):
        raise BadConfig(f"{source} does not say how its network is built: expected fairseq's args or cfg")
    return dict(found) if isinstance(found, dict) else vars(found)


def _keep_settings(arguments: Mapping[str, Any], place: Path) -> None:
    from affekt.features.wav2vec import settings_of

    content = json.dumps(settings_of(arguments), indent=1).encode()
    if place.is_file() and place.read_bytes() != content:
        raise BadConfig(f"{place} is another network's: write to a folder of its own")
    with atomic_write(place) as temporary:
        temporary.write_bytes(content)


def _gathered(value: Any, name: str, found: dict[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        found[name or "tensor"] = value.detach().contiguous().clone()
    elif isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in entries:
            _gathered(entry, f"{name}/{key}" if name else str(key), found)
