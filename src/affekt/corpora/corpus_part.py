"""A part of a corpus, by the utterances' fields and at random: `Source.where` and `Source.fraction`."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from affekt.corpora.base import join_names
from affekt.errors import BadConfig, BadCorpus
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

FIELDS = ("speaker", "gender", "session", "dialogue", "emotion", "language", "text", "split")
"""Fields of an utterance that `where` can name."""


def check_part(where: Mapping[str, Sequence[str]], fraction: float) -> None:
    """Raise `BadConfig` if `where` names an unknown field or no value, or the fraction is not in (0, 1]."""
    for field, values in where.items():
        if field not in FIELDS:
            raise BadConfig(
                f"where names the field {field!r}{did_you_mean(field, FIELDS)}; expected {', '.join(FIELDS)}"
            )
        if not values:
            raise BadConfig(f"where gives no value for {field}: expected a list, such as [{field!r}]")
    if not 0 < fraction <= 1:
        raise BadConfig(f"fraction = {fraction}: expected more than 0 and at most 1, such as 0.25")


def describe_part(where: Mapping[str, Sequence[str]], fraction: float) -> str:
    """Describe a part in words: "25 % of session Ses01 or Ses02"; "" for all utterances."""
    conditions = " and ".join(f"{field} {' or '.join(values)}" for field, values in where.items())
    if fraction < 1:
        return f"{100 * fraction:g} % of {conditions or 'it'}"
    return conditions


def select_where(utterances: Sequence[Utterance], where: Mapping[str, Sequence[str]]) -> list[Utterance]:
    """Return the utterances that, for every field in `where`, have one of its values.

    Raises:
        BadCorpus: No utterance has one of the values, so that it is probably misspelled, or none has all of them.
    """
    for field, values in where.items():
        present = {str(getattr(utterance, field)) for utterance in utterances} - {""}
        for value in values:
            if value not in present:
                known = join_names(sorted(present), 8) if present else "none, since the corpus does not state it"
                raise BadCorpus(
                    f"where names the {field} {value!r}, which no utterance has{did_you_mean(value, present)} "
                    f"(expected: {known})"
                )
    selected = [u for u in utterances if all(str(getattr(u, field)) in values for field, values in where.items())]
    if not selected:
        raise BadCorpus(f"no utterance has {describe_part(where, 1.0)}: give fewer conditions")
    return selected


def select_fraction(utterances: Sequence[Utterance], fraction: float) -> list[Utterance]:
    """Return a fraction of the utterances of each emotion, at least one, in their order.

    The selection depends only on their ids: a smaller fraction is contained in a larger one, on every machine.
    """
    by_emotion: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_emotion[utterance.emotion].append(utterance)
    selected = set()
    for group in by_emotion.values():
        ids = sorted((utterance.id for utterance in group), key=lambda name: hashlib.sha256(name.encode()).digest())
        selected |= set(ids[: max(1, round(fraction * len(ids)))])
    return [utterance for utterance in utterances if utterance.id in selected]
