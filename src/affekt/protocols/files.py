"""Splits from wherever they stand: a file of ours, a folder of folds, a run, a bundle, and tables that others made."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from affekt.errors import BadConfig
from affekt.protocols.base import part_name
from affekt.protocols.split import Split, key
from affekt.utterance import Utterance

TABLES = {".csv", ".tsv", ".txt"}
# What the two columns of a foreign table may be called.
NAMES = ("id", "utterance", "file", "filename", "path", "filepath", "audio", "audio_path", "wav", "name")
PARTS = ("part", "split", "set", "subset", "partition", "fold")


def read_splits(path: Path, utterances: Sequence[Utterance]) -> list[Split]:
    """The split in a file, a run folder or a bundle, or the folds in a folder of them or of their runs.

    utterances: those that a foreign table's ids or paths may mean. Raises `BadConfig`.
    """
    if path.is_dir():
        inside = path / "split.json"
        files = [inside] if inside.is_file() else sorted(path.glob("fold-*.json")) or sorted(path.rglob("split.json"))
        if not files:
            raise BadConfig(
                f"{path} holds neither split.json nor fold-01.json: expected a run, a bundle or saved folds"
            )
        splits = [Split.load(file) for file in files]
        return list({split.hash: split for split in splits}.values())  # runs that differ by their seeds have one split
    if path.suffix.lower() in TABLES:
        return [read_table(path, utterances)]
    return [Split.load(path)]


def read_table(path: Path, utterances: Sequence[Utterance]) -> Split:
    """A split that others wrote as a table with a column of ids or paths and a column of parts.

    A row means the utterance of that id, or of that file by its path's end. Raises `BadConfig` for a table without such
    columns, and for rows that mean no utterance, or more than one.
    """
    rows = _rows(path)
    named, part = _column(path, rows[0], NAMES), _column(path, rows[0], PARTS)
    meant = _index(utterances)
    parts: dict[str, list[str]] = defaultdict(list)
    strangers = []
    for row in rows:
        found = _find(row[named] or "", meant)
        if len(found) == 1 and (row[part] or "").strip():
            parts[part_name(row[part])].append(found.pop())
        else:
            strangers.append(f"{row[named]!r} ({len(found)} utterances, part {row[part]!r})")
    if strangers:
        raise BadConfig(
            f"{path}: {len(strangers)} of {len(rows)} rows do not place one utterance in a part, first {strangers[0]}"
        )
    return Split.of(utterances, parts, path.name)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadConfig(f"{path} does not exist: expected a split") from None
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path} is not text in UTF-8: {error}") from error
    lines = text.splitlines()
    separator = max(",;\t", key=(lines[0] if lines else "").count)
    rows = list(csv.DictReader(lines, delimiter=separator, restval=""))
    if not rows:
        raise BadConfig(f"{path} is empty: expected a row of column names, and a row per utterance")
    return rows


def _column(path: Path, row: Mapping[str, str], names: Sequence[str]) -> str:
    found = [column for name in names for column in row if column and column.strip().lower() == name]
    if not found:
        columns = ", ".join(str(column) for column in row)
        raise BadConfig(f"{path} has columns {columns}: expected one called {', '.join(names[:-1])} or {names[-1]}")
    return found[0]


def _index(utterances: Sequence[Utterance]) -> dict[str, set[str]]:
    """Every word that may mean an utterance -> the keys of those it may mean."""
    index: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        words = {key(utterance), utterance.id}
        if utterance.audio is not None:
            # A path's every end, so that "wav/03a01Fa.wav" is told from another folder's file of that name.
            parts = utterance.audio.with_suffix("").parts
            words |= {"/".join(parts[start:]) for start in range(len(parts))}
        for word in words:
            index[word].add(key(utterance))
    return index


def _find(word: str, index: Mapping[str, set[str]]) -> set[str]:
    """The utterances that a word means: by the id itself, or by the longest end of the path that is known."""
    if word in index:
        return set(index[word])
    path = PurePosixPath(word.strip().replace("\\", "/"))
    parts = (*path.parts[:-1], path.stem)
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((set(index[end]) for end in ends if end in index), set())
