"""Files of embeddings: Parquet, CSV, or NPY with the names of the recordings in a table beside it.

During a run, embeddings are appended to a journal, NAME.partial.jsonl, from which the file is written at the end. A run that
is interrupted continues from the journal.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from affekt.errors import BadOutput
from affekt.extras import need
from affekt.files import atomic_write
from affekt.inference.embedding import Embedding
from affekt.inference.journaled_file import JournaledFile, partial_path
from affekt.json_text import to_json

SUFFIXES = (".parquet", ".npy", ".csv")
COLUMNS = ("file", "status", "duration", "speech", "model", "error.code", "error.message")


class EmbeddingsFile(JournaledFile):
    """A file of embeddings that is being written (`affekt.inference.journaled_file`).

    Args:
        path: The file, which must not exist yet.
        size: Number of values of an embedding.

    Raises:
        BadOutput: The suffix is unknown, or the file exists, cannot be written or is being written by another run.
        MissingExtra: The format needs an extra that is not installed.
    """

    kind = "embeddings"

    def __init__(self, path: Path, size: int) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise BadOutput(f"embeddings {path}: expected a name ending in {', '.join(SUFFIXES)}")
        if path.suffix.lower() == ".parquet":
            need("pyarrow", extra="parquet", purpose=f"writing {path.name}")
        for existing in (path, *([names_path(path)] if path.suffix.lower() == ".npy" else [])):
            if os.path.lexists(existing):  # also a link to nothing
                raise BadOutput(f"{existing} exists: choose another name, or delete it to compute it again")
        self.size = size
        self._written: list[Embedding] = []
        super().__init__(path, partial_path(path))

    def _open_journal(self) -> IO[str]:
        self._stored = _read_journal(self.journal)
        return self.journal.open("a", encoding="utf-8", newline="\n")

    def find(self, file: str, model: str, source: Mapping[str, float] | None) -> Embedding | None:
        """Return the embedding of a file from an interrupted run; None if there is none, or the file has changed since then.

        Args:
            file: The name of the file.
            model: The model's id.
            source: The file's size and time of change now; None if they are unknown.
        """
        entry = self._stored.get(file)
        if entry is None or source is None or (entry["source"], entry["model"]) != (source, model) or entry["error"]:
            return None
        return Embedding.from_message({name: value for name, value in entry.items() if name != "source"})

    def append(self, embedding: Embedding, source: Mapping[str, float] | None) -> None:
        """Add an embedding in the order of the file, with the size and the time of change of its recording."""
        self._written.append(embedding)
        self._write_line(to_json({**embedding.to_message(), "source": source}) + "\n")

    def _write_file(self, temporary: Path) -> None:
        WRITERS[self.path.suffix.lower()](temporary, self._written, self.size, self.path)


def names_path(path: Path) -> Path:
    """Return the path of the table of names beside an NPY file: embeddings.files.csv for embeddings.npy."""
    return path.with_name(f"{path.stem}.files.csv")


def _read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a journal by file, up to a line that a killed run left incomplete."""
    entries: dict[str, dict[str, Any]] = {}
    if path.exists():
        with suppress(ValueError, KeyError, TypeError), path.open(encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                Embedding.from_message({name: value for name, value in entry.items() if name != "source"})
                entries[entry["file"]] = entry
        path.write_text("".join(to_json(entry) + "\n" for entry in entries.values()), encoding="utf-8")
    return entries


def _cells(embedding: Embedding) -> list[Any]:
    error = embedding.error or {"code": "", "message": ""}
    plain = [embedding.file, embedding.status, embedding.duration, embedding.speech, embedding.model]
    return [*plain, error["code"], error["message"]]


def _write_csv(path: Path, embeddings: Sequence[Embedding], size: int, _: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *(f"e{index}" for index in range(size))])
        for embedding in embeddings:
            vector = [""] * size if embedding.vector is None else [f"{value:.6g}" for value in embedding.vector]
            writer.writerow([*_cells(embedding), *vector])


def _write_npy(path: Path, embeddings: Sequence[Embedding], size: int, final_path: Path) -> None:
    """Write an array, (recordings, size), whose rows are NaN where there is no embedding, and the table of names."""
    missing = np.full(size, np.nan, np.float32)
    rows = [missing if embedding.vector is None else embedding.vector for embedding in embeddings]
    with path.open("wb") as file:
        np.save(file, np.array(rows, np.float32).reshape(len(rows), size), allow_pickle=False)
    with atomic_write(names_path(final_path)) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *map(_cells, embeddings)])


def _write_parquet(path: Path, embeddings: Sequence[Embedding], size: int, _: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    schema = pa.schema(
        [
            ("file", pa.string()),
            ("status", pa.string()),
            ("duration", pa.float64()),
            ("speech", pa.float64()),
            ("model", pa.string()),
            ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
            ("embedding", pa.list_(pa.float32(), size)),
        ]
    )
    rows = [{**vars(embedding), "embedding": embedding.vector} for embedding in embeddings]
    columns = [[row[name] for row in rows] for name in schema.names]
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    pyarrow.parquet.write_table(pa.table(arrays, schema=schema), path)


WRITERS = {".parquet": _write_parquet, ".npy": _write_npy, ".csv": _write_csv}
"""Suffix -> function that writes embeddings of a size to a temporary path, given the final one too."""
