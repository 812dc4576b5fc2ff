"""Markdown tables."""

from __future__ import annotations


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table. A cell's text may contain any character."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows), ""])


def _cell(text: str) -> str:
    """Return the text of a cell, in which a vertical bar does not end the cell."""
    return " ".join(text.replace("|", r"\|").splitlines())
