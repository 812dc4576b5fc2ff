"""Rows as a table of Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from affekt.inference.row import APPLIED, EMOTION_SET, NOTES, SEGMENT, TRANSCRIPT, UNFAMILIAR, Row, optional_columns

OPTIONAL = (*APPLIED, EMOTION_SET, *NOTES, *SEGMENT)
"""Fields that not all rows have."""
OF_WINDOWS = (*APPLIED, EMOTION_SET, UNFAMILIAR, *TRANSCRIPT)
"""Those of them that the rows of windows may have."""


def row_schema(emotions: Sequence[str], optional: Sequence[str]) -> Any:
    """Return the schema of a table of rows.

    Args:
        emotions: The emotions of the probabilities.
        optional: Those of `OPTIONAL` for which there is a column.
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
    decision = [("threshold", pa.float64()), ("emotions", pa.list_(pa.string()))]
    decision += [("error_rate", pa.float64()), ("min_probability", pa.float64())]
    word = [("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())]
    types = {
        "profile": pa.struct([("id", pa.string()), ("recordings", pa.int64())]),
        "decision": pa.struct(decision),
        EMOTION_SET: pa.list_(pa.string()),
        "truncated": pa.bool_(),
        "seconds_lost": pa.float64(),
        "channels": pa.string(),
        UNFAMILIAR: pa.float64(),
        **dict.fromkeys(SEGMENT, pa.string()),
        "channel": pa.int64(),
        "speech": pa.float64(),
        "words": pa.list_(pa.struct(word)),
    }
    further = [(name, types[name]) for name in OPTIONAL if name in optional]
    of_windows = [(name, kind) for name, kind in further if name in OF_WINDOWS]
    return pa.schema(
        [
            *plain,
            ("aggregation", pa.string()),
            ("windows", pa.list_(pa.struct([*plain, *of_windows]))),
            *further,
            ("source", pa.struct([("size", pa.int64()), ("modified", pa.float64())])),
        ]
    )


def to_table(rows: Sequence[Row], schema: Any = None) -> Any:
    """Return rows as a table of pyarrow; by default, its schema is that of these rows."""
    import pyarrow as pa

    if schema is None:
        emotions = next((list(row.probabilities) for row in rows if row.probabilities), [])
        schema = row_schema(emotions, optional_columns(rows, OPTIONAL))
    return pa.Table.from_pylist([dict(row.record()) for row in rows], schema=schema)
