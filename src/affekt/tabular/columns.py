"""The usual names of columns, which are the same for every command that reads tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from affekt.invisible import remove_invisible

NAMES = {
    "audio": (
        "audio",
        "file",
        "path",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "audio_path",
        "audio_file",
        "audio_filepath",
        "wav",
        "wav_path",
        "wav_file",
    ),
    "emotion": ("emotion", "label", "category", "emotion_label"),
    "speaker": (
        "speaker",
        "speaker_id",
        "spk",
        "spk_id",
        "client_id",
        "speaker_name",
        "actor",
        "actor_id",
        "participant_id",
    ),
    "gender": ("gender", "sex"),
    "text": ("text", "transcription", "transcript", "sentence"),
    "split": ("split", "subset", "partition", "set", "part"),
}
"""Field -> names of its column, in order of preference if a table has several of them."""
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[a-z]{2})(?=[A-Z])")


def plain(name: str) -> str:
    """Return a column's name in lower case, with underscores between words: "File Name" and "fileName" become "file_name"."""
    words = _CAMEL_CASE.sub(" ", remove_invisible(name)).replace("-", " ")
    return "_".join(words.casefold().split())


def find_column(names: Sequence[str], columns: Iterable[str]) -> str | None:
    """Return the column with one of these names, the earlier name if there are several; None if there is none."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(plain(column), column)
    return next((by_name[name] for name in names if name in by_name), None)
