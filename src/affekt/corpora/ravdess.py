"""RAVDESS (Livingstone and Russo, PLOS ONE 2018): 24 actors say two sentences in 8 emotions. Speech only, not the songs.

`Audio_Speech_Actors_01-24/Actor_01/03-01-06-01-02-01-12.wav`, or `Actor_01/` directly. The seven numbers: modality
(03 audio only), channel (01 speech, 02 song), emotion, intensity, statement, repetition, actor (odd numbers are male).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from affekt.corpora.base import Corpus, Published, visible_files
from affekt.errors import BadCorpus
from affekt.utterance import Utterance

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
MODALITIES = {"01": "with video", "02": "video without audio", "03": "audio only"}
CHANNELS = {"01": "speech", "02": "song"}
FOLDERS = ("Audio_Speech_Actors_01-24", "audio_speech_actors_01-24", ".")
SUFFIXES = {".wav", ".flac", ".ogg", ".mp4"}
SPEECH = ("03", "01")  # modality and channel of the files that are read


def read(root: Path) -> list[Utterance]:
    """Read RAVDESS.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    return [_utterance(path, numbers) for path, numbers in _files(root) if (numbers[0], numbers[1]) == SPEECH]


def _files(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every recording, including songs and videos, with the seven numbers of its name."""
    # Only the first folder that exists: a widely used copy contains all files twice, the second time in a nested folder.
    actors = next((folders for name in FOLDERS if (folders := _actors(root / name))), None)
    if actors is None:
        raise BadCorpus(f"{root} has neither {FOLDERS[0]}/ nor Actor_01/: expected the folder of RAVDESS")
    for folder in actors:
        for path in visible_files(folder, SUFFIXES):
            if not re.fullmatch(r"0[1-3]-0[12]-0[1-8]-0[12]-0[12]-0[12]-[0-2]\d", path.stem):
                raise BadCorpus(
                    f"{path}: expected seven numbers, as in 03-01-06-01-02-01-12.wav; move a file of another kind elsewhere"
                )
            yield path, path.stem.split("-")


def _actors(folder: Path) -> list[Path]:
    """Return the actors' folders; the archives that they were in, and other files, may be beside them."""
    return sorted(path for path in folder.glob("Actor_*") if path.is_dir())


def _utterance(path: Path, numbers: Sequence[str]) -> Utterance:
    actor = numbers[6]
    return Utterance(
        path.stem,
        "ravdess",
        path,
        EMOTIONS[numbers[2]],
        speaker=actor,
        gender="male" if int(actor) % 2 else "female",
        language="en",
        text=STATEMENTS[numbers[4]],
    )


def published_ids() -> set[str]:
    """Return the ids of the 1,440 published clips of speech; neutral has one intensity, each other emotion two."""
    return {
        f"03-01-{emotion}-{intensity}-{statement}-{repetition}-{actor:02}"
        for emotion in EMOTIONS
        for intensity in (("01",) if emotion == "01" else ("01", "02"))
        for statement in STATEMENTS
        for repetition in ("01", "02")
        for actor in range(1, 25)
    }


def remarks(root: Path, _: Sequence[Utterance]) -> list[str]:
    """Return a remark for each kind of file that is not speech."""
    kinds = Counter((numbers[0], numbers[1]) for _, numbers in _files(root))
    return [
        f"{count} files of {CHANNELS[channel]}, {MODALITIES[modality]}, are skipped: only speech without video is read"
        for (modality, channel), count in sorted(kinds.items())
        if (modality, channel) != SPEECH
    ]


RAVDESS = Corpus(
    name="ravdess",
    title="RAVDESS, speech",
    language="en",
    license="CC BY-NC-SA 4.0",
    source="Livingstone and Russo 2018, zenodo.org/records/1188976",
    style="acted",
    reader=read,
    published=(
        Published(
            1440,
            emotions={emotion: 96 if emotion == "neutral" else 192 for emotion in EMOTIONS.values()},
            speakers={f"{actor:02}": 60 for actor in range(1, 25)},
        ),
    ),
    published_ids=published_ids,
    remarks=remarks,
)
