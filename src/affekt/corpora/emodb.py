"""EmoDB, the Berlin database of emotional speech (Burkhardt et al., Interspeech 2005): 10 actors, 10 German sentences.

`wav/03a01Fa.wav`: speaker 03, sentence a01, emotion by its German initial, take a.
"""

from __future__ import annotations

import re
from pathlib import Path

from affekt.corpora.base import Corpus, Published, visible_files
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {"W": "angry", "L": "bored", "E": "disgust", "A": "fear", "F": "happy", "T": "sad", "N": "neutral"}
FEMALE_SPEAKERS = {"08", "09", "13", "14", "16"}
AGES = {
    "03": 31,
    "08": 34,
    "09": 21,
    "10": 32,
    "11": 26,
    "12": 30,
    "13": 32,
    "14": 35,
    "15": 25,
    "16": 31,
}  # its web page
SUFFIXES = {".wav", ".flac", ".ogg"}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute Abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}


def read(root: Path) -> list[Utterance]:
    """Read EmoDB.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    folder = root / "wav"
    if not folder.is_dir():
        raise BadCorpus(f"{root} has no wav/: expected the folder of EmoDB")
    utterances = []
    for path in visible_files(folder, SUFFIXES):
        match = re.fullmatch(r"(\d\d)([ab]\d\d)([WLEAFTN])[a-z]", path.stem)
        if match is None or match[2] not in SENTENCES:
            raise BadCorpus(
                f"{path}: expected speaker, sentence, emotion letter and take, as in 03a01Fa; move a file of another kind "
                "elsewhere"
            )
        speaker, sentence, letter = match.groups()
        utterances.append(
            Utterance(
                path.stem,
                "emodb",
                path,
                EMOTIONS[letter],
                speaker=speaker,
                gender="female" if speaker in FEMALE_SPEAKERS else "male",
                age=AGES.get(speaker),
                language="de",
                text=SENTENCES[sentence],
            )
        )
    return utterances


EMODB = Corpus(
    name="emodb",
    title="EmoDB",
    language="de",
    license="CC0 1.0",
    source="Burkhardt et al. 2005, the Berlin database of emotional speech",
    style="acted",
    reader=read,
    published=(
        Published(
            535,
            emotions={"angry": 127, "bored": 81, "disgust": 46, "fear": 69, "happy": 71, "neutral": 79, "sad": 62},
            speakers={
                "03": 49,
                "08": 58,
                "09": 43,
                "10": 38,
                "11": 55,
                "12": 35,
                "13": 61,
                "14": 69,
                "15": 56,
                "16": 71,
            },
        ),
    ),
)
