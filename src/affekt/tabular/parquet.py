"""Parquet: only the columns that are asked for are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from affekt.errors import BadCorpus
from affekt.extras import need
from affekt.tabular.record import Record

SECONDS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Unit of a duration -> its number in a second."""

STREAMED_ROWS = 8192
"""Number of rows that are read at a time when a file is streamed."""


class Parquet:
    """A Parquet file whose schema is read.

    Raises:
        MissingExtra: Pyarrow is not installed.
        BadCorpus: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parquet = need("pyarrow.parquet", extra="parquet", purpose=f"reading {path}")
        self._arrow = need("pyarrow", extra="parquet", purpose=f"reading {path}")
        # Errors of Arrow, and those of Python for values that its types do not have.
        self._errors = (self._arrow.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError)
        try:
            with self._parquet.ParquetFile(path) as file:
                self._schema = file.schema_arrow
        except self._errors as error:
            raise BadCorpus(f"{path} is not Parquet: {_first_line(error)}") from error
        self.columns: list[str] = list(self._schema.names)
        self._class_names = _class_names(self._schema.metadata or {})

    def records(self, columns: Sequence[str]) -> list[Record]:
        """Return the rows with these columns.

        Raises:
            BadCorpus: Several columns have one of the names, or the file cannot be read.
        """
        self._require_unique(columns)
        try:
            with self._parquet.ParquetFile(self.path) as file:
                table = file.read(columns=list(columns))
        except self._errors as error:
            raise self._damage(error) from error
        return list(self._records(table, columns, 0))

    def stream(self, columns: Sequence[str]) -> Iterator[Record]:
        """Yield the rows with these columns, some thousands of which are in memory at a time; errors as for `records`."""
        self._require_unique(columns)
        start = 0
        try:
            with self._parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(STREAMED_ROWS, columns=list(columns)):
                    yield from self._records(self._arrow.Table.from_batches([batch]), columns, start)
                    start += batch.num_rows
        except BadCorpus:
            raise
        except self._errors as error:
            raise self._damage(error) from error

    def _records(self, table: Any, columns: Sequence[str], start: int) -> Iterator[Record]:
        values = {name: self._values(table, name) for name in columns}
        for row in range(table.num_rows):
            yield Record(self.path, f"row {start + row + 1}", {name: column[row] for name, column in values.items()})

    def _require_unique(self, columns: Sequence[str]) -> None:
        repeated = [name for name, number in Counter(self.columns).items() if number > 1 and name in columns]
        if repeated:
            raise BadCorpus(f"{self.path} has several columns {', '.join(map(repr, repeated))}: rename all but one")

    def _damage(self, error: Exception) -> BadCorpus:
        return BadCorpus(f"{self.path} is damaged: {_first_line(error)}; write it again")

    def is_text(self, column: str) -> bool:
        """Return whether a column contains strings."""
        return self._is_text(self._schema.field(self.columns.index(column)).type)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column's values, as the rows have them: "text", "integer", "number", "boolean", "bytes", "nested".

        Times, decimals and names of classes are text.
        """
        return {field.name: self._kind(field) for field in self._schema}

    def _kind(self, field: Any) -> str:
        types, type_ = self._arrow.types, field.type
        if types.is_dictionary(type_):
            type_ = type_.value_type
        if field.name in self._class_names:
            return "text"
        if types.is_integer(type_) and not types.is_uint64(type_):
            return "integer"
        if types.is_floating(type_) or types.is_duration(type_):
            return "number"
        if types.is_boolean(type_):
            return "boolean"
        if types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_):
            return "bytes"
        return "nested" if types.is_nested(type_) else "text"

    def _is_text(self, type_: Any) -> bool:
        types: ModuleType = self._arrow.types
        if types.is_dictionary(type_):
            return self._is_text(type_.value_type)
        return bool(types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_))

    def _values(self, table: Any, name: str) -> list[Any]:
        """Return a column's values.

        Durations are in seconds, since Python has no nanoseconds; timestamps are text; numbers of classes are their names.
        """
        try:
            column, types = table.column(name), self._arrow.types
            if types.is_duration(column.type):
                scale = SECONDS[column.type.unit]
                integers = column.cast(self._arrow.int64()).to_pylist()
                return [None if value is None else value / scale for value in integers]
            if types.is_temporal(column.type):
                column = column.cast(self._arrow.string())
            values = list(column.to_pylist())
            return self._replace_by_names(values, self._class_names[name]) if name in self._class_names else values
        except self._errors as error:
            raise BadCorpus(
                f"{self.path}: column {name!r} ({column.type}) cannot be read: {_first_line(error)}"
            ) from error

    @staticmethod
    def _replace_by_names(values: list[Any], names: Sequence[str]) -> list[Any]:
        """Replace the numbers of classes by their names. The number -1 is a missing label; other values are kept."""
        by_number: dict[Any, str | None] = {**dict(enumerate(names)), -1: None}
        return [by_number.get(value, value) if isinstance(value, int) else value for value in values]


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes by column. Hugging Face's `datasets` stores them in the metadata of the file."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
