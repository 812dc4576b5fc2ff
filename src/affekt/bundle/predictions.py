"""The predictions of a model for labeled clips that it was not trained on: predictions.json in a bundle.

They show how often the model is right at which confidence, and calibrate sets of emotions (`affekt.evaluation.conformal`).
Those in a bundle are of its test subset. `affekt calibrate` writes the same file for clips of one's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import PREDICTIONS, Bundle, read_json
from affekt.errors import BadBundle
from affekt.files import atomic_write_text
from affekt.json_text import to_json

SCHEMA = 1
"""Version of the format."""
DIGITS = 6
"""Decimal places of the probabilities."""


@dataclass(frozen=True)
class LabeledPredictions:
    """The predictions of a model for labeled clips."""

    model: str
    """The id of the bundle."""
    emotions: tuple[str, ...]
    utterances: tuple[str, ...]
    """The key of each clip, "corpus/id"."""
    speakers: tuple[str, ...]
    """The speaker of each clip; the clip's key where speakers are unknown."""
    labels: NDArray[np.int64]
    """(clips,), indices in `emotions`."""
    probabilities: NDArray[np.float64]
    """(clips, emotions); zeros where the model finds no speech."""
    profile: str = ""
    """The id of the profile that was applied; "" without one."""

    def write(self, path: Path) -> None:
        """Write the predictions as JSON, a line for each clip."""
        head = {"schema": SCHEMA, "model": self.model, "profile": self.profile, "emotions": list(self.emotions)}
        columns = (self.utterances, self.speakers, self.labels.tolist(), self.probabilities.tolist())
        clips = [
            to_json([utterance, speaker, label, [round(p, DIGITS) for p in row]])
            for utterance, speaker, label, row in zip(*columns, strict=True)
        ]
        atomic_write_text(path, to_json(head)[:-1] + ', "clips": [\n' + ",\n".join(clips) + "\n]}\n")

    @classmethod
    def read(cls, path: Path) -> LabeledPredictions:
        """Read predictions. Raises `BadBundle` if the file is not valid."""
        content = read_json(path, PREDICTIONS)
        try:
            predictions = cls._decode(content)
            predictions._check()
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise BadBundle(
                f"{path} does not contain predictions ({error}); copy it again, or make it again"
            ) from error
        return predictions

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> LabeledPredictions | None:
        """Return the predictions for a bundle's test subset; None if it was made without them. Raises `BadBundle`."""
        path = bundle.folder / PREDICTIONS
        if not path.is_file():
            return None
        predictions = cls.read(path)
        if predictions.model != bundle.id:
            raise BadBundle(
                f"{path} has the predictions of {predictions.model}, not of {bundle.id}: delete it, or make the bundle again"
            )
        return predictions

    @classmethod
    def _decode(cls, content: Any) -> LabeledPredictions:
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}, expected {SCHEMA}")
        utterances, speakers, labels, rows = zip(*content["clips"], strict=True)
        return cls(
            str(content["model"]),
            tuple(map(str, content["emotions"])),
            tuple(map(str, utterances)),
            tuple(map(str, speakers)),
            np.array(labels, np.int64),
            np.array(rows, np.float64),
            str(content["profile"]),
        )

    def _check(self) -> None:
        """Raise `ValueError` if the sizes do not agree, or if a number is out of range."""
        count, size = len(self.labels), len(self.emotions)
        if self.probabilities.shape != (count, size) or len(set(self.emotions)) != size:
            raise ValueError(f"the probabilities do not have the shape {(count, size)}")
        if not np.isfinite(self.probabilities).all() or self.probabilities.min() < 0:
            raise ValueError("a probability is negative or not finite")
        if not ((self.labels >= 0) & (self.labels < size)).all():
            raise ValueError("a label is out of range")

    @cached_property
    def corpora(self) -> NDArray[np.str_]:
        """The corpus of each clip, (clips,)."""
        return np.array([key.partition("/")[0] for key in self.utterances])

    def select(self, chosen: NDArray[np.bool_]) -> LabeledPredictions:
        """Return the predictions for some of the clips, (clips,)."""
        return LabeledPredictions(
            self.model,
            self.emotions,
            _choose(self.utterances, chosen),
            _choose(self.speakers, chosen),
            self.labels[chosen],
            self.probabilities[chosen],
            self.profile,
        )

    def recognized(self) -> LabeledPredictions:
        """Return the predictions for the clips in which the model finds speech."""
        return self.select(self.probabilities.sum(axis=1) > 0)


def _choose(values: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(value for value, use in zip(values, chosen, strict=True) if use)
