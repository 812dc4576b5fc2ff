"""EmoDB, the Berlin database of emotional speech (Burkhardt et al., Interspeech 2005): 10 actors, 10 German sentences.

`wav/03a01Fa.wav`: speaker 03, sentence a01, emotion by its German initial, take a.
"""

from __future__ import annotations

import re
from pathlib import Path

from affekt.corpora.base import Corpus
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {"W": "angry", "L": "bored", "E": "disgust", "A": "fear", "F": "happy", "T": "sad", "N": "neutral"}
FEMALE = {"08", "09", "13", "14", "16"}
SUFFIXES = {".wav", ".flac", ".ogg"}


def read(root: Path) -> list[Utterance]:
    folder = root / "wav"
    if not folder.is_dir():
        raise BadCorpus(f"{root} has no wav/: give EmoDB's own folder")
    utterances = []
    for path in folder.iterdir():
        if path.suffix.lower() not in SUFFIXES:
            continue
        match = re.fullmatch(r"(\d\d)([ab]\d\d)([WLEAFTN])[a-z]", path.stem)
        if match is None:
            raise BadCorpus(f"{path.name}: expected speaker, sentence, emotion letter and take, as in 03a01Fa")
        speaker, _, letter = match.groups()
        utterances.append(
            Utterance(
                path.stem,
                "emodb",
                path,
                EMOTIONS[letter],
                speaker=speaker,
                gender="female" if speaker in FEMALE else "male",
                language="de",
            )
        )
    return utterances


EMODB = Corpus(
    name="emodb",
    title="EmoDB",
    language="de",
    licence="CC0 1.0",
    source="Burkhardt et al. 2005, the Berlin database of emotional speech",
    style="acted",
    reader=read,
)
