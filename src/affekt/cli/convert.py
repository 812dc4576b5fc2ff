"""`affekt convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A file that torch.save wrote: .pt, .ckpt, .bin.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .safetensors file to write.")],
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object: name -> shape.")] = False,
) -> None:
    """Take the tensors out of somebody else's checkpoint, without running what it may carry.

    Of fairseq's wav2vec (wav2vec_large.pt) the network's settings too, as config.json beside OUTPUT.
    """
    from affekt.extras import need

    need("torch", extra="train", purpose="reading a checkpoint")
    import json as jsonlib

    from affekt.features.convert import convert_checkpoint

    shapes = convert_checkpoint(source, target)
    print(jsonlib.dumps(shapes) if json else f"{target}: {len(shapes)} tensors")
