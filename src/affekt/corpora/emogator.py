"""EmoGator (Buhl, arXiv 2301.00508): vocal bursts (laughs, sighs, screams) of 357 people in 30 categories.

`data/mp3/000001-03-1.mp3`: contributor, category, take. Other copies have the clips in `audio/` or in the root. Vocal bursts
are not speech: the corpus shows how a model treats other sounds of voices. Amusement and elation are read as happy, both
kinds of surprise as surprise, and the 21 categories that affekt has no name for as other.
"""

from __future__ import annotations

import re
from pathlib import Path

from affekt.corpora.base import Corpus, Published, visible_files
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

CATEGORIES = 30
"""Number of categories, numbered from 1 in file names."""
TAKES = 3
"""Number of clips of each category by each contributor."""
CONTRIBUTORS = 357
"""Number of speakers."""
NAMED = {
    2: "happy",  # amusement
    3: "angry",
    10: "disgust",
    13: "happy",  # elation
    15: "fear",
    18: "neutral",
    24: "sad",
    27: "surprise",  # negative
    28: "surprise",  # positive
}
"""Number of a category -> emotion. The other categories become "other"."""
EMOTIONS = {f"{category:02}": NAMED.get(category, "other") for category in range(1, CATEGORIES + 1)}
FOLDERS = ("data/mp3", "mp3", "audio", ".")
SUFFIXES = {".mp3", ".wav", ".flac", ".ogg", ".opus"}
NAME = re.compile(r"(\d{6})-(\d\d)-([1-3])")


def read(root: Path) -> list[Utterance]:
    """Read EmoGator.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    folders = (root / name for name in FOLDERS)
    folder = next((path for path in folders if path.is_dir() and _has_clips(path)), None)
    if folder is None:
        raise BadCorpus(f"{root} has no data/mp3/ with 000001-03-1.mp3: expected the folder of EmoGator")
    return [_utterance(path) for path in visible_files(folder, SUFFIXES)]


def _has_clips(folder: Path) -> bool:
    return any(NAME.fullmatch(path.stem) for path in visible_files(folder, SUFFIXES))


def _utterance(path: Path) -> Utterance:
    match = NAME.fullmatch(path.stem)
    if match is None or match[2] not in EMOTIONS:
        raise BadCorpus(
            f"{path}: expected contributor, category and take, as in 000001-03-1.mp3; move a file of another kind elsewhere"
        )
    return Utterance(path.stem, "emogator", path, EMOTIONS[match[2]], speaker=match[1])


def published_ids() -> set[str]:
    """Return the ids of the 32,130 published bursts."""
    return {
        f"{person:06}-{category}-{take}"
        for person in range(1, CONTRIBUTORS + 1)
        for category in EMOTIONS
        for take in range(1, TAKES + 1)
    }


def _counts() -> dict[str, int]:
    each = CONTRIBUTORS * TAKES
    return {emotion: each * list(EMOTIONS.values()).count(emotion) for emotion in sorted(set(EMOTIONS.values()))}


EMOGATOR = Corpus(
    name="emogator",
    title="EmoGator",
    language="",
    license="Apache-2.0",
    source="Buhl 2023, github.com/fredbuhl/EmoGator",
    style="bursts without words",
    speech=False,
    reader=read,
    published=(
        Published(
            CONTRIBUTORS * CATEGORIES * TAKES,
            emotions=_counts(),
            speakers={f"{person:06}": CATEGORIES * TAKES for person in range(1, CONTRIBUTORS + 1)},
        ),
    ),
    published_ids=published_ids,
)
