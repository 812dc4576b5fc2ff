"""The page that `affekt report` writes: finished runs and searches as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from affekt.reports.figures.base import save_all
from affekt.reports.page.render import Figures, PageSection, Text, render_page
from affekt.reports.sections import HEAD, PageOptions, Section, rules_text
from affekt.runs.selection import Rule


def build_sections(parts: Sequence[Section], options: PageOptions | None = None) -> list[PageSection]:
    """Return the page's sections with their figures.

    Args:
        parts: The runs and searches, from `read_sections`.
        options: Options of the page.
    """
    return [section for part in parts for section in part.html(options or PageOptions())]


def html_page(folders: Sequence[Path], sections: Sequence[PageSection], rules: Sequence[Rule]) -> str:
    """Return the page of these sections; the last one explains the figures.

    Args:
        folders: The folders that the sections are about.
        sections: The sections, from `build_sections`.
        rules: The model-selection rules to explain.
    """
    title = ", ".join(folder.name or str(folder) for folder in folders)
    _, _, explanation = HEAD.format(rules=rules_text(rules)).partition("\n\n")
    how_to_read = PageSection("How to read this page", [Text(explanation)])
    return render_page(title, [*sections, how_to_read], kicker="Emotion recognition: results")


def write_figures(sections: Sequence[PageSection], folder: Path, file_format: str) -> list[Path]:
    """Write all figures of the sections to a folder, as svg, png or pdf, and return their paths."""
    blocks = [block for section in sections for block in section.blocks if isinstance(block, Figures)]
    return save_all([figure for block in blocks for figure in block.figures], folder, f".{file_format}")
