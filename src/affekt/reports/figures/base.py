"""The basis of all figures: their colors, their look, and how they are written.

The colors of emotions and speakers are those of Okabe and Ito, which people with any common color blindness can tell
apart; a marker repeats what a color says. In a file, text and lines have fixed colors. As part of a page, they take the
page's colors, so that the same drawing suits a light and a dark page.
"""

from __future__ import annotations

import functools
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from affekt.errors import BadOutput
from affekt.extras import need

INK, QUIET, GROUND, RULE = "#1b1f23", "#57606b", "#fffffe", "#c8ced5"
PAGE_COLORS = {INK: "currentColor", QUIET: "var(--quiet)", GROUND: "var(--raised)", RULE: "var(--rule)"}
"""Color in a file -> color of the page's style sheet."""
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c8c8c", "#b8a800")
"""Okabe and Ito's colors, with gray for black and a darker yellow, which can be seen on white and on black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
SEQUENTIAL = "cividis"
MAX_NAME = 120
"""Largest number of characters of a file's name without suffix."""
SUFFIXES = (".svg", ".png", ".pdf")

STYLE: dict[str, Any] = {
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "figure.facecolor": GROUND,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "svg.hashsalt": "affekt",
    "text.color": INK,
    "xtick.color": QUIET,
    "xtick.labelsize": 8,
    "ytick.color": QUIET,
    "ytick.labelsize": 8,
}

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Figure:
    """A drawing with its title and an explanation."""

    name: str
    """The name of its file, without suffix."""
    title: str
    caption: str
    """An explanation: the contents, and the data behind them."""
    drawing: Any
    """A `matplotlib.figure.Figure`."""

    def svg(self) -> str:
        """Return the drawing as an SVG element in the colors of the page that contains it."""
        text = io.StringIO()
        with _style({"svg.hashsalt": self.name}):  # the salt makes the identifiers of two figures on one page differ
            self.drawing.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        svg = text.getvalue()
        svg = svg[svg.index("<svg") :].strip()
        for color, replacement in PAGE_COLORS.items():
            svg = svg.replace(color, replacement)
        svg = svg.replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
        svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
        referenced = set(re.findall(r"#([\w.-]+)", svg))
        svg = re.sub(r' id="([\w.-]+)"', lambda match: match[0] if match[1] in referenced else "", svg)
        return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(self.title)}" ', 1)

    def save(self, path: Path) -> None:
        """Write the drawing as an .svg, .png or .pdf file.

        Raises:
            BadOutput: The suffix is another one, or the file cannot be written.
        """
        if path.suffix not in SUFFIXES:
            raise BadOutput(f"{path}: expected a name ending in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _style():
                self.drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise BadOutput(f"{path} cannot be written: {error.strerror or error}") from error


def save_all(figures: Sequence[Figure], folder: Path, suffix: str) -> list[Path]:
    """Write figures to a folder under their own names, with a number where a name repeats; return the paths.

    Raises:
        BadOutput: A file cannot be written.
    """
    paths, names = list[Path](), Counter[str]()
    for figure in figures:
        name = figure.name[:MAX_NAME]
        names[name] += 1
        paths.append(folder / f"{name}{f'-{names[name]}' if names[name] > 1 else ''}{suffix}")
        figure.save(paths[-1])
    return paths


def styled(draw: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a drawing function so that it draws in our style."""

    @functools.wraps(draw)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with _style():
            return draw(*args, **kwargs)

    return wrapper


def _style(changes: Mapping[str, Any] | None = None) -> Any:
    matplotlib = need("matplotlib", extra="train", purpose="drawing figures")
    return matplotlib.rc_context({**STYLE, **(changes or {})})


def new_drawing(width: float, height: float) -> Any:
    """Return an empty drawing of this size in inches, without a window and without pyplot's global state."""
    figures = need("matplotlib.figure", extra="train", purpose="drawing figures")
    return figures.Figure(figsize=(width, height), layout="constrained")


def category(index: int) -> str:
    """Return the color of a category."""
    return CATEGORIES[index % len(CATEGORIES)]


def marker(index: int) -> str:
    """Return the marker of a category. With more categories than colors, a color occurs with several markers."""
    return MARKERS[(index + index // len(MARKERS)) % len(MARKERS)]


def slug(*parts: str) -> str:
    """Return a file name without suffix from some texts: lower case, with hyphens for everything but letters and digits."""
    return "-".join(filter(None, (re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)))


def shorten(text: str, length: int = 28) -> str:
    """Return a text of at most `length` characters, for a label in a drawing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def plain(text: str) -> str:
    """Escape the dollar signs of a text, which would begin a formula in matplotlib."""
    return text.replace("$", r"\$")


def grid_shape(count: int, columns: int) -> tuple[int, int]:
    """Return the numbers of rows and columns of a grid for `count` panels, with at most `columns` columns."""
    columns = max(1, min(count, columns))
    return -(-count // columns), columns


def panels_of(drawing: Any, count: int, columns: int, **options: Any) -> Sequence[Any]:
    """Add a grid to a drawing and return its first `count` panels; the others stay empty."""
    rows, columns = grid_shape(count, columns)
    panels = list(drawing.subplots(rows, columns, squeeze=False, **options).flat)
    for panel in panels[count:]:
        panel.set_axis_off()
    return panels[:count]
