"""What fractal attention does besides its inputs: one value that its formulations all take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from affekt.errors import BadConfig


@dataclass(frozen=True)
class FractalOptions:
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

    def __post_init__(self) -> None:
        least = {"heads": 1, "factor": 2, "scales": 1}
        for name, number in least.items():
            given = getattr(self, name)
            if not isinstance(given, int) or given < number:
                raise BadConfig(f"{name} = {given}: expected a whole number, {number} or more")
        if not 0 <= self.dropout < 1:
            raise BadConfig(f"dropout = {self.dropout}: expected a share, from 0 to below 1")
        if self.temperature is not None and not self.temperature > 0:
            raise BadConfig(f"temperature = {self.temperature}: expected a number above 0")
