"""The page that `affekt report` writes, put together from sections that each read one kind of run folder.

A section is found by name, so that a report on finished runs does not import what else can be reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from affekt.registry import Registry
from affekt.runs.selection import RULES, Rule

# Each entry is a function from the folders given on the command line to a `Section`.
sections = Registry(
    "section",
    {
        "runs": "affekt.reports.markdown:runs_section",
        "searches": "affekt.search.report.markdown:searches_section",
    },
)

HEAD = """\
# Results

Written by `affekt report` from the run folders of finished trainings, never by hand. All figures but p are in percent.

- UA is mean recall, WA accuracy, WF1 support-weighted F1, ECE expected calibration error over 15 bins. "±" is the standard
  deviation over the seeds, each a training of its own on the same split.
- The intervals and ECE count the answers of all seeds together.
- weights: numbers in the trained network, its stored standardisation too; a frozen encoder is not counted.
- selection: {rules}. Optimism: what UA gains when the epoch is chosen on the test part, over the better of the other rules;
  new data would not give it.
- Differences are in points of UA, first training minus second, on the same utterances. p is McNemar's exact two-sided test
  of the two trainings of a seed, which takes utterances as independent; the interval of the mean draws the same speakers for
  both, all seeds together, and knows nothing of other seeds.
- The seed in a protocol's line is that of its draw, not of a training.
"""


@dataclass(frozen=True)
class Section:
    """What one kind of run folder contributes to the page. All of it is empty if the folders hold none of that kind."""

    markdown: Sequence[str]
    """Parts of the page, each with its own heading."""
    rules: Sequence[Rule]
    """The model-selection rules behind its scores; the head of the page explains them."""
    unknown_speakers: Sequence[str]
    """Reasons why the speakers of some utterances are unknown."""
    facts: Mapping[str, Any]
    """The same content for `--json`."""
    count: str
    """How much was found, for the log: "3 trainings"."""


def page(parts: Sequence[Section]) -> str:
    """Return the Markdown page."""
    used = dict.fromkeys(rule for part in parts for rule in part.rules)
    rules = "; ".join(f'"{rule}", {RULES[rule]}' for rule in used)
    return "\n".join([HEAD.format(rules=rules), *(text for part in parts for text in part.markdown)])
