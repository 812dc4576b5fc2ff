"""Clips of recordings, from which a profile is learned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import AudioSource, describe_error
from affekt.bundle.training_clips import hash_samples
from affekt.errors import AffektError
from affekt.inference.recognizer import Recognizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A recording of up to 8 s, or a window of a longer one."""

    digest: str
    samples: int
    outputs: dict[str, NDArray[np.float32]] | None
    """The graph's outputs, (1, size) each, where probabilities are zeros if there is no speech; None for silence."""

    @property
    def status(self) -> str:
        if self.outputs is None:
            return "silence"
        return "ok" if self.outputs["probabilities"].any() else "no_speech"

    def to_message(self) -> dict[str, Any]:
        """Return the clip as another process receives it."""
        outputs = self.outputs and {name: values.tolist() for name, values in self.outputs.items()}
        return {"digest": self.digest, "samples": self.samples, "outputs": outputs}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Clip:
        """Return a clip that another process sent."""
        outputs = message["outputs"]
        arrays = outputs and {name: np.array(values, np.float32) for name, values in outputs.items()}
        return cls(message["digest"], message["samples"], arrays)


def observe_clips(
    recognizer: Recognizer, source: AudioSource, *, lenient: bool = False, timeout: float | None = None
) -> list[Clip]:
    """Return the clips of a source; arguments and errors as for calling the recognizer."""
    observed = recognizer.observe(source, lenient=lenient, timeout=timeout)
    return [Clip(hash_samples(segment.waveform), segment.waveform.size, outputs) for segment, outputs in observed]


def describe_failure(error: Exception) -> str:
    """Return why a source could not be observed; the traceback is logged at level DEBUG."""
    logger.debug("%s", error, exc_info=error)
    return str(error) if isinstance(error, AffektError) else describe_error(error)
