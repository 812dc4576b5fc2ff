"""The conclusions of an architecture search in words: better, worse or not shown, with warnings and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from affekt.plural import quantity
from affekt.protocols import INDEPENDENT
from affekt.runs.selection import SELECTION_SUBSET
from affekt.search.report.networks import FOUND_CELL, FOUND_RECIPE, FUSION, PICKED, SEARCHED, NetworkRow
from affekt.search.report.tables import Difference, Found, SearchTable

DESCRIPTIONS = {
    PICKED: "a random search of the same budget",
    FOUND_CELL: "the found cell",
    FOUND_RECIPE: "the found recipe",
    SEARCHED: "the network of its search",
}
FAIR_BUDGET = 0.75  # fraction of the search's epochs or seconds that makes a random search a fair comparison


@dataclass(frozen=True)
class Verdict:
    kind: Literal["better", "worse", "open", "early", "warning", "note"]
    text: str


def verdicts(table: SearchTable) -> list[Verdict]:
    """Return warnings, then comparisons, then notes."""
    return [*_warnings(table), *_comparisons(table), *_notes(table)]


def _warnings(table: SearchTable) -> Iterator[Verdict]:
    if collapsed := [one for one in table.searches if one.collapsed]:
        yield Verdict("warning", _collapse(collapsed, len(table.searches)))
    if table.verdict != INDEPENDENT:
        yield Verdict("warning", f"The test set is {table.verdict}: training may have included the same speakers.")
    if table.selection == "paper":
        yield Verdict("warning", "The epoch was chosen on the TEST part: all scores here are optimistic.")


def _collapse(collapsed: Sequence[Found], searches: int) -> str:
    kept = "; ".join(
        f"{one.title}: {one.skips} of {len(one.genotype['normal']) if one.genotype else 0}" for one in collapsed
    )
    return (
        f"COLLAPSE to skip connections in {len(collapsed)} of {quantity(searches, 'search', 'searches')}. Skip "
        f"connections in the normal cell: {kept}. This is a known failure of gradient-based search (Zela et al., ICLR 2020; "
        "Chen et al., ICCV 2019): do not report such a cell as a result."
    )


def _comparisons(table: SearchTable) -> Iterator[Verdict]:
    for branch, found in (("spectrogram", FOUND_CELL), ("recurrent", FOUND_RECIPE)):
        difference = next(
            (one for one in table.differences if (one.branch, one.first, one.second) == (branch, found, PICKED)), None
        )
        rival, row = table.row(branch, PICKED), table.row(branch, found)
        if difference is None or rival is None or row is None:
            yield Verdict("early", f"The {found} cannot be compared yet: {_lacking(table, branch, found)}.")
            continue
        yield Verdict(judged(difference), f"{sentence(difference)} {_budget(row, rival)}")
    for difference in table.differences:
        if difference.first == FUSION:
            yield Verdict(judged(difference), sentence(difference))


def _lacking(table: SearchTable, branch: str, found: str) -> str:
    if table.row(branch, found) is None:
        return "its search or training is unfinished or was skipped"
    return "no random search of the same budget is finished"


def judged(difference: Difference) -> Literal["better", "worse", "open"]:
    """Return better or worse only if the interval over speakers and every seed agree; either alone may be chance."""
    low, high = difference.interval or (0.0, 0.0)
    seeds = difference.difference.seeds
    if low > 0 and min(seeds) > 0:
        return "better"
    return "worse" if high < 0 and max(seeds) < 0 else "open"


def sentence(difference: Difference) -> str:
    """Describe a difference: "The found cell is better than darts-v2: +2.1 points of UA (95 % +0.4 to +3.9; ...)"."""
    seeds = difference.difference.seeds
    ahead = f"ahead in {sum(one > 0 for one in seeds)} of {quantity(len(seeds), 'seed')}"
    second = DESCRIPTIONS.get(difference.second, difference.second)
    points = f"{100 * difference.difference.mean:+.1f} points of UA"
    if difference.interval is None:
        return (
            f"Whether the {difference.first} is better than {second} is unknown: {points}, {ahead}; "
            "there is no interval with fewer than 10 known speakers."
        )
    low, high = (f"{100 * end:+.1f}" for end in difference.interval)
    said = {
        "better": f"The {difference.first} is better than {second}",
        "worse": f"The {difference.first} is worse than {second}",
        "open": f"The {difference.first} is not shown to be better or worse than {second}",
    }[judged(difference)]
    return f"{said}: {points} (95 % {low} to {high}; {ahead})."


def _budget(row: NetworkRow, rival: NetworkRow) -> str:
    spent = (
        f"The search and its training took {quantity(round(row.cost.epochs), 'epoch')} and "
        f"{duration(row.cost.seconds)}, the random search {quantity(round(rival.cost.epochs), 'epoch')} of "
        f"{quantity(round(rival.cost.runs), 'network')} and {duration(rival.cost.seconds)}."
    )
    # A cell's search is paid in time, for its network costs many times what a derived one does; a recipe's in epochs.
    what: Literal["seconds", "epochs"] = "seconds" if row.branch == "spectrogram" else "epochs"
    ours, theirs = getattr(row.cost, what), getattr(rival.cost, what)
    if ours and theirs / ours < FAIR_BUDGET:
        spent += f" That is {100 * theirs / ours:.0f} % of its {what}: not yet a fair comparison."
    return spent


def _notes(table: SearchTable) -> Iterator[Verdict]:
    if table.alphas_on == "validation":
        also = (
            "which also chooses the epoch"
            if SELECTION_SUBSET.get(table.selection) == "validation"
            else "as the paper does"
        )
        yield Verdict(
            "note",
            f"The architecture's weights (alphas) were trained on the validation set, {also}: scores on it are "
            "optimistic, like the choice of the epoch. The test set was used for neither. learn_alphas_on = 'half' keeps "
            "them apart.",
        )
    seeds = sorted({one.seed for one in table.searches})
    if len(seeds) == 1:
        yield Verdict(
            "note", "Only one seed: another may find another network. The intervals do not cover other seeds."
        )
    for kept, what in (
        ("unfinished", "Unfinished, therefore in no row"),
        ("missing", "Missing, not started or skipped"),
    ):
        told: dict[str, list[str]] = {}
        for one in table.searches:
            told.setdefault("; ".join(getattr(one, kept)), []).append(one.title)
        yield from (Verdict("note", f"{what}, {'; '.join(titles)}: {text}.") for text, titles in told.items() if text)


def duration(seconds: float) -> str:
    """Format a duration: "45 s", "4 min 24 s", "1 h 03 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s" if rest else f"{seconds:.1f} s"
