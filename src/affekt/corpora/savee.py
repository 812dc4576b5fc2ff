"""SAVEE (Haq and Jackson 2010): four men say 15 sentences in each of 6 emotions, and 30 as neutral.

`AudioData/DC/a01.wav`: speaker, emotion by its first letters, sentence; `DC/a01.wav`, or `ALL/DC_a01.wav` in copies that
have all clips in one folder. The sentences are from TIMIT; their text is not part of the corpus's audio.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from affekt.corpora.base import Corpus, Published, visible_files
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {
    "a": "angry",
    "d": "disgust",
    "f": "fear",
    "h": "happy",
    "n": "neutral",
    "sa": "sad",
    "su": "surprise",
}
SPEAKERS = ("DC", "JE", "JK", "KL")
FOLDERS = ("AudioData", "ALL", "AudioData/ALL", ".")
SUFFIXES = {".wav", ".flac", ".ogg"}
NAME = re.compile(rf"({'|'.join(SPEAKERS)})_({'|'.join(EMOTIONS)})(\d\d)")


def read(root: Path) -> list[Utterance]:
    """Read SAVEE.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    clips = next((clips for name in FOLDERS if (clips := list(_clips(root / name)))), None)
    if clips is None:
        raise BadCorpus(f"{root} has none of AudioData/, DC/ and ALL/DC_a01.wav: expected the folder of SAVEE")
    return [_utterance(path, name) for path, name in clips]


def _clips(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the clips of a folder with their names, "DC_a01" in every layout."""
    if not folder.is_dir():
        return
    speakers = [folder / speaker for speaker in SPEAKERS if (folder / speaker).is_dir()]
    for part in speakers:
        for path in visible_files(part, SUFFIXES):
            yield path, path.stem if path.stem.startswith(f"{part.name}_") else f"{part.name}_{path.stem}"
    if not speakers and any(path.name.startswith(SPEAKERS) for path in visible_files(folder, SUFFIXES)):
        yield from ((path, path.stem) for path in visible_files(folder, SUFFIXES))


def _utterance(path: Path, name: str) -> Utterance:
    match = NAME.fullmatch(name)
    if match is None:
        raise BadCorpus(
            f"{path}: expected emotion and sentence, as in DC/a01.wav or DC_a01.wav; move a file of another kind elsewhere"
        )
    speaker, emotion, _ = match.groups()
    return Utterance(name, "savee", path, EMOTIONS[emotion], speaker=speaker, gender="male", language="en")


def published_ids() -> set[str]:
    """Return the ids of the 480 published clips."""
    return {
        f"{speaker}_{letters}{sentence:02}"
        for speaker in SPEAKERS
        for letters in EMOTIONS
        for sentence in range(1, 31 if letters == "n" else 16)
    }


SAVEE = Corpus(
    name="savee",
    title="SAVEE",
    language="en",
    license="for research, upon registration",
    source="Haq and Jackson 2010, kahlan.eps.surrey.ac.uk/savee",
    style="acted",
    reader=read,
    published=(
        Published(
            480,
            emotions={emotion: 120 if emotion == "neutral" else 60 for emotion in EMOTIONS.values()},
            speakers=dict.fromkeys(SPEAKERS, 120),
        ),
    ),
    published_ids=published_ids,
)
