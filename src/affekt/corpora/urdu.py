"""URDU (Latif et al., FIT 2018): 400 segments of Urdu talk shows in 4 emotions. The speech was not acted for the corpus.

`Angry/SM1_F1_A01.wav`: sex and number of the speaker, number of the file among the speaker's, initial of the emotion, and
number of the file among the emotion's. The clips of an emotion may also be in a folder for each speaker.

The README counts 38 speakers; 29 occur in the names, and most of them in a single emotion.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from affekt.corpora.base import Corpus, Published, visible_files
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
FOLDERS = ("angry", "happy", "neutral", "sad")  # in upper or lower case
SUFFIXES = {".wav", ".flac", ".ogg"}
GENDERS = {"F": "female", "M": "male"}
CLIPS = {
    "A": {"SM1": 22, "SM2": 28, "SM3": 2, "SM4": 48},
    "H": {
        **{"SF1": 12, "SF2": 2, "SF3": 2, "SF4": 4, "SF5": 4, "SF6": 14, "SF7": 6, "SF8": 2},
        **{"SM17": 2, "SM18": 2, "SM19": 2, "SM3": 2, "SM5": 8, "SM6": 10, "SM7": 28},
    },
    "N": {"SF9": 4, "SM20": 10, "SM21": 4, "SM22": 2, "SM3": 8, "SM5": 72},
    "S": {"SF10": 2, "SF11": 4, "SM23": 6, "SM24": 38, "SM25": 40, "SM26": 2, "SM27": 4, "SM6": 4},
}
"""Initial of the emotion -> number of published clips of each speaker, in the order in which they are numbered."""


def read(root: Path) -> list[Utterance]:
    """Read URDU.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in FOLDERS)
    if not folders:
        raise BadCorpus(f"{root} has none of Angry/, Happy/, Neutral/ and Sad/: expected the folder of URDU")
    return [_utterance(path) for folder in folders for path in _clips(folder)]


def _clips(folder: Path) -> Iterator[Path]:
    """Yield the clips of an emotion, which may be in folders of speakers."""
    yield from visible_files(folder, SUFFIXES)
    for speaker in sorted(path for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"S[FM]\d+", path.name)):
        yield from visible_files(speaker, SUFFIXES)


def _utterance(path: Path) -> Utterance:
    match = re.fullmatch(rf"(S([FM])\d+)_F\d+_([{''.join(EMOTIONS)}])\d+", path.stem)
    if match is None:
        raise BadCorpus(
            f"{path}: expected speaker, file and emotion, as in SM1_F1_A01.wav; move a file of another kind elsewhere"
        )
    speaker, sex, letter = match.groups()
    return Utterance(path.stem, "urdu", path, EMOTIONS[letter], speaker=speaker, gender=GENDERS[sex], language="ur")


def published_ids() -> set[str]:
    """Return the ids of the 400 published clips."""
    ids = set()
    for letter, speakers in CLIPS.items():
        number = 0
        for speaker, count in speakers.items():
            for file in range(1, count + 1):
                number += 1
                ids.add(f"{speaker}_F{file}_{letter}0{number}")  # one zero, also before numbers of several digits
    return ids


def _clips_by_speaker() -> dict[str, int]:
    totals: Counter[str] = Counter()
    for speakers in CLIPS.values():
        totals.update(speakers)
    return dict(totals)


URDU = Corpus(
    name="urdu",
    title="URDU",
    language="ur",
    license="for research; the authors cut it from talk shows on YouTube",
    source="Latif et al. 2018, github.com/siddiquelatif/URDU-Dataset",
    style="talk shows",
    reader=read,
    published=(Published(400, emotions=dict.fromkeys(EMOTIONS.values(), 100), speakers=_clips_by_speaker()),),
    published_ids=published_ids,
)
