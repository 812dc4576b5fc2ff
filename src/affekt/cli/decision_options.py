"""The options that decide which emotion a row has, if any (`affekt.inference.decision`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from affekt.errors import BadConfig

Threshold = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        metavar="P",
        help="Name no emotion, with the status unknown, if the largest probability is below P; the model card says how often "
        "that is.",
    ),
]
ChosenEmotions = Annotated[
    str,
    typer.Option(
        "--emotions",
        metavar="EMOTION,...",
        help="Choose from these emotions only, such as angry,happy,neutral; their probabilities then sum to 1.",
    ),
]
ErrorRate = Annotated[
    float | None,
    typer.Option(
        "--error-rate",
        metavar="FRACTION",
        help="Also give each result a set of emotions that lacks the right one in this fraction of clips like those of the "
        "calibration, such as 0.1.",
    ),
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="With --error-rate: a calibration made by affekt calibrate; default: the model's test subset.",
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        "--top", metavar="K", min=1, help="Print only the K most probable emotions; --json and --output have all."
    ),
]


def parse_emotions(text: str) -> tuple[str, ...]:
    """Parse the value of --emotions; () for ""."""
    emotions = tuple(name.strip() for name in text.split(",")) if text else ()
    if "" in emotions:
        raise BadConfig(f"--emotions {text!r}: expected names separated by commas, such as angry,happy,neutral")
    return emotions
