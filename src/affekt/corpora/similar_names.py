"""Labels and speakers in the user's own data whose names are so similar that one may be a misspelling of the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from affekt.corpora.source import OWN, Source
from affekt.labels import EMOTIONS, canonical_emotion, fold_label
from affekt.utterance import Utterance


def similar_names(source: Source, utterances: Sequence[Utterance]) -> list[str]:
    """Return a message for each pair of similar names; none for a published corpus."""
    if source.name not in OWN:
        return []
    emotions = Counter(utterance.emotion for utterance in utterances)
    messages = [
        f"labels {first!r} ({emotions[first]}) and {second!r} ({emotions[second]}) differ by one letter: if they are the "
        f"same, map one of them, such as --emotion {first}={second}; if not, --emotion {first}={first} confirms it"
        for first, second in similar_labels(emotions, deliberate=[*source.emotions, *source.emotions.values()])
    ]
    spellings: dict[str, list[str]] = defaultdict(list)
    for speaker in sorted({utterance.speaker for utterance in utterances}):
        spellings[fold_label(speaker)].append(speaker)
    return messages + [
        f"speakers {' and '.join(map(repr, names))} differ only in case or separators: if they are the same, rename them, "
        "so that no speaker is in two subsets"
        for names in spellings.values()
        if len(names) > 1
    ]


def similar_labels(labels: Collection[str], deliberate: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return the pairs of labels that differ by one letter, which may be misspellings.

    Args:
        labels: The labels.
        deliberate: Labels that the user mapped explicitly, which are not compared.
    """
    known = {*EMOTIONS, *map(canonical_emotion, deliberate)}
    ordered = sorted(labels)
    return [
        (first, second)
        for index, first in enumerate(ordered)
        for second in ordered[index + 1 :]
        if not {first, second} <= known and _differ_by_one_letter(first, second)
    ]


def _differ_by_one_letter(first: str, second: str) -> bool:
    """Return True if one letter is added, left out, replaced, or exchanged with its neighbor."""
    if abs(len(first) - len(second)) > 1 or not any(map(str.isalpha, first)):
        return False
    start = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(map(len, (first, second)))
    )
    if len(first) == len(second):
        changed = first[start : start + 1] + second[start : start + 1]
        exchanged = first[start : start + 2] == second[start : start + 2][::-1]
        return (first[start + 1 :] == second[start + 1 :] and not any(map(str.isdigit, changed))) or (
            exchanged and first[start + 2 :] == second[start + 2 :]
        )
    shorter, longer = sorted((first, second), key=len)
    return shorter[start:] == longer[start + 1 :] and not longer[start].isdigit()
