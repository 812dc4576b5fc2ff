"""Emotions and sets of them. Corpora speak these canonical words; a label set says which of them a model tells apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from affekt.errors import BadConfig
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

# Every emotion that a reader of a published corpus may give, so that no two readers name one emotion differently.
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

# What tables and folders of one's own call them, in lower case.
EVERYDAY = {
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


def canonical(word: str) -> str:
    """Our word for an emotion that is one of ours or an everyday name of it; any other word as it is."""
    plain = word.strip().lower()
    return plain if plain in EMOTIONS else EVERYDAY.get(plain, word.strip())


@dataclass(frozen=True)
class LabelSet:
    """The emotions that a model tells apart, in the order of its logits.

    merge: corpus emotion -> emotion of the set, for those that count as another ("excited" as "happy").
    dialogues: only utterances whose dialogue has this in its name belong to the set ("impro"); "" takes all.
    An emotion that is neither in the set nor merged is left out of training and scores, and counted as such.
    """

    name: str
    emotions: tuple[str, ...]
    merge: Mapping[str, str] = field(default_factory=dict)
    dialogues: str = ""

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

    def index_of(self, utterance: Utterance) -> int | None:
        """The utterance's place among the logits; None if its emotion or its dialogue is not of this set."""
        return self.index(utterance.emotion) if self.dialogues in utterance.dialogue else None

    @classmethod
    def all_of(cls, utterances: Iterable[Utterance], name: str = "own") -> LabelSet:
        """The emotions that occur among the utterances, sorted: the label set of one's own data."""
        return cls(name, tuple(sorted({utterance.emotion for utterance in utterances})))


# The label sets of the papers, and of the corpora as they are.
LABEL_SETS = {
    labels.name: labels
    for labels in (
        # CREMA-D's six, which most acted corpora have.
        LabelSet("six", ("angry", "disgust", "fear", "happy", "neutral", "sad")),
        # 5,531 utterances: MSTR, TDFNet, KS-Transformer.
        LabelSet("iemocap-4", ("angry", "happy", "neutral", "sad"), {"excited": "happy"}),
        # 2,280 utterances: EmotionNAS, which counts improvised dialogues alone, and excited not as happy.
        LabelSet("iemocap-improvised-4", ("angry", "happy", "neutral", "sad"), dialogues="impro"),
        # 7,487 utterances: MCSAN.
        LabelSet("iemocap-7", ("angry", "excited", "frustrated", "happy", "neutral", "sad", "surprise")),
        LabelSet("meld-7", ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")),
        LabelSet("emodb-7", ("angry", "bored", "disgust", "fear", "happy", "neutral", "sad")),
        LabelSet("ravdess-8", ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")),
    )
}


def label_set(name: str) -> LabelSet:
    """A label set by its name."""
    if name not in LABEL_SETS:
        raise BadConfig(
            f"there is no label set {name!r}{did_you_mean(name, LABEL_SETS)} (known: {', '.join(LABEL_SETS)})"
        )
    return LABEL_SETS[name]
