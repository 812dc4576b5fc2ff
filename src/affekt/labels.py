"""Emotions and sets of them. Corpora speak these canonical words; a label set says which of them a model tells apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from affekt.errors import BadConfig
from affekt.registry import did_you_mean

# Every emotion that a corpus reader may give, so that no two readers name one emotion differently.
EMOTIONS = (
    "angry",
    "bored",
    "calm",
    "disgust",
    "excited",
    "fear",
    "frustrated",
    "happy",
    "neutral",
    "sad",
    "surprise",
    "other",
    "unknown",
)


@dataclass(frozen=True)
class LabelSet:
    """The emotions that a model tells apart, in the order of its logits.

    merge: corpus emotion -> emotion of the set, for those that count as another ("excited" as "happy").
    An emotion that is neither in the set nor merged is left out of training and scores, and counted as such.
    """

    name: str
    emotions: tuple[str, ...]
    merge: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.emotions)) != len(self.emotions) or not self.emotions:
            raise BadConfig(f"label set {self.name!r} needs emotions, each once; got {list(self.emotions)}")
        for emotion in {*self.merge, *self.merge.values()} - {*EMOTIONS, *self.emotions}:
            raise BadConfig(
                f"label set {self.name!r} merges {emotion!r}{did_you_mean(emotion, EMOTIONS)}: no such emotion"
            )

    def __len__(self) -> int:
        return len(self.emotions)

    def index(self, emotion: str) -> int | None:
        """The emotion's place among the logits; None if it is not of this set."""
        emotion = self.merge.get(emotion, emotion)
        return self.emotions.index(emotion) if emotion in self.emotions else None


LABEL_SETS = {
    labels.name: labels for labels in (LabelSet("six", ("angry", "disgust", "fear", "happy", "neutral", "sad")),)
}


def label_set(name: str) -> LabelSet:
    """A label set by its name."""
    if name not in LABEL_SETS:
        raise BadConfig(
            f"there is no label set {name!r}{did_you_mean(name, LABEL_SETS)} (known: {', '.join(LABEL_SETS)})"
        )
    return LABEL_SETS[name]
