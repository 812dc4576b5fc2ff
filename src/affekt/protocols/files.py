"""Read splits from split files, folders of folds, runs, bundles, and tables from other sources."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from affekt.corpora.subsets import SUBSET_NAMES, is_subset, name_subsets
from affekt.errors import BadConfig, BadCorpus
from affekt.plural import quantity
from affekt.protocols.split import Split, utterance_key
from affekt.registry import did_you_mean
from affekt.tabular.columns import NAMES, find_column, plain
from affekt.tabular.record import Record
from affekt.tabular.seconds import parse_seconds
from affekt.tabular.table import SUFFIXES, Table, open_table
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

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


def read_splits(
    path: Path,
    utterances: Sequence[Utterance],
    delimiter: str = "",
    *,
    column: str = "",
    allow_missing: bool = False,
) -> list[Split]:
    """Read the split of a file, a run folder or a bundle, or all folds of a folder of folds or runs.

    A fold may also be a folder with a table for each subset, whose name includes the subset's: "train.csv", or EmoBox's
    "fold_1/emodb_test_fold_1.jsonl". The folder `path` is such a fold, or contains several.

    Args:
        path: The file or folder.
        utterances: The utterances to which the ids or paths of a table refer.
        delimiter: The delimiter of a table; "" to detect it.
        column: The column of subsets of a table; "" to find it by its name.
        allow_missing: Skip the rows of a table that match no utterance; otherwise they are an error.

    Raises:
        BadConfig: There is no valid split.
    """
    if column and path.suffix.lower() not in SUFFIXES:
        raise BadConfig(f"{path} has no columns, so column = {column!r} has no meaning: expected a table, or no column")
    if path.is_dir():
        return _read_folder(path, utterances, delimiter, allow_missing=allow_missing)
    if path.suffix.lower() in SUFFIXES:
        return [read_table(path, utterances, delimiter, column=column, allow_missing=allow_missing)]
    return [Split.load(path)]


def _read_folder(path: Path, utterances: Sequence[Utterance], delimiter: str, *, allow_missing: bool) -> list[Split]:
    inside = path / "split.json"
    files = [inside] if inside.is_file() else sorted(path.glob("fold-*.json")) or sorted(path.rglob("split.json"))
    if files:
        # Runs that differ only by seed have the same split.
        return list({split.hash: split for split in map(Split.load, files)}.values())
    folders = (
        [path]
        if _subset_tables(path)
        else sorted(filter(Path.is_dir, path.iterdir()), key=lambda folder: natural_order(folder.name))
    )
    folds = [(folder, tables) for folder in folders if (tables := _subset_tables(folder))]
    if not folds:
        raise BadConfig(
            f"{path} has neither split.json nor fold-01.json nor a table for each subset (train.csv, test.csv): expected "
            "a run, a bundle or saved folds"
        )
    index = _index(utterances)
    splits = []
    for folder, tables in folds:
        subsets = {
            subset: _match(table, _rows(_open(table, delimiter), subset), utterances, index, allow_missing)[subset]
            for subset, table in tables.items()
        }
        fold = "" if folder == path else folder.name
        splits.append(Split.of(utterances, subsets, path.name, fold=fold))
    return splits


def _subset_tables(folder: Path) -> dict[str, Path]:
    """Return the table of each subset in a folder: that whose name includes a name of this subset only."""
    tables: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        words = {word for word in re.split(r"[\W_\d]+", path.stem) if word and is_subset(word)}
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or len(words) != 1:
            continue
        (subset,) = name_subsets(words).values()
        if (other := tables.setdefault(subset, path)) is not path:
            raise BadConfig(f"{other} and {path.name} are both tables of the subset {subset!r}: remove one of them")
    return tables


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which "fold 2" is before "fold 10"."""
    return [(int(number or -1), text) for number, text in re.findall(r"(\d+)|(\D+)", name)]


def read_table(
    path: Path,
    utterances: Sequence[Utterance],
    delimiter: str = "",
    *,
    column: str = "",
    allow_missing: bool = False,
) -> Split:
    """Read a split from a table with a column of utterance ids or audio paths and a column of subsets.

    Only the end of a path must match, so that the table may come from another machine. The arguments are those of
    `read_splits`.

    Raises:
        BadConfig: The table lacks such columns, or a row matches no utterance or several.
    """
    rows = _rows(_open(path, delimiter), column=column)
    names = _name_subsets(path, rows)
    rows = [replace(row, subset=names[row.subset]) for row in rows]
    return Split.of(utterances, _match(path, rows, utterances, _index(utterances), allow_missing), path.name)


def _match(
    path: Path,
    rows: Sequence[_Row],
    utterances: Sequence[Utterance],
    index: Mapping[str, set[str]],
    allow_missing: bool,
) -> dict[str, list[str]]:
    """Return the keys of the utterances of each subset. Raises `BadConfig` for rows that do not match one utterance."""
    segments = {utterance_key(utterance): (utterance.start, utterance.end) for utterance in utterances}
    subsets: dict[str, list[str]] = defaultdict(list)
    positions: dict[tuple[str, str], str] = {}
    unmatched, missing = [], []
    for row in rows:
        keys = _find(row.name, index)
        if len(keys) > 1 and row.segment is not None:
            keys = {key for key in keys if segments[key] == row.segment}
        if not keys and row.subset and allow_missing:
            missing.append(row)
            continue
        if len(keys) != 1 or not row.subset:
            unmatched.append(
                f"{row.name!r} ({quantity(len(keys), 'utterance')}, subset {row.subset!r}) in {row.position}"
            )
            continue
        key = keys.pop()
        if (first := positions.setdefault((key, row.subset), row.position)) is not row.position:
            raise BadConfig(f"{path}: {first} and {row.position} are both {key} in {row.subset!r}: remove one of them")
        subsets[row.subset].append(key)
    if unmatched:
        raise BadConfig(
            f"{path}: {len(unmatched)} of {len(rows)} rows do not match one utterance and a subset, first {unmatched[0]}: "
            "correct these rows, or remove them"
        )
    if missing:
        logger.warning(
            "%s: %d of %d rows match no utterance of the corpora, first %r: they are left out",
            path,
            len(missing),
            len(rows),
            missing[0].name,
        )
    return subsets


def _rows(table: Table, subset: str = "", *, column: str = "") -> list[_Row]:
    """Return the rows of a table; with `subset`, all belong to it, otherwise a column names the subset of each."""
    id_column = _column(table, ID_COLUMNS)
    subset_column = None if subset else _column(table, (column,) if column else SUBSET_COLUMNS)
    times = {field: name for field in ("start", "end") if (name := find_column((field,), table.columns))}
    needed = [name for name in (id_column, subset_column, *times.values()) if name is not None]
    try:
        rows = [
            _Row(
                record.position,
                record.as_written(id_column),
                subset if subset_column is None else record.text(subset_column),
                _segment(record, times) if times else None,
            )
            for record in table.records(needed)
        ]
    except BadCorpus as error:
        raise BadConfig(str(error)) from error
    if not rows:
        raise BadConfig(f"{table.path} has no rows: expected a row per utterance below the column names")
    return rows


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
    column = find_column([plain(name) for name in names], [column for column in table.columns if column])
    if column is None:
        columns, expected = ", ".join(table.columns), " or ".join([", ".join(names[:-1]), names[-1]][len(names) < 2 :])
        raise BadConfig(f"{table.path} has columns {columns}: expected one called {expected}")
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
