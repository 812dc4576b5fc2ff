"""Protocols by name: how utterances are split for training, validation and test.

A new protocol is a class in these files and a line here. `protocols[name]` is a frozen dataclass of settings, whose
`folds(utterances, seed)` makes splits that are the same on every machine.
"""

from affekt.protocols.split import INDEPENDENT, Split, key
from affekt.registry import Registry

__all__ = ["INDEPENDENT", "Split", "key", "protocols"]

protocols = Registry(
    "protocol",
    {
        "held-out-people": "affekt.protocols.holdout:HeldOutPeople",
        "leave-one-session-out": "affekt.protocols.grouped:LeaveOneSessionOut",
        "leave-one-speaker-out": "affekt.protocols.grouped:LeaveOneSpeakerOut",
        "speaker-folds": "affekt.protocols.grouped:SpeakerFolds",
        "random-folds": "affekt.protocols.grouped:RandomFolds",
        "random-hold-out": "affekt.protocols.holdout:RandomHoldOut",
        "official": "affekt.protocols.holdout:Official",
        "mstr-random": "affekt.protocols.papers:MSTRRandom",
        "tdfnet-random-ten": "affekt.protocols.papers:TDFNetRandomTen",
        "eight-one-one": "affekt.protocols.papers:EightOneOne",
        "emotionnas": "affekt.protocols.papers:EmotionNAS",
    },
)
