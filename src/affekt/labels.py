"""Canonical names of emotions, and label sets: the emotions that a model distinguishes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from affekt.errors import BadConfig
from affekt.invisible import remove_invisible
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

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
"""Every emotion that readers of published corpora may return, so that all readers use the same name for an emotion."""

SYNONYMS = {
    "anger": "angry",
    "boredom": "bored",
    "calmness": "calm",
    "disgusted": "disgust",
    "excitement": "excited",
    "fearful": "fear",
    "afraid": "fear",
    "frustration": "frustrated",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "neutrality": "neutral",
    "sadness": "sad",
    "surprised": "surprise",
}
"""Common synonym, in lower case -> canonical name."""


_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")
_AROUND_SIGNS = re.compile(r"_*([/|&+,;])_*")
_NUMBER = re.compile(r"\s*([-\u2212]?)(\d+(?:\.\d*)?)\s*")


def fold_label(label: str) -> str:
    """Return a label's common spelling: lower case, Unicode NFC, "_" for spaces, hyphens and underscores between words.

    A number keeps its minus sign, and is written without zeros at the end: "1.0" becomes "1".
    """
    label = remove_invisible(label)
    if match := _NUMBER.fullmatch(label):
        number = match[2].rstrip("0").rstrip(".") if "." in match[2] else match[2]
        return ("-" if match[1] else "") + number
    lower = unicodedata.normalize("NFC", label).lower()
    folded = _AROUND_SIGNS.sub(r"\1", _SEPARATORS.sub("_", lower))
    return unicodedata.normalize("NFC", folded).strip("_") or label.strip()


def canonical_emotion(label: str) -> str:
    """Return the canonical name of an emotion or a common synonym; any other label in its common spelling."""
    folded = fold_label(label)
    return SYNONYMS.get(folded, folded)


@dataclass(frozen=True)
class LabelSet:
    """The emotions that a model distinguishes, in the order of its logits.

    Utterances of other emotions are excluded from training and evaluation, and their number is reported.
    """

    name: str
    emotions: tuple[str, ...]
    merge: Mapping[str, str] = field(default_factory=dict)
    """Emotion of a corpus -> emotion of the set, for emotions that are merged ("excited" into "happy")."""
    dialogues: str = ""
    """Only utterances whose dialogue's name contains this text ("impro") belong to the set; "" for all."""

    def __post_init__(self) -> None:
        if len(set(self.emotions)) != len(self.emotions) or not self.emotions:
            raise BadConfig(
                f"label set {self.name!r} needs at least one emotion, and each only once; got {list(self.emotions)}"
            )
        for emotion in {*self.merge, *self.merge.values()} - {*EMOTIONS, *self.emotions}:
            raise BadConfig(
                f"label set {self.name!r} merges {emotion!r}{did_you_mean(emotion, EMOTIONS)}: not an emotion"
            )

    def __len__(self) -> int:
        return len(self.emotions)

    def index(self, emotion: str) -> int | None:
        """Return the index of the emotion's logit; None if the emotion is not in this set."""
        emotion = self.merge.get(emotion, emotion)
        return self.emotions.index(emotion) if emotion in self.emotions else None

    def index_of(self, utterance: Utterance) -> int | None:
        """Return the index of the utterance's logit; None if its emotion or dialogue is not in this set."""
        return self.index(utterance.emotion) if self.dialogues in utterance.dialogue else None

    @classmethod
    def all_of(cls, utterances: Iterable[Utterance], name: str = "own") -> LabelSet:
        """Return the label set of all emotions of some utterances, sorted; this is the label set of a user's own data."""
        return cls(name, tuple(sorted({utterance.emotion for utterance in utterances})))


LABEL_SETS = {
    labels.name: labels
    for labels in (
        # The six emotions of CREMA-D, which most acted corpora have.
        LabelSet("six", ("angry", "disgust", "fear", "happy", "neutral", "sad")),
        # 5,531 utterances: MSTR, TDFNet, KS-Transformer.
        LabelSet("iemocap-4", ("angry", "happy", "neutral", "sad"), {"excited": "happy"}),
        # 2,280 utterances: EmotionNAS, which uses improvised dialogues only and does not merge excited into happy.
        LabelSet("iemocap-improvised-4", ("angry", "happy", "neutral", "sad"), dialogues="impro"),
        # 7,487 utterances: MCSAN.
        LabelSet("iemocap-7", ("angry", "excited", "frustrated", "happy", "neutral", "sad", "surprise")),
        LabelSet("meld-7", ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")),
        LabelSet("emodb-7", ("angry", "bored", "disgust", "fear", "happy", "neutral", "sad")),
        LabelSet("ravdess-8", ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")),
    )
}


def label_set(name: str) -> LabelSet:
    """Return a label set by its name.

    Raises:
        BadConfig: There is no such label set.
    """
    if name not in LABEL_SETS:
        raise BadConfig(f"no label set {name!r}{did_you_mean(name, LABEL_SETS)} (known: {', '.join(LABEL_SETS)})")
    return LABEL_SETS[name]
