"""What fractal attention does besides its inputs: one value that its formulations all take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FractalRules:
    """How windows, scales and heads lie. Sections are of MSTR's paper; what it leaves open says so.

    factor: p, frames of a window and ratio between scales. scales: L.
    mask_window_padding: whether the zero frames that fill up the last window are kept out of its softmax. The paper's
        operation count includes them and its text is silent.
    dropout: share of the attention weights that are dropped, the others growing by 1 / (1 - dropout).
    temperature: what the scores are divided by; None is the square root of a head's width.
    upsampling: "interpolate", frame i of T taking frame floor(i * n / T) of n; "repeat", every frame `factor**k` times, then
        the last one to the end.
    """

    heads: int
    factor: int = 3
    scales: int = 4
    mask_window_padding: bool = False
    dropout: float = 0.0
    temperature: float | None = None
    upsampling: Literal["interpolate", "repeat"] = "interpolate"
