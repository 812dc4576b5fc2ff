"""What both branches do to their stream before anything else."""

from __future__ import annotations

from dataclasses import replace

from affekt.batch import Stream
from affekt.models.layers import StreamInput


def prepared(stream: Stream, norm: StreamInput, *, masked: bool) -> Stream:
    """The stream standardised as `norm` says, and zero where it is padding if it was standardised or masks are on.

    Padding is zero after the standardisation, not before: a zero before would be far from any frame.
    """
    values = norm.standardised(stream.values)
    if stream.mask is not None and (masked or norm.standard):
        values = values.masked_fill(~stream.mask.unsqueeze(2), 0.0)
    return replace(stream, values=values)
