"""How the emotion of a row is decided: from which emotions, above which probability, and with which set of emotions.

The decision is applied to the probabilities of a clip, of each window of a long recording, and of the whole recording alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affekt.errors import BadConfig


@dataclass(frozen=True)
class Decision:
    """The settings by which probabilities become the fields "emotion", "status" and "emotion_set" of a row."""

    threshold: float | None = None
    """The smallest probability of the most probable emotion with which it is named; otherwise the status is "unknown"."""
    emotions: tuple[str, ...] = ()
    """The emotions to choose from, whose probabilities are normalized to a sum of 1; () for all of the model."""
    error_rate: float | None = None
    """The promised fraction of clips whose "emotion_set" does not contain their emotion (`affekt.evaluation.conformal`)."""
    min_probability: float | None = None
    """The smallest probability of the emotions in "emotion_set", which follows from `error_rate`."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BadConfig(f"threshold = {self.threshold}: expected a probability from 0 to 1")
        if self.error_rate is not None and not 0 < self.error_rate < 1:
            raise BadConfig(f"error_rate = {self.error_rate}: expected a fraction between 0 and 1, such as 0.1")

    def select(self, known: Sequence[str]) -> tuple[str, ...]:
        """Return the emotions to choose from, in the order of the model's.

        Args:
            known: The emotions of the model.

        Raises:
            BadConfig: An emotion is unknown or repeated, or there are fewer than two.
        """
        if not self.emotions:
            return tuple(known)
        listed = ", ".join(known)
        for emotion in self.emotions:
            if emotion not in known:
                from affekt.registry import did_you_mean

                raise BadConfig(f"the model has no emotion {emotion!r}{did_you_mean(emotion, known)} (known: {listed})")
        if len(set(self.emotions)) < len(self.emotions) or len(self.emotions) < 2:
            raise BadConfig(f"emotions {', '.join(self.emotions)}: expected at least two different ones of: {listed}")
        return tuple(emotion for emotion in known if emotion in self.emotions)

    def row_field(self) -> dict[str, Any] | None:
        """Return the field "decision" of a row; None if the most probable of all emotions is named."""
        fields = {
            "threshold": self.threshold,
            "emotions": list(self.emotions) or None,
            "error_rate": self.error_rate,
            "min_probability": self.min_probability,
        }
        return {name: value for name, value in fields.items() if value is not None} or None


DEFAULT_DECISION = Decision()
"""The most probable of all emotions is named."""


def normalize(probabilities: Mapping[str, float], emotions: Sequence[str]) -> dict[str, float]:
    """Return the probabilities of some of the emotions, divided by their sum; equal ones if the sum is 0."""
    total = math.fsum(probabilities[emotion] for emotion in emotions)
    return {emotion: probabilities[emotion] / total if total else 1 / len(emotions) for emotion in emotions}


def decide(probabilities: Mapping[str, float], decision: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields "status" and "emotion" of a row, and "emotion_set" if an error rate was promised.

    Args:
        probabilities: Emotion -> probability.
        decision: The field "decision" of the row; {} without one.
    """
    best = max(probabilities, key=lambda emotion: probabilities[emotion])
    is_known = probabilities[best] >= decision.get("threshold", 0.0)
    fields: dict[str, Any] = {"status": "ok", "emotion": best} if is_known else {"status": "unknown", "emotion": None}
    if (least := decision.get("min_probability")) is not None:
        ranked = sorted(probabilities, key=lambda emotion: -probabilities[emotion])
        fields["emotion_set"] = [emotion for emotion in ranked if emotion == best or probabilities[emotion] >= least]
    return fields
