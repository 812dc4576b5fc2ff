"""What every feature is: a network from waveform to a stream, with what must be known of it before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.batch import Stream


class Feature(nn.Module):
    """The contract of the registry `affekt.features.features`.

    A subclass names its frozen dataclass of settings in `Config`, is built from it, and sets the attributes below.
    """

    Config: ClassVar[type[Any]]
    version: ClassVar[int] = 1  # raised when the code changes what comes out: stored features are then made anew
    notice: ClassVar[Path | None] = None  # a licence that goes wherever the weights go
    sample_rate: ClassVar[int]  # Hz, of the waveform
    frame_rate: ClassVar[float]  # frames per second, of the stream

    config: Any
    dim: int  # features of a frame
    parts: int = 1  # states of the encoder among them, one after the other

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> Feature:
        """With the weights of a folder; None for a feature that has none. Raises `BadConfig`."""
        raise NotImplementedError

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """`lengths` in samples, where the waveforms are padded (with zeros)."""
        raise NotImplementedError
