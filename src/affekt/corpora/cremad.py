"""CREMA-D (Cao et al., IEEE Transactions on Affective Computing 2014): 91 actors say 12 sentences in 6 emotions.

`AudioWAV/1001_DFA_ANG_XX.wav`: actor, sentence, emotion, intensity; `audio/` for a copy in another format.
`VideoDemographics.csv`: the actors' age and sex.
"""

from __future__ import annotations

import csv
from pathlib import Path

from affekt.corpora.base import Corpus
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
FOLDERS = ("AudioWAV", "audio")
SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


def read(root: Path) -> list[Utterance]:
    folder = next((root / name for name in FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise BadCorpus(f"{root} has none of {', '.join(FOLDERS)}: give CREMA-D's own folder")
    genders = _genders(root / "VideoDemographics.csv")
    utterances = []
    for path in folder.iterdir():
        if path.suffix.lower() not in SUFFIXES:
            continue
        actor, sentence, emotion, _ = (*path.stem.split("_"), "", "", "", "")[:4]
        if emotion not in EMOTIONS or sentence not in SENTENCES or not actor.isdigit():
            raise BadCorpus(f"{path.name}: expected ACTOR_SENTENCE_EMOTION_INTENSITY, as in 1001_DFA_ANG_XX")
        utterances.append(
            Utterance(
                path.stem,
                "cremad",
                path,
                EMOTIONS[emotion],
                speaker=actor,
                gender=genders.get(actor, ""),
                language="en",
                text=SENTENCES[sentence],
            )
        )
    return utterances


def _genders(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as stream:
        return {row["ActorID"]: row["Sex"].lower() for row in csv.DictReader(stream)}


CREMAD = Corpus(
    name="cremad",
    title="CREMA-D",
    language="en",
    licence="Open Database License 1.0, contents under the Database Contents License 1.0",
    source="Cao et al. 2014, github.com/CheyneyComputerScience/CREMA-D",
    style="acted",
    reader=read,
    alteration=(
        "CREMA-D is made available under the Open Database License 1.0 (opendatacommons.org/licenses/odbl/1.0), any rights "
        "in its contents under the Database Contents License 1.0. The copy trained on was altered: its clips were rebuilt "
        "from log-mel spectrograms (16 kHz, first 3 s, 128 mels, 80 dB, 8 bits) by mel inversion and Griffin-Lim, peak set "
        "to 0.6, Opus; so absolute level, true phase and all after 3 s are lost."
    ),
)
