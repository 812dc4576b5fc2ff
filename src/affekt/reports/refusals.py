"""The section of a model card on recordings without speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from affekt.tables import table

SECTION = """
## Recordings without speech

A recording in which the model finds no speech gets the status `no_speech` instead of an emotion. Of the clips of acted
emotions in the table of scores, it refuses {lost}; they count as wrong there. Recordings of less than 0.75 s are never
refused: the detector cannot tell fragments of words from other sounds. Of sounds held out
from its training, some of which are that short, it refuses:

{table}"""

MEASURED = """
## Recordings without speech

A recording in which no speech is found gets the status `no_speech` instead of an emotion; `--vad off`, `auto` (the default)
and `on` choose how that is decided. Of recordings that were not used in training, in percent of each kind, these are
refused, and these are called unlike the training data when nothing is refused:

{table}
{summary}
"""

SPEECH, OTHER, SOUNDS, BURSTS = "speech of the test speakers", "other speech", "no speech", "vocal bursts"
"""Groups of recordings in refusals.json."""


def refusals_section(
    config: Mapping[str, Any], results: Mapping[str, Any], measured: Mapping[str, Any] | None = None
) -> str:
    """Return the section; "" for a bundle that refuses nothing.

    Args:
        config: The bundle's config.toml.
        results: The bundle's results.json, with the sounds that were scored when the bundle was made.
        measured: The bundle's refusals.json, which `make refusals` records; None without it.
    """
    if measured:
        return MEASURED.format(table=measured_table(measured), summary=summarize(measured))
    if "detector" not in config:
        return ""
    models = [entry["model"] for entry in results["scores"].values()]
    lost, clips = (sum(model.get(key, 0) for model in models) for key in ("refused", "utterances"))
    return SECTION.format(lost=f"{lost} of {clips}", table=refusals_table(results.get("detector", {})))


def refusals_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of held-out sounds, given their kinds as in results.json, those that are not speech first."""
    rows = [
        [kind, "yes" if entry["speech"] else "no", f"{entry['refused']} of {entry['sounds']}"]
        for kind, entry in sorted(kinds.items(), key=lambda item: (item[1]["speech"], item[0]))
    ]
    return table(["sounds", "speech", "refused"], rows) if rows else "No sounds were scored.\n"


def measured_table(measured: Mapping[str, Any]) -> str:
    """Return the table of refusals.json: the kinds of recordings, with the total of each group that has several."""
    rows = []
    for group in (SPEECH, OTHER, SOUNDS, BURSTS):
        kinds = _in_group(measured, group)
        rows += [_cells(measured, group, entry["kind"], [entry]) for entry in kinds]
        rows += [_cells(measured, group, "all", kinds)] if len(kinds) > 1 and group != OTHER else []
    modes = [f"refused, vad {mode}" for mode in measured["modes"]]
    return table(["group", "recordings", "number", *modes, "unlike the training data"], rows)


def merge_folders(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of refusals.json with the kinds of one folder, such as esc10/rain, as a single kind, esc10."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in measured["kinds"]:
        kind = entry["kind"].partition("/")[0]
        empty = {"group": entry["group"], "kind": kind, "recordings": 0, "unlike": 0, "refused": {}}
        total = merged.setdefault((entry["group"], kind), empty)
        total["recordings"] += entry["recordings"]
        total["unlike"] += entry["unlike"]
        total["refused"] = {mode: total["refused"].get(mode, 0) + count for mode, count in entry["refused"].items()}
    return {**measured, "kinds": list(merged.values())}


def _cells(measured: Mapping[str, Any], group: str, kind: str, entries: Sequence[Mapping[str, Any]]) -> list[str]:
    number = sum(entry["recordings"] for entry in entries)
    refused = [sum(entry["refused"][mode] for entry in entries) for mode in measured["modes"]]
    unlike = sum(entry["unlike"] for entry in entries)
    return [group, kind, str(number), *(f"{100 * count / number:.1f}" for count in (*refused, unlike))]


def summarize(measured: Mapping[str, Any]) -> str:
    """Return sentences on the two criteria: how much speech is lost, and how much of the other sounds is refused."""
    lines = []
    for mode in measured["modes"]:
        (lost, speech), (refused, sounds) = (_count(measured, group, mode) for group in (SPEECH, SOUNDS))
        bursts, all_bursts = _count(measured, BURSTS, mode)
        lines.append(
            f"- `--vad {mode}`: {lost} of {speech} recordings of speech are lost, {refused} of {sounds} without speech are "
            f"refused, and {bursts} of {all_bursts} vocal bursts."
        )
    return "\n".join(lines)


def _count(measured: Mapping[str, Any], group: str, mode: str) -> tuple[int, int]:
    """Return how many recordings of a group are refused, and how many there are."""
    kinds = _in_group(measured, group)
    return sum(entry["refused"][mode] for entry in kinds), sum(entry["recordings"] for entry in kinds)


def _in_group(measured: Mapping[str, Any], group: str) -> list[Mapping[str, Any]]:
    return [entry for entry in measured["kinds"] if entry["group"] == group]
