"""The user's own recordings in folders named after emotions.

`happy/001.wav`, or with speakers `anna/happy/001.wav`. Both may be inside a subset's folder: `train/happy/001.wav`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from affekt.audio.read import find_files
from affekt.corpora.base import Corpus
from affekt.corpora.emotion_names import EmotionNames
from affekt.errors import BadCorpus
from affekt.labels import EMOTIONS, canonical_emotion
from affekt.utterance import Utterance

SUBSETS = {"train", "training", "dev", "valid", "validation", "test", "testing"}
"""Names of folders that are subsets of a split, not speakers."""
LAYOUTS = "EMOTION/FILE or SPEAKER/EMOTION/FILE"


def read(root: Path, emotions: Mapping[str, str] | None = None, language: str = "") -> list[Utterance]:
    """Read a folder of recordings.

    Args:
        root: The folder.
        emotions: Custom label -> emotion.
        language: The language of all recordings, ISO 639-1.
    """
    emotion_names = EmotionNames(emotions or {})
    utterances = [_utterance(root, path, emotion_names, language) for path in find_files(root)]
    emotion_names.check_used(root)
    _check_order(root, utterances)
    return utterances


def _utterance(root: Path, path: Path, emotion_names: EmotionNames, language: str) -> Utterance:
    relative = path.relative_to(root)
    *folders, _ = relative.parts
    subset = folders.pop(0) if folders and folders[0].lower() in SUBSETS else ""
    if len(folders) not in (1, 2):
        raise BadCorpus(f"{relative} in {root}: expected {LAYOUTS}, as in happy/001.wav or anna/happy/001.wav")
    speaker, emotion = folders if len(folders) == 2 else ("", folders[0])
    return Utterance(
        relative.as_posix(),
        root.resolve().name,
        path,
        emotion_names(emotion),
        speaker=speaker,
        language=language,
        split=subset,
    )


def _check_order(root: Path, utterances: Sequence[Utterance]) -> None:
    """Raise `BadCorpus` if all "speakers" are emotions and no "emotion" is one: the folders are nested the wrong way."""
    speakers, emotions = {u.speaker for u in utterances}, {u.emotion for u in utterances}
    if (
        all(canonical_emotion(speaker) in EMOTIONS for speaker in speakers)
        and not emotions & set(EMOTIONS)
        and speakers
    ):
        raise BadCorpus(
            f"{root}: {utterances[0].id} has the speaker's folder inside the emotion's; expected {LAYOUTS}, "
            "as in anna/happy/001.wav"
        )


FOLDER = Corpus(
    name="folder",
    title="a folder of recordings",
    language="",
    license="",
    source=LAYOUTS,
    style="",
    reader=read,
    options=("emotions", "language"),
)
