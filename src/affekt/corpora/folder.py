"""The user's own recordings in folders named after emotions.

`happy/001.wav`, or with speakers `anna/happy/001.wav` or `happy/anna/001.wav`. The names of the folders show
which of the two it is. A folder named after a subset may be at any level: `train/happy/001.wav`,
`anna/happy/test/001.wav`. Other folders need a layout (`affekt.corpora.layout`).
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from affekt.audio.read import find_files
from affekt.corpora.base import Corpus
from affekt.corpora.emotion_names import EmotionNames
from affekt.corpora.layout import EMOTION_FIRST, USUAL, read_levels
from affekt.errors import BadCorpus
from affekt.invisible import strip_invisible
from affekt.labels import EMOTIONS, canonical_emotion
from affekt.tabular.missing import is_missing, is_missing_label, is_missing_speaker
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

AMBIGUOUS = {"joy", "other", "unknown"}
"""Emotions that are also plausible names of speakers, and therefore do not show the order of the folders."""


def read(
    root: Path, emotions: Mapping[str, str] | None = None, language: str = "", layout: str = ""
) -> list[Utterance]:
    """Read a folder of recordings.

    Args:
        root: The folder.
        emotions: Custom label -> emotion.
        language: The language of all recordings, ISO 639-1.
        layout: What the folders name, such as "emotion/speaker"; "" to recognize it.

    Raises:
        BadCorpus: A folder's name is not understood or is a word for a missing value, or `emotions` has an unused label.
    """
    paths = find_files(root)
    relative = [path.relative_to(root) for path in paths]
    emotion_names = EmotionNames(emotions or {})

    def is_emotion(name: str) -> bool:
        return emotion_names.maps(name) or _contains_emotion(name)

    recognized, levels = read_levels(root, relative, layout, is_emotion)
    if not layout and recognized == "/".join(EMOTION_FIRST):
        logger.info("%s: folders are read as %s", root.resolve().name, recognized)
    for name, names in zip(relative, levels, strict=True):
        if is_missing_label(label := names["emotion"]) and not emotion_names.maps(label):
            raise BadCorpus(
                f"{name} in {root}: {label!r} is a word for a missing value, not an emotion: rename the folder, or map it, "
                f"as in --emotion {label}=neutral"
            )
    utterances = [
        Utterance(
            name.as_posix(),
            root.resolve().name,
            path,
            emotion_names(names["emotion"]),
            speaker=_speaker(names.get("speaker", "")),
            session=_known(names.get("session", "")),
            language=language,
            split=names.get("split", ""),
        )
        for path, name, names in zip(paths, relative, levels, strict=True)
    ]
    emotion_names.check_used(root)
    emotion_names.log_merged(root)
    return utterances


def _contains_emotion(name: str) -> bool:
    """Return whether a folder's name is an emotion, also with a number or another word: "01_happy", "OAF_angry"."""
    words = [name, *re.split(r"[\W\d_]+", name)]
    return any(word.strip().lower() not in AMBIGUOUS and canonical_emotion(word) in EMOTIONS for word in words)


def _speaker(name: str) -> str:
    """Return a speaker; equal names in different Unicode forms are one speaker."""
    name = unicodedata.normalize("NFC", strip_invisible(name))
    return "" if is_missing_speaker(name) else name


def _known(name: str) -> str:
    """Return a name without outer spaces, "" for a word for a missing value."""
    return "" if is_missing(name) else name.strip()


FOLDER = Corpus(
    name="folder",
    title="a folder of recordings",
    language="",
    license="",
    source=USUAL,
    style="",
    reader=read,
    options=("emotions", "language", "layout"),
)
