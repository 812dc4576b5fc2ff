"""The values that a paper prints for what a recipe trains, and the assumptions of the recipe where the paper is silent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from affekt.config import decode
from affekt.errors import BadConfig
from affekt.recipe_files import RECIPES, SEARCHES, read_extended, shipped_files
from affekt.registry import did_you_mean

METRICS = ("WA", "UA", "WF1")


@dataclass(frozen=True)
class Assumption:
    """A choice of a recipe that its paper does not state, or states in a way that can be read differently."""

    setting: str
    """The setting of the recipe that makes the choice, such as "model.dropout"."""
    reading: str
    """The value, or how the paper is read."""
    reason: str
    """The evidence."""
    confidence: Literal["high", "medium", "low"]
    """high: at least 80 %; medium: at least 55 %; low: less."""


@dataclass(frozen=True)
class PublishedResult:
    """A row of a paper's table, or a point of one of its figures. Scores are fractions."""

    citation: str
    """The authors, the venue and the year."""
    paper: str = ""
    """The short name of the paper's model."""
    table: str = ""
    """The table or figure, as in the paper: "Table 2", "Table I", "Figure 3"."""
    row: str = ""
    """The row: the paper's own words for the model, and the corpus if the table has several."""
    protocol: str = ""
    """The registered name of the protocol under which the scores were obtained."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Metric -> score."""
    std: Mapping[str, float] = field(default_factory=dict)
    """Metric -> standard deviation, where the paper prints one."""
    folds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The paper's name of a fold -> its scores, in the order of the protocol's folds."""
    plotted: tuple[str, ...] = ()
    """Metrics that the paper shows in a plot only, without printing the values."""
    params: float | None = None
    """The number of parameters that the paper prints."""
    flops: float | None = None
    """The number of operations that the paper prints."""
    note: str = ""
    """How far the scores can be compared with those of the recipe."""

    def __post_init__(self) -> None:
        for scores in (self.scores, self.std, *self.folds.values()):
            for metric, score in scores.items():
                if metric not in METRICS or not 0 <= score <= 1:
                    raise BadConfig(
                        f"published: {metric} = {score}: expected a fraction, and one of the metrics {', '.join(METRICS)}"
                    )

    @property
    def source(self) -> str:
        """The citation, with the table."""
        return f"{self.citation}, {self.table}" if self.table else self.citation

    @property
    def values(self) -> dict[str, float | None]:
        """All values of the row by metric; None for one that the paper only plots."""
        plotted = dict.fromkeys(self.plotted)
        costs = {"params": self.params, "FLOPs": self.flops}
        return {**self.scores, **plotted, **{name: value for name, value in costs.items() if value is not None}}


def published_result(config: Mapping[str, Any], section: Mapping[str, Any] | None) -> PublishedResult | None:
    """Return the published scores to compare a run with; None if there are none for its protocol.

    Args:
        config: The run's settings.
        section: The run's section `published`, if it has one.
    """
    result = decode(PublishedResult, section, "published") if section else None
    return result if result and result.protocol == config["protocol"]["name"] else None


@dataclass(frozen=True)
class PaperRow:
    """A shipped recipe for a row of a paper's table."""

    name: str
    """The recipe's name: PAPER-TABLE, or PAPER-TABLE-ROW if the table has several rows."""
    result: PublishedResult
    corpora: tuple[str, ...]
    """The registered names of the corpora."""
    is_search: bool
    """True for a search recipe."""

    @property
    def paper(self) -> str:
        """The folder of the paper's recipes."""
        return self.name.split("-")[0]

    @property
    def table(self) -> str:
        """The name of the table, such as "mstr-table2"."""
        return "-".join(self.name.split("-")[:2])


def paper_rows(paper: str = "") -> list[PaperRow]:
    """Return the shipped recipes for the rows of the papers' tables, without importing models.

    Args:
        paper: A paper, such as "mstr"; "" for all.

    Raises:
        BadConfig: There is no such paper.
    """
    rows = [
        _paper_row(name, path, folder)
        for folder in (RECIPES, SEARCHES)
        for name, path in shipped_files(folder).items()
        if path.parent != folder
    ]
    papers = {row.paper: row.result.paper for row in rows}
    chosen = [row for row in rows if paper.lower() in ("", row.paper, row.result.paper.lower())]
    if not chosen:
        raise BadConfig(f"there is no paper {paper!r}{did_you_mean(paper, papers)} (known: {', '.join(papers)})")
    return chosen


def _paper_row(name: str, path: Path, folder: Path) -> PaperRow:
    settings = read_extended(path, "recipe", folder)
    result = decode(PublishedResult, settings["published"], f"{name}, published")
    return PaperRow(name, result, tuple(settings["corpora"]), folder == SEARCHES)
