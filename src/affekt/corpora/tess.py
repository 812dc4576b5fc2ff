"""TESS, the Toronto emotional speech set (Pichora-Fuller and Dupuis 2010): two women say 200 words in 7 emotions.

`OAF_angry/OAF_back_angry.wav`: speaker (OAF is the older woman, YAF the younger), word, emotion ("ps" is pleasant surprise).
The files are in one folder, as on Borealis, or in one folder for each speaker and emotion, whose names differ between copies.
Either may be one or two levels below the root, in a folder such as `TESS Toronto emotional speech set data/`. Each word is
part of a phrase: "Say the word back."
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from affekt.corpora.base import Corpus, Published, visible_files
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprise",
    "sad": "sad",
}
SPEAKERS = ("OAF", "YAF")
SUFFIXES = {".wav", ".flac", ".ogg"}
RENAMED = {"OA_bite_neutral": "OAF_bite_neutral"}
"""A clip whose published name lacks a letter."""


def read(root: Path) -> list[Utterance]:
    """Read TESS.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    # Only the first folder that has clips: a widely used copy contains all files twice, the second time in a nested folder.
    folders = (root, *sorted(path for depth in ("*", "*/*") for path in root.glob(depth) if path.is_dir()))
    clips = next((clips for folder in folders if (clips := list(_clips(folder)))), None)
    if clips is None:
        raise BadCorpus(f"{root} has neither OAF_back_angry.wav nor OAF_angry/: expected the folder of TESS")
    return [_utterance(path) for path in clips]


def _clips(folder: Path) -> Iterator[Path]:
    """Yield the clips in a folder and in its folders of a speaker and an emotion."""
    parts = [path for path in folder.iterdir() if path.is_dir() and path.name.startswith(SPEAKERS)]
    if parts:
        for part in sorted(parts):
            yield from visible_files(part, SUFFIXES)
    elif any(path.name.startswith(SPEAKERS) for path in visible_files(folder, SUFFIXES)):
        yield from visible_files(folder, SUFFIXES)


def _utterance(path: Path) -> Utterance:
    name = RENAMED.get(path.stem, path.stem)
    match = re.fullmatch(rf"({'|'.join(SPEAKERS)})_(.+)_({'|'.join(EMOTIONS)})", name)
    if match is None:
        raise BadCorpus(
            f"{path}: expected speaker, word and emotion, as in OAF_back_angry.wav; move a file of another kind elsewhere"
        )
    speaker, word, emotion = match.groups()
    return Utterance(
        name,
        "tess",
        path,
        EMOTIONS[emotion],
        speaker=speaker,
        gender="female",
        language="en",
        text=f"Say the word {word}.",
    )


TESS = Corpus(
    name="tess",
    title="TESS",
    language="en",
    license="CC BY-NC-ND 4.0",
    source="Pichora-Fuller and Dupuis 2010, doi.org/10.5683/SP2/E8H2MF",
    style="acted",
    reader=read,
    published=(
        Published(2800, emotions=dict.fromkeys(EMOTIONS.values(), 400), speakers=dict.fromkeys(SPEAKERS, 1400)),
    ),
)
