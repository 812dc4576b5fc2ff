"""The section of a model card on altered recordings: noise, reverb, codecs, silence, pauses and length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affekt.tables import table

UNCHANGED = "unchanged"
"""The condition with which the others are compared."""
PLACES = ("before", "after", "both")
"""The last word of conditions that differ only in where something is added; they share a row of the table."""
SILENCE = (" s of ", "a pause of ")
"""Parts of the names of conditions with silence or noise around or inside the speech."""

SECTION = """
## Noise, codecs, silence and length

UA in percent on altered utterances of the test subset ({scored}), and on recordings of over 30 s that are concatenated from
utterances of one emotion. Three numbers are for silence or noise before the speech, after it, and on both sides.

{table}
{losses}
"""


def shifts_section(shifts: Mapping[str, Any] | None) -> str:
    """Return the section, given the contents of a bundle's shifts.json; "" for None."""
    if not shifts:
        return ""
    corpora = shifts["corpora"].values()
    return SECTION.format(
        scored=", ".join(f"{entry['utterances']} of {entry['title']}" for entry in corpora),
        table=shifts_table(shifts, "UA"),
        losses="\n".join(f"- {entry['title']}: {largest_loss(entry['UA'])}." for entry in corpora),
    )


def shifts_table(shifts: Mapping[str, Any], key: str) -> str:
    """Return the table of one of the figures, "UA" or "refused", by condition and corpus."""
    corpora = shifts["corpora"].values()
    groups: dict[str, list[str]] = {}
    for entry in corpora:
        for condition in entry[key]:
            name, _, last = condition.rpartition(", ")
            group = groups.setdefault(name if last in PLACES else condition, [])
            if condition not in group:
                group.append(condition)
    rows = [
        [name, *(" / ".join(_percent(entry[key].get(condition)) for condition in conditions) for entry in corpora)]
        for name, conditions in groups.items()
    ]
    return table(["audio", *(entry["title"] for entry in corpora)], rows)


def largest_loss(scores: Mapping[str, float]) -> str:
    """Return a sentence on the largest loss by silence or noise around or inside the speech."""
    silence = [name for name in scores if any(part in name for part in SILENCE) and UNCHANGED in scores]
    if not silence:
        return "silence was not measured"
    worst = min(silence, key=lambda name: scores[name])
    difference = 100 * (scores[worst] - scores[UNCHANGED])
    return f"of the conditions with silence, the worst is {worst}: {difference:+.1f} points"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
