"""Scores by gender, age group and speaker, as far as a corpus describes its speakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from affekt.evaluation.metrics import Labels, Probabilities
from affekt.evaluation.subgroups import Subgroups, score_subgroups
from affekt.utterance import Utterance, speakers_of

AGE_GROUPS = ((30, "0 to 29"), (45, "30 to 44"), (60, "45 to 59"), (200, "60 and over"))
"""Exclusive upper limits of age in years, and the groups' names."""
MAX_SPEAKERS = 200
"""With more speakers, there are no scores by speaker."""


def age_group(utterance: Utterance) -> str:
    """Return the age group of an utterance's speaker; "" if the age is unknown."""
    age = utterance.age
    return "" if age is None else next(name for limit, name in AGE_GROUPS if age < limit)


ATTRIBUTES: dict[str, Callable[[Utterance], str]] = {
    "gender": lambda utterance: utterance.gender,
    "age": age_group,
    "speaker": lambda utterance: utterance.speaker_key if utterance.speaker else "",
}
"""Attribute of speakers -> function that returns an utterance's group; "" is unknown."""


def subgroups_of(
    utterances: Sequence[Utterance],
    labels: Labels,
    probabilities: Sequence[Probabilities],
    emotions: Sequence[str],
) -> list[Subgroups]:
    """Return the scores by each attribute of which the utterances have two groups or more.

    Args:
        utterances: The scored utterances.
        labels: The index of each utterance's emotion, (utterances,).
        probabilities: The probabilities of each seed, (utterances, emotions) each.
        emotions: The emotions' names.
    """
    result = []
    for attribute, group_of in ATTRIBUTES.items():
        groups = [group_of(utterance) for utterance in utterances]
        if 2 <= len(set(groups) - {""}) <= MAX_SPEAKERS:
            speakers = speakers_of(utterances)
            result.append(score_subgroups(attribute, groups, labels, probabilities, emotions, speakers))
    return result
