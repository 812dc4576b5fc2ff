"""A sample of a long table of cases, for `make check`."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], step: int) -> list[Any]:
    """Mark all cases but the first and every `step`-th after it as slow: `make check` runs a sample, `make test` all.

    A case that is a tuple has a value for each of several arguments.
    """
    return [case if index % step == 0 else _mark_slow(case) for index, case in enumerate(cases)]


def _mark_slow(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
