"""`affekt convert`: convert a PyTorch checkpoint to safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A file written by torch.save: .pt, .ckpt or .bin.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .safetensors file to write.")],
    json: Annotated[bool, typer.Option("--json", help="Print the tensors' names and shapes as a JSON object.")] = False,
) -> None:
    """Convert a PyTorch checkpoint to safetensors.

    Code that the checkpoint may contain is not executed.

    For fairseq's wav2vec (wav2vec_large.pt), config.json with the network's settings is also written next to OUTPUT.
    """
    from affekt.extras import need

    need("torch", extra="train", purpose="reading a checkpoint")
    from affekt.features.convert import convert_checkpoint
    from affekt.json_text import to_json

    shapes = convert_checkpoint(source, target)
    print(to_json(shapes) if json else f"{target}: {len(shapes)} tensors")
