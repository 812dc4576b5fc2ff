"""`affekt audit`."""

from __future__ import annotations


def audit() -> None:
    """Report what the parts of a split share."""
