"""IEMOCAP (Busso et al., Language Resources and Evaluation 2008): 5 sessions, each a woman and a man in dialogue.

`SessionN/dialog/EmoEvaluation/DIALOGUE.txt`: `[6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5, 2.5, 2.5]`
`SessionN/dialog/transcriptions/DIALOGUE.txt`: `Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.`
`SessionN/sentences/wav/DIALOGUE/UTTERANCE.wav`: the utterance's audio, already cut; the times above are those
in the dialogue, and not used.

A dialogue's name contains "impro" if it is improvised and "script" if it is scripted. The letter in the name is the actor
whose motion was captured; the letter in the turn's number, `_F000` or `_M000`, is the speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from affekt.corpora.base import Corpus, Published, visible_files
from affekt.errors import BadCorpus
from affekt.registry import did_you_mean
from affekt.tabular.text import read_lines
from affekt.utterance import Utterance

EMOTIONS = {
    "ang": "angry",
    "hap": "happy",
    "exc": "excited",
    "sad": "sad",
    "neu": "neutral",
    "fru": "frustrated",
    "sur": "surprise",
    "fea": "fear",
    "dis": "disgust",
    "oth": "other",
    "xxx": "unknown",  # no majority among the annotators
}
GENDERS = {"F": "female", "M": "male"}
SESSIONS = ("Session1", "Session2", "Session3", "Session4", "Session5")
# The line of an utterance; lines of single annotators start differently. Some copies have spaces instead of tabs.
EVALUATION = re.compile(
    r"\[ *[\d.]+ *- *[\d.]+ *\]\s+(?P<id>Ses(?P<session>\d\d)\w+_(?P<letter>[FM])\w+)\s+(?P<label>\w+)(?:\s(?!.*Ses\d\d).*)?"
)
TURN = re.compile(r"Ses\d\d\w+_[FM]\d+\b")
"""An utterance's name."""
TIMES = re.compile(r"\s*\[\s*\d")
"""The beginning of an utterance's line."""
TRANSCRIPT = re.compile(r"(?P<id>Ses\w+)\s+\[ *[\d.]+ *- *[\d.]+ *\]\s*:?\s*(?P<text>.*?)\s*")


def read(root: Path) -> list[Utterance]:
    """Read IEMOCAP.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    sessions = [root / name for name in SESSIONS if (root / name).is_dir()]
    if not sessions:
        raise BadCorpus(f"{root} has no {SESSIONS[0]}/: expected the folder IEMOCAP_full_release")
    has_audio = any((session / "sentences" / "wav").is_dir() for session in sessions)
    return [utterance for session in sessions for utterance in _session(session, has_audio)]


def _session(session: Path, has_audio: bool) -> list[Utterance]:
    folder = session / "dialog" / "EmoEvaluation"
    if not folder.is_dir():
        raise BadCorpus(f"{session} has no dialog/EmoEvaluation/: expected the published layout of IEMOCAP")
    texts = _texts(session / "dialog" / "transcriptions")
    utterances = []
    for path in visible_files(folder, {".txt"}):
        for number, match in _evaluations(path):
            name, label = match["id"], match["label"]
            if label not in EMOTIONS:
                raise BadCorpus(
                    f"{path}, line {number}: {name} is {label!r}{did_you_mean(label, EMOTIONS)}: not an emotion of IEMOCAP"
                )
            dialogue = name.rpartition("_")[0]
            utterances.append(
                Utterance(
                    name,
                    "iemocap",
                    session / "sentences" / "wav" / dialogue / f"{name}.wav" if has_audio else None,
                    EMOTIONS[label],
                    speaker=f"Ses{match['session']}{match['letter']}",
                    gender=GENDERS[match["letter"]],
                    session=f"Ses{match['session']}",
                    dialogue=dialogue,
                    language="en",
                    text=texts.get(name, ""),
                )
            )
    return utterances


def _evaluations(path: Path) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield the number of the line and a match of EVALUATION for each utterance.

    Raises:
        BadCorpus: A line begins like an utterance's, or contains the name of one, but does not match.
    """
    for number, line in enumerate(read_lines(path), start=1):
        if match := EVALUATION.fullmatch(line.strip()):
            yield number, match
        elif TIMES.match(line) or TURN.search(line):
            raise BadCorpus(
                f"{path}, line {number}: {line.strip()[:80]!r} is damaged: expected times, turn, emotion and values, as in "
                "[6.2901 - 8.2357] Ses01F_impro01_F000 neu [2.5, 2.5, 2.5]"
            )


def _texts(folder: Path) -> dict[str, str]:
    """Return the transcripts by utterance; {} if there are none."""
    paths = visible_files(folder, {".txt"}) if folder.is_dir() else ()
    lines = (line.strip() for path in paths for line in read_lines(path))
    return {match["id"]: match["text"] for line in lines if (match := TRANSCRIPT.fullmatch(line))}


IEMOCAP = Corpus(
    name="iemocap",
    title="IEMOCAP",
    language="en",
    license="IEMOCAP's own license, for research only, which must be signed",
    source="Busso et al. 2008, sail.usc.edu/iemocap",
    style="acted, improvised and from scripts",
    reader=read,
    published=(
        Published(
            10_039,
            emotions={
                "angry": 1103, "disgust": 2, "excited": 1041, "fear": 40, "frustrated": 1849, "happy": 595,
                "neutral": 1708, "other": 3, "sad": 1084, "surprise": 107, "unknown": 2507,
            },
        ),
        Published(
            5531,
            labels="iemocap-4",
            emotions={"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084},
            sessions={"Ses01": 1085, "Ses02": 1023, "Ses03": 1151, "Ses04": 1031, "Ses05": 1241},
            speakers={
                "Ses01F": 528, "Ses01M": 557, "Ses02F": 481, "Ses02M": 542, "Ses03F": 522,
                "Ses03M": 629, "Ses04F": 528, "Ses04M": 503, "Ses05F": 590, "Ses05M": 651,
            },
        ),
        Published(
            7487,
            labels="iemocap-7",
            emotions={
                "angry": 1103, "excited": 1041, "frustrated": 1849, "happy": 595,
                "neutral": 1708, "sad": 1084, "surprise": 107,
            },
        ),
        Published(
            2280,
            labels="iemocap-improvised-4",
            emotions={"angry": 289, "happy": 284, "neutral": 1099, "sad": 608},
            speakers={
                "Ses01F": 217, "Ses01M": 205, "Ses02F": 185, "Ses02M": 208, "Ses03F": 264,
                "Ses03M": 274, "Ses04F": 149, "Ses04M": 221, "Ses05F": 298, "Ses05M": 259,
            },
        ),
    ),
)  # fmt: skip
