"""The manifest of a collection: a table with a column of audio files, or a folder or URL whose files are listed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from affekt.audio.folders import SUFFIXES as AUDIO
from affekt.audio.folders import find_files, is_folder
from affekt.corpora.audio_paths import find_audio
from affekt.errors import BadConfig, BadCorpus
from affekt.json_text import to_json
from affekt.registry import did_you_mean
from affekt.storage import download, is_url, join, local_path, open_filesystem
from affekt.tabular.columns import NAMES, find_column
from affekt.tabular.missing import is_missing
from affekt.tabular.record import Record
from affekt.tabular.seconds import parse_seconds
from affekt.tabular.table import SUFFIXES, StreamedTable, stream_table

logger = logging.getLogger(__name__)

FIELDS = ("audio", "start", "end")
"""The fields that affekt reads from a manifest. All other columns are copied to the results ("carried over")."""


@dataclass(frozen=True)
class Clip:
    """A row of a manifest: a recording, or a segment of one."""

    audio: str
    """The file name in the manifest; "" if the row has none."""
    start: float = 0.0
    """In seconds."""
    end: float | None = None
    """In seconds; None for the end of the file."""
    carried: Mapping[str, Any] = field(default_factory=dict)
    """Column -> value, for the columns that are carried over: None, text, a number, a boolean, or a list or object of
    JSON."""

    @property
    def is_whole(self) -> bool:
        """Whether the clip is the whole recording."""
        return self.start == 0.0 and self.end is None


@dataclass(frozen=True)
class Manifest:
    """An open manifest."""

    name: str
    """The file, folder or URL as given."""
    base: str
    """The folder, or its URL, that relative file names start from."""
    clips: Iterator[Clip]
    """Reads the rows lazily; can be iterated over only once."""
    kinds: Mapping[str, str]
    """Column to carry over -> the kind of its values, as far as it is known before the rows are read: "text", "integer",
    "number", "boolean" or "nested"."""


@contextmanager
def open_manifest(name: str, columns: Mapping[str, str] | None = None, delimiter: str = "") -> Iterator[Manifest]:
    """Open a manifest, and yield it; a table at a URL is downloaded to a temporary file, which is deleted afterwards.

    Args:
        name: A table (.csv, .tsv, .txt, .jsonl, .ndjson, .parquet), or a folder with audio files; or the URL of either.
        columns: Field of FIELDS -> column; by default, the columns are found by their usual names. "" for a field means that
            the table has no such column.
        delimiter: The delimiter of a text file; by default it is detected.

    Raises:
        BadConfig: `columns` or `delimiter` is invalid, or the URL is.
        BadCorpus: The manifest does not exist, cannot be read, or has no column of audio files. The iterator `clips` raises
            it if a row is invalid.
        MissingExtra: The format or the URL needs a package that is not installed.
    """
    name = local_path(name)
    is_table = PurePosixPath(name).suffix.lower() in SUFFIXES
    if is_url(name):
        if not is_table:
            yield Manifest(name, "", _list_url(name), {})
            return
        with TemporaryDirectory() as folder:
            copy = Path(folder, PurePosixPath(name).name)
            try:
                download(name, copy)
            except OSError as error:
                raise BadCorpus(f"{name} cannot be read: {error.strerror or error}") from error
            yield _open_table(name, name.rpartition("/")[0], stream_table(copy, delimiter), columns or {})
    elif is_folder(name):
        yield Manifest(name, str(Path.cwd()), _list_folder(Path(name)), {})
    else:
        path = Path(name)
        if not path.exists():
            raise BadCorpus(f"{name} not found: expected a table of audio files, or a folder of them")
        base = str(path.absolute().parent)
        yield _open_table(name, base, stream_table(path, delimiter), columns or {})


def locate(base: str, name: str) -> str:
    """Return the path or URL of the file `name`; a relative name starts from `base`, the manifest's folder."""
    if is_url(name):
        return name
    if is_url(base):
        return name if Path(name).is_absolute() else join(base, name)
    return str(find_audio(Path(base), name))


def _list_folder(folder: Path) -> Iterator[Clip]:
    files = find_files(folder)
    if not files:
        raise BadCorpus(f"{folder} has no audio files: expected a folder with audio files, or a table that lists them")
    return (Clip(str(path)) for path in files)


def _list_url(url: str) -> Iterator[Clip]:
    """Return the audio files below a URL, in the order of their names; hidden files and folders are skipped."""
    filesystem, root = open_filesystem(url)
    try:
        paths = sorted(filesystem.find(root))
    except Exception as error:  # libraries for object stores have errors of their own
        raise BadCorpus(f"{url} cannot be listed: {error or type(error).__name__}") from error
    start = len(root.rstrip("/"))
    paths = [path for path in paths if PurePosixPath(path).suffix.lower() in AUDIO and "/." not in path[start:]]
    if not paths:
        raise BadCorpus(f"{url} has no audio files: expected the URL of a folder with audio files, or of a table")
    return (Clip(filesystem.unstrip_protocol(path)) for path in paths)


def _open_table(name: str, base: str, table: StreamedTable, columns: Mapping[str, str]) -> Manifest:
    if unknown := [field for field in columns if field not in FIELDS]:
        raise BadConfig(
            f"columns: no field {unknown[0]!r}{did_you_mean(unknown[0], FIELDS)} (known: {', '.join(FIELDS)}); all other "
            "columns are carried over to the results"
        )
    if table.columns is None:
        return Manifest(name, base, _json_clips(name, table, columns), {})
    fields = _find_columns(name, table.columns, columns)
    carried = [column for column in table.columns if column and column not in fields.values()]
    if left_out := [column for column in carried if table.kinds.get(column) == "bytes"]:
        logger.warning("%s: columns of bytes are not carried over to the results: %s", name, ", ".join(left_out))
    carried = [column for column in carried if column not in left_out]
    _check_kind(name, fields["audio"], table.kinds)
    records = table.records([*fields.values(), *carried])
    clips = (_read_clip(record, fields, carried) for record in records)
    return Manifest(name, base, clips, {column: table.kinds[column] for column in carried})


def _json_clips(name: str, table: StreamedTable, columns: Mapping[str, str]) -> Iterator[Clip]:
    fields: dict[str, str] = {}
    for record in table.records([]):
        # A line may lack a field that earlier lines have, or be the first with this field.
        if not fields or (set(record.values) - set(fields.values()) and len(fields) < len(FIELDS)):
            fields |= _find_columns(name, list(dict.fromkeys([*fields.values(), *record.values])), columns)
        yield _read_clip(record, fields, [column for column in record.values if column not in fields.values()])


def _find_columns(name: str, present: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """Return field -> column for the fields that a manifest has."""
    for column in chosen.values():
        if column and column not in present:
            raise BadCorpus(
                f"{name} has no column {column!r}{did_you_mean(column, present)} (it has: {', '.join(present)})"
            )
    usual = {field: find_column(NAMES.get(field, (field,)), present) for field in FIELDS}
    fields = {field: column for field, column in {**usual, **chosen}.items() if column}
    if "audio" not in fields:
        raise BadCorpus(
            f"{name} has no column of audio files (it has: {', '.join(present)}): name it audio, file or path, or choose "
            "another one with --column audio=COLUMN"
        )
    return fields


def _check_kind(name: str, column: str, kinds: Mapping[str, str]) -> None:
    if (kind := kinds.get(column, "text")) != "text":
        raise BadCorpus(
            f"{name}: column {column!r} contains {kind} values: expected names of audio files; choose the column with "
            "--column audio=COLUMN"
        )


def _read_clip(record: Record, fields: Mapping[str, str], carried: Sequence[str]) -> Clip:
    start = parse_seconds(record, fields["start"], "start") if "start" in fields else None
    end = parse_seconds(record, fields["end"], "end") if "end" in fields else None
    if end is not None and end <= (start or 0.0):
        raise record.error(f"end {end:g} is not after start {start or 0.0:g}")
    values = {column: _plain(record.values.get(column)) for column in carried}
    return Clip(record.text(fields["audio"]), start or 0.0, end, values)


def _plain(value: Any) -> Any:
    """Convert a value to a type of JSON; a missing number or an empty text becomes None."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, list | tuple | Mapping):
        return json.loads(to_json(value))
    if isinstance(value, int | float):
        return None if is_missing(value) else value
    return None if value is None else str(value)
