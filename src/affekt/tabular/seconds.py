"""Times in tables: seconds, or audformat's notation, `0 days 00:00:01.500000`."""

from __future__ import annotations

import math
import re

from affekt.tabular.record import Record

NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
TIME = re.compile(rf"(?:(?P<days>\d+) days? ?)?(?:\+?(?P<hours>\d+):(?P<minutes>\d\d):)?(?P<seconds>{NUMBER})?")


def parse_seconds(record: Record, column: str, field: str) -> float | None:
    """Return a time in seconds, None if it is missing; raise `BadCorpus` if it is no time, naming the field."""
    text = record.text(column)
    if not text or text in ("-0", "-0.0"):
        return 0.0 if text else None
    match = TIME.fullmatch(text)
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups()) if match else (math.inf,) * 4
    time = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not math.isfinite(time):
        raise record.error(f"{field} {text!r}: expected seconds, such as 1.5, or 0 days 00:00:01.5")
    return time
