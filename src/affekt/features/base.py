"""What every feature is: a network from sound or from words to a stream, with what must be known of it before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from affekt.batch import Stream
from affekt.errors import BadConfig


class Feature(nn.Module):
    """The contract of the registry `affekt.features.features`.

    A subclass names its frozen dataclass of settings in `Config`, is built from it, and sets the attributes below.
    """

    Config: ClassVar[type[Any]]
    version: ClassVar[int] = 1  # raised when the code changes what comes out: stored features are then made anew
    notice: ClassVar[Path | None] = None  # a licence that goes wherever the weights go
    fixed: ClassVar[frozenset[str]] = frozenset()  # parameters that stay as they are when it is trained
    input: ClassVar[Literal["audio", "text"]] = "audio"
    has_time: ClassVar[bool] = True  # False: one vector per utterance, (batch, dim)
    sample_rate: ClassVar[int]  # Hz, of the waveform
    libraries: ClassVar[tuple[str, ...]] = ("torch",)  # whose versions decide the last bits of what comes out

    config: Any
    frame_rate: float | None  # frames per second, of the stream; None for words, and for a stream without time
    dim: int  # features of a frame
    num_states: int = 1  # states of the encoder, concatenated along dim

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> Feature:
        """With the weights of a folder; None for a feature that has none. Raises `BadConfig`."""
        raise NotImplementedError

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """`lengths` in samples, where the waveforms are padded (with zeros)."""
        raise NotImplementedError

    def front_end(self) -> Feature:
        """The part of it that has no weights: what is stored while the rest is trained. Raises `BadConfig` without one."""
        raise BadConfig(f"{type(self).__name__} cannot be trained: it has no front end that could be stored by itself")

    def encode(self, stream: Stream) -> Stream:
        """From the front end's frames, zero where they are padding, to what `forward` gives."""
        raise NotImplementedError


class TextFeature(Feature):
    """What every text encoder is: from utterances' words to a stream of tokens, which knows each token's word."""

    input = "text"
    frame_rate = None

    def forward(self, texts: Sequence[str]) -> Stream:  # type: ignore[override]
        """(batch, tokens, dim), masked, with `words`: the index of each token's word in `text.split()`, -1 for none."""
        raise NotImplementedError

    def words(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Of each text (tokens,): the word of every token, as `forward` gives it, without running a network."""
        raise NotImplementedError
