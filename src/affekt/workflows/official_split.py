"""The split that a user's own data come with: the protocol that uses it, and messages on whether it is used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from affekt.corpora.subsets import SUBSET_NAMES
from affekt.errors import BadCorpus
from affekt.plural import quantity
from affekt.protocols import Split, utterance_key
from affekt.protocols.official import usual_subsets
from affekt.registry import did_you_mean
from affekt.utterance import Utterance

TEST_FRACTION = 0.2
"""Fraction of the training subset that becomes the test subset if none is stated in the data."""
VALIDATION_FRACTION = 0.1
"""The same for the validation subset, if a setting needs one."""
USUAL = (*SUBSET_NAMES, "dev", "val", "eval")
CURE = (
    "rename it, or ask for another split, which ignores that of the data: 'protocol={name=\"speaker-folds\"}' 'folds=[1]' or "
    "'protocol={name=\"random-hold-out\"}'"
)


def official_protocol(utterances: Sequence[Utterance], *, needs_validation: bool = False) -> dict[str, Any]:
    """Return the settings of the protocol that follows the split of the data, which must state at least one subset.

    Args:
        utterances: The data.
        needs_validation: Take a validation subset from the training subset if the data have none.

    Raises:
        BadCorpus: A subset has an unknown name, or there is nothing to train on.
    """
    names = usual_subsets(utterances)
    for utterance in utterances:
        if (subset := names[utterance_key(utterance)]) and subset not in SUBSET_NAMES:
            raise BadCorpus(
                f"{utterance.corpus}: unknown subset {subset!r}{did_you_mean(subset.lower(), USUAL)} ({utterance.id}); "
                f"expected train, validation (or dev, val), test or eval; {CURE}"
            )
    stated = set(names.values())
    if not stated & {"train", ""}:
        raise BadCorpus(
            f"all utterances are in the subset {' or '.join(sorted(stated))}, so there is none to train on; {CURE}"
        )
    protocol: dict[str, Any] = {"name": "official"}
    if "test" not in stated:
        protocol["test"] = TEST_FRACTION
    if needs_validation and "validation" not in stated:
        protocol["validation"] = VALIDATION_FRACTION
    return protocol


def describe_official(utterances: Sequence[Utterance]) -> list[str]:
    """Return a line per corpus with the subsets stated in its data: "calls: ... train 12, validation 6 ('dev')"."""
    names = usual_subsets(utterances)
    lines = []
    for corpus in dict.fromkeys(utterance.corpus for utterance in utterances):
        counts = Counter((names[utterance_key(u)] or "train", u.split) for u in utterances if u.corpus == corpus)
        subsets = [
            f"{subset} {count}" + ("" if word == subset else f" ({word!r})" if word else " (without a subset)")
            for (subset, word), count in sorted(counts.items(), key=lambda item: _order(item[0][0]))
        ]
        lines.append(f"{corpus}: the split of the data is used: {', '.join(subsets)}")
    return lines


def describe_subsets(split: Split, utterances: Sequence[Utterance]) -> str:
    """Return the subsets of a split that follows the data, and state which of them were taken from the training subset."""
    stated = {*usual_subsets(utterances).values(), "train"}
    return ", ".join(
        f"{subset} {len(split.subsets[subset])}" + ("" if subset in stated else " (taken from train)")
        for subset in sorted(split.subsets, key=_order)
    )


def describe_trained_subsets(split: Split, utterances: Sequence[Utterance]) -> list[str]:
    """Return a warning for each test or validation subset stated in the data whose utterances the split trains on."""
    names = usual_subsets(utterances)
    train = set(split.subsets["train"])
    counts = Counter(
        (utterance.corpus, utterance.split)
        for utterance in utterances
        if utterance_key(utterance) in train and names[utterance_key(utterance)] in ("test", "validation")
    )
    return [
        f"{corpus}: the data state a split, but {quantity(count, 'utterance')} of {word!r} are trained on, since the "
        f'protocol is {split.name}; protocol = {{name = "official"}} uses the split of the data'
        for (corpus, word), count in sorted(counts.items())
    ]


def _order(subset: str) -> tuple[int, str]:
    order = list(SUBSET_NAMES)
    return (order.index(subset) if subset in order else len(order), subset)
