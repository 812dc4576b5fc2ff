"""The base classes of all features: networks that compute a stream from audio or text."""

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
    """The base class of the features in the registry `affekt.features.features`.

    A subclass names its frozen dataclass of settings in `Config`, is constructed from it, and sets the attributes below.
    """

    Config: ClassVar[type[Any]]
    version: ClassVar[int] = 1
    """Increase it when a change of the code changes the output, so that stored features are computed again."""
    notice: ClassVar[Path | None] = None
    """File with a license that must be distributed with the weights."""
    fixed: ClassVar[frozenset[str]] = frozenset()
    """Names of parameters that stay frozen when the feature is fine-tuned."""
    input: ClassVar[Literal["audio", "text"]] = "audio"
    """Input of the feature: the audio or the text of an utterance."""
    has_time: ClassVar[bool] = True
    """False for a feature with one vector per utterance, (batch, dim)."""
    sample_rate: ClassVar[int]
    """Sample rate of the waveform, in Hz."""
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    """Libraries whose version may change the last bits of the output."""

    config: Any
    frame_rate: float | None
    """Frames per second of the stream; None for text and for a stream without a time axis."""
    dim: int
    """Number of features per frame."""
    num_states: int = 1
    """Number of an encoder's hidden states that are concatenated along dim."""

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> Feature:
        """Load a feature with its weights.

        Args:
            folder: The folder of the weights; None for a feature without weights.
            config: The settings.

        Raises:
            BadConfig: The folder is missing, or its content does not fit the feature.
        """
        raise NotImplementedError

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the features of waveforms.

        Args:
            waveform: Mono waveforms, (batch, samples).
            lengths: Number of samples of each waveform if they are padded (with zeros).
        """
        raise NotImplementedError

    def front_end(self) -> Feature:
        """Return the part without weights, whose output is stored while the rest is trained.

        Raises:
            BadConfig: The feature has no such part.
        """
        raise BadConfig(f"{type(self).__name__} cannot be trained: it has no front end whose output could be stored")

    def encode(self, stream: Stream) -> Stream:
        """Compute the output of `forward` from the output of the front end. Padding in the input is zero."""
        raise NotImplementedError


class TextFeature(Feature):
    """The base class of text encoders, which compute a stream of tokens with the index of each token's word."""

    input = "text"
    frame_rate = None

    def forward(self, texts: Sequence[str]) -> Stream:  # type: ignore[override]
        """Encode texts as (batch, tokens, dim), with a mask and `word_index`.

        `word_index` contains the index in `text.split()` of each token's word, -1 for a token without a word.
        """
        raise NotImplementedError

    def word_indices(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return each text's `word_index` (tokens,) as `forward` does, without running a network."""
        raise NotImplementedError
