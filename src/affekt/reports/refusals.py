"""The section of a model card on recordings without speech."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affekt.tables import table

SECTION = """
## Recordings without speech

A recording in which the model finds no speech gets the status `no_speech` instead of an emotion. Of the clips of acted
emotions in the table of scores, it refuses {lost}; they count as wrong there. Recordings of less than 0.75 s are never
refused: the detector cannot tell fragments of words from other sounds. Of sounds held out
from its training, some of which are that short, it refuses:

{table}"""


def refusals_section(config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return the section, given a bundle's config.toml and results.json; "" for a bundle that refuses nothing."""
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
