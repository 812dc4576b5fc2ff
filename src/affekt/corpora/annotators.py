"""Combine the rows of several annotators for the same segment into an utterance."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from affekt.corpora.base import join_names
from affekt.errors import BadConfig, BadCorpus
from affekt.plural import quantity
from affekt.registry import did_you_mean
from affekt.tabular.record import Record
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)

RULES = ("error", "majority", "votes")
FIELDS = ("speaker", "gender", "session", "dialogue", "language", "text", "text_by", "split")
"""Fields in which the rows of a segment must agree, unless they are empty."""


@dataclass(frozen=True)
class Annotation:
    """A row and the utterance that it describes, with the emotion that one annotator chose."""

    record: Record
    utterance: Utterance

    @property
    def segment(self) -> Hashable:
        """The annotated part of a file or, in a table without audio, the id."""
        utterance = self.utterance
        return (utterance.audio, utterance.start, utterance.end) if utterance.audio else utterance.id


def check_rule(rule: str) -> None:
    """Raise `BadConfig` for a rule that does not exist."""
    if rule not in RULES:
        raise BadConfig(f"annotators = {rule!r}{did_you_mean(rule, RULES)} (known: {', '.join(RULES)})")


def combine(table: Path, annotations: Sequence[Annotation], rule: str) -> list[Utterance]:
    """Return an utterance per segment.

    Args:
        table: The file, for messages.
        annotations: All rows of a table.
        rule: What to do with several rows of a segment. "error": refuse them. "majority": the emotion that most rows have;
            segments where several emotions are equally frequent are left out, with a warning. "votes": the fraction of the
            rows for each emotion as `votes`, and as label the most frequent emotion; if several are equally frequent, the
            one in the earliest row.

    Raises:
        BadCorpus: A segment has several rows that may not or cannot be combined.
    """
    groups: dict[Hashable, list[Annotation]] = {}
    for annotation in annotations:
        groups.setdefault(annotation.segment, []).append(annotation)
    utterances, tied = [], list[str]()
    for group in groups.values():
        if len(group) == 1 and rule != "votes":
            utterances.append(group[0].utterance)
            continue
        if rule == "error":
            raise _refusal(table, group)
        counts = Counter(annotation.utterance.emotion for annotation in group)
        (emotion, most), *others = counts.most_common()
        if rule == "majority" and others and others[0][1] == most:
            tied.append(group[0].utterance.id)
            continue
        merged = replace(_merge(group), emotion=emotion)
        if rule == "votes" and not (len(group) == 1 and merged.votes):
            merged = replace(merged, votes={name: count / len(group) for name, count in counts.items()})
        utterances.append(merged)
    if tied and not utterances:
        raise BadCorpus(f"{table}: no emotion has a majority in any segment: use annotators = 'votes'")
    if tied:
        number = quantity(len(tied), "utterance")
        logger.warning("%s: left out %s without a majority: %s", table, number, join_names(tied))
    return utterances


def _merge(group: Sequence[Annotation]) -> Utterance:
    """Return the first row's utterance, with the other rows' values of its empty fields."""
    first = group[0]
    if len(group) == 1:
        return first.utterance
    values: dict[str, Any] = {}
    for field in FIELDS:
        sources = {value: a.record for a in group if (value := getattr(a.utterance, field))}
        if len(sources) > 1:
            (value, record), (other_value, other) = list(sources.items())[:2]
            raise other.error(
                f"{field} {other_value!r}, but {record.position} of the same segment has {value!r}: make them equal"
            )
        values[field] = next(iter(sources), "")
    for annotation in group:
        if annotation.utterance.votes:
            raise annotation.record.error(
                "has votes, but its segment has other rows too: remove the votes or the other rows"
            )
    return replace(first.utterance, **values)


def _refusal(table: Path, group: Sequence[Annotation]) -> BadCorpus:
    first, second = group[0], group[1]
    what = f"segment of {first.utterance.audio}" if first.utterance.audio else f"utterance {first.utterance.id!r}"
    return BadCorpus(
        f"{table}: {first.record.position} and {second.record.position} are the same {what}: keep one of them or, if they "
        'are by several annotators, set annotators = "majority" or "votes" (--annotators on the command line)'
    )
