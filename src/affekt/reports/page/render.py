"""Render a page of sections as one HTML file, which fetches nothing. Every text is escaped.

A section has blocks: text in Markdown, figures, tables of examples, or HTML that another renderer has escaped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib import resources
from typing import Any, Protocol

from affekt.extras import need
from affekt.reports.figures.base import Figure, slug

WIDE = 6.0  # inches: a wider drawing is scrolled on a narrow screen, not shrunk
LONG = 30  # characters: the text of a longer cell is wrapped
LONG_CELL = re.compile(rf"(?<=</td>\n)<td[^>]*>([^<]{{{LONG + 1},}})</td>")  # the first column stays in view
MARKDOWN_RULES = ("table", "heading", "list", "emphasis", "backticks", "escape")
"""The syntax that is rendered: no HTML, no links and no images, which names read from files could contain."""


class Block(Protocol):
    """A part of a section."""

    def html(self) -> Any:
        """Return the block's HTML as `markupsafe.Markup`."""
        ...


@dataclass(frozen=True)
class Html:
    """HTML in which texts are already escaped."""

    text: str

    def html(self) -> Any:
        return _markup(self.text)


@dataclass(frozen=True)
class Text:
    """Markdown, as `affekt report --format markdown` writes it."""

    markdown: str

    def html(self) -> Any:
        rendered = _markdown().render(self.markdown)
        for level in (3, 2, 1):  # the page's own headings are the first two levels
            rendered = rendered.replace(f"<h{level}>", f"<h{level + 1}>").replace(f"</h{level}>", f"</h{level + 1}>")
        rendered = LONG_CELL.sub(r'<td class="text long">\1</td>', rendered)
        rendered = rendered.replace("<table>", f"{SCROLL}<table>").replace("</table>", "</table></div>")
        return _markup(f'<div class="text">{rendered}</div>')


SCROLL = '<div class="scroll" tabindex="0" role="region" aria-label="table">'


@dataclass(frozen=True)
class Figures:
    """Figures side by side, under a heading; hidden at first with `closed`."""

    title: str
    figures: Sequence[Figure]
    closed: bool = False

    def html(self) -> Any:
        figures = f'<div class="figures">{"".join(map(_figure, self.figures))}</div>'
        return _titled(self.title, figures, self.closed)


@dataclass(frozen=True)
class Table:
    """A table of texts, which are escaped, under a heading; hidden at first with `closed`."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    """Cells: texts, or blocks such as `Html`."""
    note: str = ""
    closed: bool = False

    def html(self) -> Any:
        head = "".join(f'<th scope="col" class="text">{escape(name)}</th>' for name in self.header)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in self.rows)
        table = f"{SCROLL}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        table += f'<p class="small">{escape(self.note)}</p>' if self.note else ""
        return _titled(self.title, table, self.closed)


@dataclass(frozen=True)
class PageSection:
    """A section of the page with a heading; without a title, its blocks have their own headings."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

    @property
    def anchor(self) -> str:
        return slug(self.title)


def render_page(title: str, sections: Sequence[PageSection], *, kicker: str = "", contents: bool = True) -> str:
    """Return the page.

    Args:
        title: The title of the page.
        sections: Its sections.
        kicker: The kind of page, above the title; "" if the first section has its own header.
        contents: List the sections first, with links to them.
    """
    text: str = _template().render(
        title=title, sections=sections, kicker=kicker, contents=contents and len(sections) > 1, style=_markup(style())
    )
    return "\n".join(line for line in text.splitlines() if line.strip()) + "\n"


@cache
def style() -> str:
    """Return the style sheet of all pages."""
    return resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


@cache
def _template() -> Any:
    jinja2 = need("jinja2", extra="train", purpose="writing HTML")
    source = resources.files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)


@cache
def _markdown() -> Any:
    parser = need("markdown_it", extra="train", purpose="writing HTML").MarkdownIt("zero")
    return parser.enable(list(MARKDOWN_RULES))


def _markup(text: str) -> Any:
    return need("markupsafe", extra="train", purpose="writing HTML").Markup(text)


def _titled(title: str, content: str, closed: bool) -> Any:
    """Return content under a heading, or hidden below it until it is opened."""
    if closed:
        return _markup(f"<details><summary>{escape(title)}</summary>{content}</details>")
    return _markup(f"<h3>{escape(title)}</h3>{content}")


def _cell(cell: Any) -> str:
    text = str(cell.html()) if hasattr(cell, "html") else escape(str(cell))
    is_long = not hasattr(cell, "html") and len(str(cell)) > LONG
    return f'<td class="text{" long" if is_long else ""}">{text}</td>'


def _figure(figure: Figure) -> str:
    inches = figure.drawing.get_figwidth()
    kind = f'class="scroll wide" style="--inches: {inches:.1f}"' if inches > WIDE else 'class="scroll"'
    return (
        f"<figure><figcaption>{escape(figure.title)}</figcaption>"
        f'<div {kind} tabindex="0" role="group" aria-label="{escape(figure.title)}">{figure.svg()}</div>'
        f'<p class="small">{escape(figure.caption)}</p></figure>'
    )
