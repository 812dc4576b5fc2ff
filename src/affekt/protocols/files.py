"""Read splits from split files, folders of folds, runs, bundles, and tables from other sources."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from affekt.corpora.subsets import SUBSET_NAMES, is_subset, name_subsets
from affekt.errors import BadConfig, BadCorpus
from affekt.plural import quantity
from affekt.protocols.split import Split, utterance_key
from affekt.registry import did_you_mean
from affekt.tabular.columns import NAMES, find_column
from affekt.tabular.record import Record
from affekt.tabular.seconds import parse_seconds
from affekt.tabular.table import SUFFIXES, Table, open_table
from affekt.utterance import Utterance

ID_COLUMNS = ("id", "utterance", *NAMES["audio"], "name")
"""Accepted names of the column of utterance ids or audio paths in a table."""
SUBSET_COLUMNS = (*NAMES["split"], "fold")
"""Accepted names of the column of subsets in a table."""
USUAL_NAMES = [word for words in SUBSET_NAMES.values() for word in words if len(word) > 3 or word in ("dev", "val")]


@dataclass(frozen=True)
class _Row:
    """A row of a table of subsets."""

    position: str
    name: str
    """Id or path of an utterance."""
    subset: str
    segment: tuple[float, float | None] | None
    """Start and end, if the table has them."""


def read_splits(path: Path, utterances: Sequence[Utterance], delimiter: str = "") -> list[Split]:
    """Read the split of a file, a run folder or a bundle, or all folds of a folder of folds or runs.

    Args:
        path: The file or folder.
        utterances: The utterances to which the ids or paths of a table refer.
        delimiter: The delimiter of a table; "" to detect it.

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
    if path.suffix.lower() in SUFFIXES:
        return [read_table(path, utterances, delimiter)]
    return [Split.load(path)]


def read_table(path: Path, utterances: Sequence[Utterance], delimiter: str = "") -> Split:
    """Read a split from a table with a column of utterance ids or audio paths and a column of subsets.

    Only the end of a path must match, so that the table may come from another machine.

    Raises:
        BadConfig: The table lacks such columns, or a row matches no utterance or several.
    """
    table = _open(path, delimiter)
    try:
        rows = _rows(table)
    except BadCorpus as error:
        raise BadConfig(str(error)) from error
    if not rows:
        raise BadConfig(f"{path} has no rows: expected a row per utterance below the column names")
    index, names = _index(utterances), _name_subsets(path, rows)
    segments = {utterance_key(utterance): (utterance.start, utterance.end) for utterance in utterances}
    subsets: dict[str, list[str]] = defaultdict(list)
    positions: dict[tuple[str, str], str] = {}
    unmatched = []
    for row in rows:
        keys = _find(row.name, index)
        if len(keys) > 1 and row.segment is not None:
            keys = {key for key in keys if segments[key] == row.segment}
        if len(keys) != 1 or not row.subset:
            unmatched.append(
                f"{row.name!r} ({quantity(len(keys), 'utterance')}, subset {row.subset!r}) in {row.position}"
            )
            continue
        key, subset = keys.pop(), names[row.subset]
        if (first := positions.setdefault((key, subset), row.position)) is not row.position:
            raise BadConfig(f"{path}: {first} and {row.position} are both {key} in {subset!r}: remove one of them")
        subsets[subset].append(key)
    if unmatched:
        raise BadConfig(
            f"{path}: {len(unmatched)} of {len(rows)} rows do not match one utterance and a subset, first {unmatched[0]}: "
            "correct these rows, or remove them"
        )
    return Split.of(utterances, subsets, path.name)


def _rows(table: Table) -> list[_Row]:
    id_column, subset_column = _column(table, ID_COLUMNS), _column(table, SUBSET_COLUMNS)
    times = {field: column for field in ("start", "end") if (column := find_column((field,), table.columns))}
    return [
        _Row(
            record.position,
            record.as_written(id_column),
            record.text(subset_column),
            _segment(record, times) if times else None,
        )
        for record in table.records([id_column, subset_column, *times.values()])
    ]


def _segment(record: Record, times: Mapping[str, str]) -> tuple[float, float | None]:
    start, end = (parse_seconds(record, times[field], field) if field in times else None for field in ("start", "end"))
    return start or 0.0, end


def _name_subsets(path: Path, rows: Sequence[_Row]) -> dict[str, str]:
    """Return word -> usual name of the subset; raise `BadConfig` for a word that is probably a misspelled name."""
    names = name_subsets({row.subset for row in rows})
    if any(is_subset(word) for word in names):
        for row in rows:
            if row.subset and not is_subset(row.subset) and (near := did_you_mean(row.subset.lower(), USUAL_NAMES)):
                raise BadConfig(f"{path}, {row.position}: no subset {row.subset!r}{near}")
    return names


def _open(path: Path, delimiter: str) -> Table:
    if not path.exists():
        raise BadConfig(f"{path} does not exist: expected a split")
    try:
        return open_table(path, delimiter)
    except BadCorpus as error:
        raise BadConfig(str(error)) from error


def _column(table: Table, names: Sequence[str]) -> str:
    column = find_column(names, [column for column in table.columns if column])
    if column is None:
        columns = ", ".join(table.columns)
        raise BadConfig(
            f"{table.path} has columns {columns}: expected one called {', '.join(names[:-1])} or {names[-1]}"
        )
    return column


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
            index[unicodedata.normalize("NFC", name)].add(utterance_key(utterance))
    return index


def _find(name: str, index: Mapping[str, set[str]]) -> set[str]:
    """Return the keys of the utterances with this id, or with the longest known end of this path."""
    name = unicodedata.normalize("NFC", name)
    if name in index:
        return set(index[name])
    path = PurePosixPath(name.strip().replace("\\", "/"))
    parts = (*path.parts[:-1], path.stem)
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((set(index[end]) for end in ends if end in index), set())
