"""The conclusions of an architecture search as sentences: better, worse or not shown, with warnings and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from affekt.plural import quantity
from affekt.protocols import INDEPENDENT
from affekt.runs.selection import SELECTION_SUBSET
from affekt.search.report.networks import (
    FOUND_CELL,
    FOUND_RECURRENT_CELL,
    FUSION,
    RANDOM_SEARCH,
    SUPERNET,
    NetworkRow,
)
from affekt.search.report.tables import Difference, SearchOutcome, SearchTable

DESCRIPTIONS = {
    RANDOM_SEARCH: "a random search with the same budget",
    FOUND_CELL: "the found cell",
    FOUND_RECURRENT_CELL: "the found recurrent cell",
    SUPERNET: "the supernet",
}
FAIR_BUDGET = 0.75
"""The smallest fraction of the search's epochs or seconds that a random search needs for a fair comparison."""


@dataclass(frozen=True)
class Verdict:
    kind: Literal["better", "worse", "open", "early", "warning", "note"]
    """A difference that is not shown is "open"; a comparison whose runs are unfinished is "early"."""
    text: str


def verdicts(table: SearchTable) -> list[Verdict]:
    """Return warnings, then comparisons, then notes."""
    return [*_warnings(table), *_comparisons(table), *_notes(table)]


def _warnings(table: SearchTable) -> Iterator[Verdict]:
    if collapsed := [search for search in table.searches if search.collapsed]:
        yield Verdict("warning", _collapse(collapsed, len(table.searches)))
    if not table.verdict.startswith(INDEPENDENT):
        yield Verdict("warning", f"The test set is {table.verdict}: training may have included the same speakers.")
    if table.selection == "paper":
        yield Verdict("warning", "The epoch was selected on the TEST set: all scores here are optimistic.")


def _collapse(collapsed: Sequence[SearchOutcome], num_searches: int) -> str:
    skips = "; ".join(
        f"{search.title}: {search.skips} of {len(search.genotype['normal']) if search.genotype else 0}"
        for search in collapsed
    )
    return (
        f"COLLAPSE to skip connections in {len(collapsed)} of {quantity(num_searches, 'search', 'searches')}. "
        f"Skip connections in the normal cell: {skips}. This is a known failure of gradient-based search (Zela et al., ICLR "
        "2020; Chen et al., ICCV 2019): do not report such a cell as a result."
    )


def _comparisons(table: SearchTable) -> Iterator[Verdict]:
    for branch, found_network in (("spectrogram", FOUND_CELL), ("recurrent", FOUND_RECURRENT_CELL)):
        key = (branch, found_network, RANDOM_SEARCH)
        difference = next((d for d in table.differences if (d.branch, d.first, d.second) == key), None)
        random_row, found_row = table.row(branch, RANDOM_SEARCH), table.row(branch, found_network)
        if difference is None or random_row is None or found_row is None:
            yield Verdict(
                "early", f"The {found_network} cannot be compared yet: {_missing_result(table, branch, found_network)}."
            )
            continue
        yield Verdict(judge(difference), f"{describe(difference)} {_describe_budgets(found_row, random_row)}")
    for difference in table.differences:
        if difference.first == FUSION:
            yield Verdict(judge(difference), describe(difference))


def _missing_result(table: SearchTable, branch: str, found_network: str) -> str:
    if table.row(branch, found_network) is None:
        return "its search or training is unfinished or was skipped"
    return "no random search with the same budget is finished"


def judge(difference: Difference) -> Literal["better", "worse", "open"]:
    """Return better or worse only if the interval over speakers and every seed agree; either alone may be due to chance."""
    low, high = difference.interval or (0.0, 0.0)
    seeds = difference.difference.seeds
    if low > 0 and min(seeds) > 0:
        return "better"
    return "worse" if high < 0 and max(seeds) < 0 else "open"


def describe(difference: Difference) -> str:
    """Return a sentence: "The found cell is better than darts-v2: +2.1 points of UA (95 % +0.4 to +3.9; ...)."""
    seeds = difference.difference.seeds
    ahead = f"ahead in {sum(value > 0 for value in seeds)} of {quantity(len(seeds), 'seed')}"
    second = DESCRIPTIONS.get(difference.second, difference.second)
    points = f"{100 * difference.difference.mean:+.1f} points of UA"
    if difference.interval is None:
        return (
            f"Whether the {difference.first} is better than {second} is unknown: {points}, {ahead}; "
            "there is no interval with fewer than 10 known speakers."
        )
    low, high = (f"{100 * end:+.1f}" for end in difference.interval)
    relation = {
        "better": "is better than",
        "worse": "is worse than",
        "open": "is not shown to be better or worse than",
    }[judge(difference)]
    return f"The {difference.first} {relation} {second}: {points} (95 % {low} to {high}; {ahead})."


def _describe_budgets(found_row: NetworkRow, random_row: NetworkRow) -> str:
    text = (
        f"The search and the training of its result took {quantity(round(found_row.cost.epochs), 'epoch')} and "
        f"{format_duration(found_row.cost.seconds)}, the random search {quantity(round(random_row.cost.epochs), 'epoch')} of "
        f"{quantity(round(random_row.cost.runs), 'network')} and {format_duration(random_row.cost.seconds)}."
    )
    # Cell searches are compared in time, because an epoch of the supernet costs many times that of a derived network.
    # Recurrent cells are searched without a supernet and compared in epochs.
    unit: Literal["seconds", "epochs"] = "seconds" if found_row.branch == "spectrogram" else "epochs"
    search_budget, random_budget = getattr(found_row.cost, unit), getattr(random_row.cost, unit)
    if search_budget and random_budget / search_budget < FAIR_BUDGET:
        percent = f"{100 * random_budget / search_budget:.0f} %"
        text += f" The random search had {percent} of the search's {unit}: not yet a fair comparison."
    return text


def _notes(table: SearchTable) -> Iterator[Verdict]:
    if table.learn_alphas_on == "validation":
        remark = (
            "which also selects the epoch"
            if SELECTION_SUBSET.get(table.selection) == "validation"
            else "as in the paper"
        )
        yield Verdict(
            "note",
            f"The architecture weights (alphas) were trained on the validation subset, {remark}. Scores on the validation "
            "subset are therefore optimistic. The test set was not used for the alphas. With learn_alphas_on = 'half', they "
            "are trained on half of the training set instead.",
        )
    if len({search.seed for search in table.searches}) == 1:
        yield Verdict(
            "note",
            "There is only one seed: another seed may find another network. The intervals do not cover this variation.",
        )
    for field, state in (
        ("unfinished", "Unfinished, and therefore in no row"),
        ("missing", "Missing, because not started or skipped"),
    ):
        titles_by_list: dict[str, list[str]] = {}
        for search in table.searches:
            titles_by_list.setdefault("; ".join(getattr(search, field)), []).append(search.title)
        for names, titles in titles_by_list.items():
            if names:
                yield Verdict("note", f"{state} ({'; '.join(titles)}): {names}.")


def format_duration(seconds: float) -> str:
    """Format a duration: "45 s", "4 min 24 s", "1 h 03 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s" if rest else f"{seconds:.1f} s"
