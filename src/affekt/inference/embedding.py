"""Embeddings of recordings: the statistics over time of the features inside a model.

The embedding of a clip is the mean of each feature of the model's encoder over time, and the logarithm of its standard
deviation, as the graph returns them: relative to their average over the training clips, and before any profile is applied.
Means come first. That of a long recording is the mean over its windows, weighted by their seconds of speech; windows
without speech are left out. For the shipped model, these are 2 x 1152 numbers: three hidden states of Whisper's encoder.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, AudioSource, describe_error, is_silent, name_of
from affekt.errors import AffektError, BadBundle

if TYPE_CHECKING:
    from affekt.inference.recognizer import Recognizer


@dataclass(frozen=True)
class Embedding:
    """The embedding of one recording, or why there is none."""

    file: str
    """The path as given; "<bytes>", "<stream>" or "<array>" for other sources."""
    model: str
    """The bundle's name, "@", and 8 hexadecimal digits of its hash."""
    status: str
    """One of "ok", "silence", "no_speech" and "error", as of a row."""
    duration: float = 0.0
    """Seconds; 0 if the recording could not be read."""
    speech: float = 0.0
    """Seconds of speech, by its energy."""
    vector: NDArray[np.float32] | None = None
    """The embedding, (size,); None unless the status is "ok"."""
    error: Mapping[str, str] | None = None
    """The error's "code" and "message"; None unless the status is "error"."""

    def to_message(self) -> dict[str, Any]:
        """Return the embedding as JSON can contain it."""
        vector = None if self.vector is None else base64.b64encode(self.vector.astype("<f4").tobytes()).decode()
        return {**vars(self), "vector": vector, "error": self.error and dict(self.error)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Embedding:
        """Return the embedding that `to_message` returned."""
        text = message["vector"]
        vector = None if text is None else np.frombuffer(base64.b64decode(text), "<f4")
        return cls(**{**message, "vector": vector})


def check_statistics(recognizer: Recognizer) -> None:
    """Raise `BadBundle` if the graph of a bundle returns no embeddings."""
    if not recognizer.graph.statistics_size:
        raise BadBundle(
            f"{recognizer.bundle.onnx} returns no statistics of its features, so that {recognizer.model} has no embeddings: "
            "use another model, or make the bundle again with this version of affekt"
        )


def embed(
    recognizer: Recognizer, source: AudioSource, *, lenient: bool = False, timeout: float | None = None
) -> Embedding:
    """Return the embedding of one source; arguments and errors as for `Recognizer.embed`."""
    check_statistics(recognizer)
    samples, speech, is_silence = 0, 0.0, True
    total = np.zeros(recognizer.graph.statistics_size)
    for segment, outputs in recognizer.observe(source, lenient=lenient, timeout=timeout):
        samples += segment.waveform.size
        is_silence = is_silence and is_silent(segment.waveform)
        if outputs is not None and outputs["probabilities"].any():
            total += segment.speech * recognizer.graph.join_statistics(outputs)[0]
            speech += segment.speech
    status = "ok" if speech else "silence" if is_silence else "no_speech"
    vector = (total / speech).astype(np.float32) if speech else None
    name, duration = name_of(source), round(samples / SAMPLE_RATE, 4)
    return Embedding(name, recognizer.model, status, duration, round(speech, 4), vector)


def embed_or_fail(recognizer: Recognizer, source: AudioSource, *, lenient: bool, timeout: float | None) -> Embedding:
    """Return the embedding of one source, which has the status "error" if anything fails; arguments as for `embed`."""
    try:
        return embed(recognizer, source, lenient=lenient, timeout=timeout)
    except AffektError as known:
        error = known
    except Exception as unexpected:
        error = AffektError(f"{name_of(source)} has no embedding: {describe_error(unexpected)}", code="unrecognizable")
    return failed(name_of(source), recognizer.model, error)


def failed(name: str, model: str, error: AffektError) -> Embedding:
    """Return the embedding of a source that cannot be read.

    Args:
        name: The source.
        model: The model's id.
        error: The error.
    """
    return Embedding(name, model, "error", error={"code": error.code, "message": str(error)})
