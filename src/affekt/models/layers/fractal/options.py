"""The options of fractal attention, which all of its implementations take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from affekt.errors import BadConfig


@dataclass(frozen=True)
class FractalOptions:
    """Heads, windows and scales of fractal attention. Symbols and sections are those of MSTR's paper."""

    heads: int
    factor: int = 3
    """p: frames of a window, and ratio between scales."""
    scales: int = 4
    """L: number of time scales."""
    mask_window_padding: bool = False
    """If true, a softmax ignores the zero frames that fill the last window. The paper's operation count includes them; its
    text does not mention them."""
    dropout: float = 0.0
    """Probability with which an attention weight is dropped; the others are multiplied by 1 / (1 - dropout)."""
    temperature: float | None = None
    """Divisor of the scores; None is the square root of a head's width."""
    upsampling: Literal["interpolate", "repeat"] = "interpolate"
    """How a coarse scale of n frames is up-sampled to T frames. "interpolate": frame i of the result is frame
    floor(i * n / T) of the scale. "repeat": every frame of scale k is repeated `factor**k` times, and the last one up to the
    end."""

    def __post_init__(self) -> None:
        minima = {"heads": 1, "factor": 2, "scales": 1}
        for name, minimum in minima.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < minimum:
                raise BadConfig(f"{name} = {value}: expected a whole number, {minimum} or more")
        if not 0 <= self.dropout < 1:
            raise BadConfig(f"dropout = {self.dropout}: expected a probability, from 0 to below 1")
        if self.temperature is not None and not self.temperature > 0:
            raise BadConfig(f"temperature = {self.temperature}: expected a number above 0")
