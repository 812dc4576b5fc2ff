"""Quantities in messages and pages."""

from __future__ import annotations


def quantity(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 seed", "2 seeds"; the plural is the noun with an "s" unless it is given."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
