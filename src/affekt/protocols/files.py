"""Read splits from split files, folders of folds, runs, bundles, and tables from other sources."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from affekt.corpora.subsets import name_subsets
from affekt.errors import BadConfig
from affekt.protocols.split import Split, utterance_key
from affekt.utterance import Utterance

TABLES = {".csv", ".tsv", ".txt"}
ID_COLUMNS = ("id", "utterance", "file", "filename", "path", "filepath", "audio", "audio_path", "wav", "name")
"""Accepted names of the column of utterance ids or audio paths in a table."""
SUBSET_COLUMNS = ("part", "split", "set", "subset", "partition", "fold")
"""Accepted names of the column of subsets in a table."""


def read_splits(path: Path, utterances: Sequence[Utterance]) -> list[Split]:
    """Read the split of a file, a run folder or a bundle, or all folds of a folder of folds or runs.

    Args:
        path: The file or folder.
        utterances: The utterances to which the ids or paths of a table refer.

    Raises:
        BadConfig: There is no valid split.
    """
    if path.is_dir():
        inside = path / "split.json"
        files = [inside] if inside.is_file() else sorted(path.glob("fold-*.json")) or sorted(path.rglob("split.json"))
        if not files:
            raise BadConfig(f"{path} has neither split.json nor fold-01.json: expected a run, a bundle or saved folds")
        splits = [Split.load(file) for file in files]
        # Runs that differ only by seed have the same split.
        return list({split.hash: split for split in splits}.values())
    if path.suffix.lower() in TABLES:
        return [read_table(path, utterances)]
    return [Split.load(path)]


def read_table(path: Path, utterances: Sequence[Utterance]) -> Split:
    """Read a split from a table with a column of utterance ids or audio paths and a column of subsets.

    Only the end of a path must match, so that the table may come from another machine.

    Raises:
        BadConfig: The table lacks such columns, or a row matches no utterance or several.
    """
    rows = _rows(path)
    id_column, subset_column = _column(path, rows[0], ID_COLUMNS), _column(path, rows[0], SUBSET_COLUMNS)
    index, names = _index(utterances), name_subsets({row[subset_column] or "" for row in rows})
    subsets: dict[str, list[str]] = defaultdict(list)
    unmatched = []
    for row in rows:
        keys = _find(row[id_column] or "", index)
        if len(keys) == 1 and (row[subset_column] or "").strip():
            subsets[names[row[subset_column]]].append(keys.pop())
        else:
            unmatched.append(f"{row[id_column]!r} ({len(keys)} utterances, subset {row[subset_column]!r})")
    if unmatched:
        raise BadConfig(
            f"{path}: {len(unmatched)} of {len(rows)} rows do not match one utterance and a subset, first {unmatched[0]}"
        )
    return Split.of(utterances, subsets, path.name)


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
    matches = [column for name in names for column in row if column and column.strip().lower() == name]
    if not matches:
        columns = ", ".join(str(column) for column in row)
        raise BadConfig(f"{path} has columns {columns}: expected one called {', '.join(names[:-1])} or {names[-1]}")
    return matches[0]


def _index(utterances: Sequence[Utterance]) -> dict[str, set[str]]:
    """Map every id and end of a path to the keys of the utterances that it may refer to."""
    index: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        names = {utterance_key(utterance), utterance.id}
        if utterance.audio is not None:
            # Every end of the path, since files in different folders may have the same name.
            parts = utterance.audio.with_suffix("").parts
            names |= {"/".join(parts[start:]) for start in range(len(parts))}
        for name in names:
            index[name].add(utterance_key(utterance))
    return index


def _find(name: str, index: Mapping[str, set[str]]) -> set[str]:
    """Return the keys of the utterances with this id, or with the longest known end of this path."""
    if name in index:
        return set(index[name])
    path = PurePosixPath(name.strip().replace("\\", "/"))
    parts = (*path.parts[:-1], path.stem)
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((set(index[end]) for end in ends if end in index), set())
