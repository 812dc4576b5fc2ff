"""Protocols by name: how utterances are split for training, validation and test.

To add a protocol, write a class in one of the files of this folder and register it here. `protocols[name]` is a frozen
dataclass of settings, whose `folds(utterances, seed)` makes the same splits on every machine.
"""

from affekt.protocols.split import INDEPENDENT, Split, utterance_key
from affekt.registry import Registry

__all__ = ["INDEPENDENT", "Split", "protocols", "utterance_key"]

protocols = Registry(
    "protocol",
    {
        "held-out-speakers": "affekt.protocols.holdout:HeldOutSpeakers",
        "leave-one-session-out": "affekt.protocols.grouped:LeaveOneSessionOut",
        "leave-one-speaker-out": "affekt.protocols.grouped:LeaveOneSpeakerOut",
        "speaker-folds": "affekt.protocols.grouped:SpeakerFolds",
        "random-folds": "affekt.protocols.grouped:RandomFolds",
        "random-hold-out": "affekt.protocols.holdout:RandomHoldOut",
        "official": "affekt.protocols.official:Official",
        "split-files": "affekt.protocols.split_files:SplitFiles",
        "mstr-random": "affekt.protocols.papers:MSTRRandom",
        "tdfnet-random-ten": "affekt.protocols.papers:TDFNetRandomTen",
        "eight-one-one": "affekt.protocols.papers:EightOneOne",
        "emotionnas": "affekt.protocols.papers:EmotionNAS",
    },
    renamed={"held-out-people": "held-out-speakers"},
)
