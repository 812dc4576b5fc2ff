"""A sample of a long table of cases, for `make check`."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], step: int) -> list[Any]:
    """Mark all cases but the first and every `step`-th after it as slow: `make check` runs a sample, `make test` all."""
    return [
        case if index % step == 0 else pytest.param(case, marks=pytest.mark.slow) for index, case in enumerate(cases)
    ]
