"""MELD (Poria et al., ACL 2019): dialogues of the series Friends, in a published split.

`train_sent_emo.csv`, `dev_sent_emo.csv`, `test_sent_emo.csv`, at the root or in `train/`, `dev/`, `test/`: one row
per utterance. Its clip is `dia0_utt0.mp4`, or a .wav or .flac file made from it, in one of FOLDERS. Without clips, the
corpus is read as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from affekt.corpora.base import Corpus, Published, read_rows, visible_files
from affekt.errors import BadCorpus
from affekt.registry import did_you_mean
from affekt.tabular.record import Record
from affekt.utterance import Utterance

EMOTIONS = {
    "anger": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "joy": "happy",
    "neutral": "neutral",
    "sadness": "sad",
    "surprise": "surprise",
}
SPLITS = ("train", "dev", "test")
# Folders of each subset's clips: as in the published archives, or named after the subset.
FOLDERS = {
    "train": ("train_splits", "train/train_splits", "train"),
    "dev": ("dev_splits_complete", "dev/dev_splits_complete", "dev"),
    "test": ("output_repeated_splits_test", "test/output_repeated_splits_test", "test"),
}
SUFFIXES = {".wav": 1, ".flac": 2, ".mp4": 3}
"""Suffixes in order of preference, for a clip in several formats: .wav is the fastest to read."""
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "Season", "Episode")
# The main characters; the gender of the others is unknown.
GENDERS = {"Monica": "female", "Phoebe": "female", "Rachel": "female"}
GENDERS |= {"Chandler": "male", "Joey": "male", "Ross": "male"}
# Clips with faults reported by users (github.com/declare-lab/MELD, issues 20 and 39).
FLAWED = {
    "train_dia125_utt3": "its clip is damaged",
    "dev_dia110_utt7": "its clip is damaged or missing",
    "train_dia309_utt0": "its clip is cut wrongly",
    "test_dia38_utt4": "its clip is cut wrongly, minutes long",
    "test_dia220_utt0": "its clip is cut wrongly, minutes long",
}


def read(root: Path) -> list[Utterance]:
    """Read MELD.

    Raises:
        BadCorpus: The folder, or a file in it, is not as published.
    """
    tables = {split: _table(root, split) for split in SPLITS}
    if not any(tables.values()):
        raise BadCorpus(f"{root} has no train_sent_emo.csv: expected the folder of MELD")
    clips = {split: _clips(root, split) for split in SPLITS}
    has_audio = any(clips.values())
    utterances = []
    for split, table in tables.items():
        for row in _rows(table) if table else ():
            name = f"dia{row.number('Dialogue_ID')}_utt{row.number('Utterance_ID')}"
            # If only some clips exist, the others get the path where they should be, so that they are reported missing.
            clip = clips[split].get(name, root / FOLDERS[split][0] / f"{name}.mp4") if has_audio else None
            utterances.append(_utterance(row, split, name, clip))
    return utterances


def _table(root: Path, split: str) -> Path | None:
    paths = (root / f"{split}_sent_emo.csv", root / split / f"{split}_sent_emo.csv")
    return next((path for path in paths if path.is_file()), None)


def _rows(table: Path) -> list[Record]:
    rows = read_rows(table, required=COLUMNS)
    for row in rows:
        if (emotion := row.text("Emotion")) not in EMOTIONS:
            raise row.error(f"Emotion {emotion!r}{did_you_mean(emotion, EMOTIONS)}: not an emotion of MELD")
    return rows


def _clips(root: Path, split: str) -> dict[str, Path]:
    """Return a subset's clips by name. The archives also contain clips that are in no table."""
    folder = next((root / name for name in FOLDERS[split] if (root / name).is_dir()), None)
    paths = sorted(visible_files(folder, SUFFIXES), key=lambda path: -SUFFIXES[path.suffix.lower()]) if folder else ()
    return {path.stem: path for path in paths if re.fullmatch(r"dia\d+_utt\d+", path.stem)}


def _utterance(row: Record, split: str, name: str, clip: Path | None) -> Utterance:
    speaker = row.text("Speaker")
    return Utterance(
        f"{split}_{name}",
        "meld",
        clip,
        EMOTIONS[row.text("Emotion")],
        speaker=speaker,
        gender=GENDERS.get(speaker, ""),
        session=f"s{row.number('Season'):02}e{row.number('Episode'):02}",
        dialogue=f"{split}/{row.number('Dialogue_ID')}",
        language="en",
        text=row.as_written("Utterance"),
        split=split,
    )


def remarks(_: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Return a remark for each published clip that has a fault."""
    clips = {utterance.id for utterance in utterances if utterance.audio}
    return [f"{name}: {fault} as published" for name, fault in FLAWED.items() if name in clips]


MELD = Corpus(
    name="meld",
    title="MELD",
    language="en",
    license="GPL-3.0",
    source="Poria et al. 2019, affective-meld.github.io",
    style="acted, a television series",
    reader=read,
    published=(
        Published(
            9989,
            split="train",
            dialogues=1038,
            emotions={
                "angry": 1109, "disgust": 271, "fear": 268, "happy": 1743, "neutral": 4710, "sad": 683, "surprise": 1205,
            },
        ),
        Published(
            1109,
            split="dev",
            dialogues=114,
            emotions={
                "angry": 153, "disgust": 22, "fear": 40, "happy": 163, "neutral": 470, "sad": 111, "surprise": 150,
            },
        ),
        Published(
            2610,
            split="test",
            dialogues=280,
            emotions={
                "angry": 345, "disgust": 68, "fear": 50, "happy": 402, "neutral": 1256, "sad": 208, "surprise": 281,
            },
        ),
    ),
    remarks=remarks,
)  # fmt: skip
