"""Rows as a table of Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affekt.inference.row import NOTES, TRANSCRIPT, Row, note_columns, transcript_columns


def row_schema(
    emotions: Sequence[str], *, has_profile: bool, notes: Sequence[str] = NOTES, transcript: Sequence[str] = ()
) -> Any:
    """Return the schema of a table of rows.

    Args:
        emotions: The emotions of the probabilities.
        has_profile: Whether the rows have the field "profile".
        notes: The columns of remarks.
        transcript: The columns of words.
    """
    import pyarrow as pa

    # Parquet has no struct without fields: without emotions, the column has type null.
    probabilities = pa.struct([(name, pa.float64()) for name in emotions]) if emotions else pa.null()
    plain = [
        ("schema", pa.int64()),
        ("file", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("duration", pa.float64()),
        ("status", pa.string()),
        ("emotion", pa.string()),
        ("probabilities", probabilities),
        ("model", pa.string()),
        ("error", pa.struct([("code", pa.string()), ("message", pa.string())])),
    ]
    label = pa.struct([("id", pa.string()), ("recordings", pa.int64())])
    profile = [("profile", label)] if has_profile else []
    word = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])
    word_types = dict(zip(TRANSCRIPT, (pa.string(), pa.string(), pa.list_(word)), strict=True))
    words = [(name, word_types[name]) for name in transcript]
    types = {"truncated": pa.bool_(), "seconds_lost": pa.float64(), "channels": pa.string()}
    return pa.schema(
        [
            *plain,
            ("aggregation", pa.string()),
            ("windows", pa.list_(pa.struct([*plain, *profile, *words]))),
            *profile,
            *words,
            *((name, types[name]) for name in notes),
            ("source", pa.struct([("size", pa.int64()), ("modified", pa.float64())])),
        ]
    )


def to_table(rows: Sequence[Row], schema: Any = None) -> Any:
    """Return rows as a table of pyarrow; by default, its schema is that of these rows."""
    import pyarrow as pa

    if schema is None:
        emotions = next((list(row.probabilities) for row in rows if row.probabilities), [])
        schema = row_schema(
            emotions,
            has_profile=any(row.profile for row in rows),
            notes=note_columns(rows),
            transcript=transcript_columns(rows),
        )
    return pa.Table.from_pylist([dict(row.record()) for row in rows], schema=schema)
