"""nEMO (Christop, LREC-COLING 2024): nine actors say 90 Polish sentences in 6 emotions.

`samples/EB0_anger_1.wav`: speaker, emotion, sentence. `data.tsv`: for each file, among others the text and the actor's sex;
without it, the texts are not known. The clips may also be in the root.
"""

from __future__ import annotations

import re
from pathlib import Path

from affekt.corpora.base import Corpus, Published, read_rows, visible_files
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {
    "anger": "angry",
    "fear": "fear",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprised": "surprise",
}
GENDERS = {
    **dict.fromkeys(("EB0", "IC0", "KD0", "MK0"), "female"),
    **dict.fromkeys(("KS0", "MP0", "SM0", "TP0", "WR0"), "male"),
}
"""Actor -> sex, as in data.tsv."""
NAME = re.compile(rf"([A-Z]{{2}}\d)_({'|'.join(EMOTIONS)})_(\d+)")
SUFFIXES = {".wav", ".flac", ".ogg"}


def read(root: Path) -> list[Utterance]:
    """Read nEMO.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    folder = root / "samples"
    if not folder.is_dir():
        if not any(NAME.fullmatch(path.stem) for path in visible_files(root, SUFFIXES)):
            raise BadCorpus(f"{root} has neither samples/ nor EB0_anger_1.wav: expected the folder of nEMO")
        folder = root
    texts = _texts(root / "data.tsv")
    return [_utterance(path, texts) for path in visible_files(folder, SUFFIXES)]


def _texts(table: Path) -> dict[str, str]:
    """Return name of a clip -> text; {} without a table."""
    if not table.is_file():
        return {}
    rows = read_rows(table, required=("file_id", "raw_text"))
    return {row.text("file_id").removesuffix(".wav"): row.text("raw_text") for row in rows}


def _utterance(path: Path, texts: dict[str, str]) -> Utterance:
    match = NAME.fullmatch(path.stem)
    if match is None:
        raise BadCorpus(
            f"{path}: expected actor, emotion and sentence, as in EB0_anger_1.wav; move a file of another kind elsewhere"
        )
    speaker, emotion, _ = match.groups()
    return Utterance(
        path.stem,
        "nemo",
        path,
        EMOTIONS[emotion],
        speaker=speaker,
        gender=GENDERS.get(speaker, ""),
        language="pl",
        text=texts.get(path.stem, ""),
    )


NEMO = Corpus(
    name="nemo",
    title="nEMO",
    language="pl",
    license="CC BY-NC-SA 4.0",
    source="Christop 2024, github.com/amu-cai/nEMO and huggingface.co/datasets/amu-cai/nEMO",
    style="acted",
    reader=read,
    published=(Published(4481),),
)
