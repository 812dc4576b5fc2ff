"""The split that comes with the data: a corpus's official split, or the folders or the column of your own data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from affekt.corpora.subsets import name_subsets
from affekt.errors import BadConfig
from affekt.protocols.base import Protocol, Sampler, Subsets, require
from affekt.protocols.grouped import split_validation
from affekt.protocols.split import utterance_key
from affekt.utterance import Utterance

MIN_SPEAKERS = 3
"""With fewer speakers in the training subset, utterances are taken from it instead of speakers."""


@dataclass(frozen=True)
class Official(Protocol):
    """The corpus's own split, such as MELD's train, dev and test; all papers on MELD use it.

    Other usual names of the three subsets are recognized (`affekt.corpora.subsets`); any other name is a further subset.
    If a corpus names no training subset, its utterances without a subset are the training subset.
    """

    title: ClassVar[str] = "official split"
    test: float = 0.0
    """Fraction of the training subset that becomes the test subset if the data have none: whole speakers, or utterances if
    not all speakers are known or there are fewer than three. If 0, data without a test subset are an error."""
    validation: float = 0.0
    """The same for the validation subset; 0 for none."""

    def __post_init__(self) -> None:
        if not (0 <= self.test < 1 and 0 <= self.validation < 1):
            raise BadConfig(
                f"{self.title}: test = {self.test}, validation = {self.validation}: expected fractions of the training "
                "subset"
            )

    @property
    def is_random(self) -> bool:
        return bool(self.test or self.validation)

    @property
    def has_validation(self) -> bool:
        return True

    @property
    def unused(self) -> set[str]:
        return {name for name, value in {"test": self.test, "validation": self.validation}.items() if not value}

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        subsets = official_subsets(utterances, self.title)
        for subset, amount in (("test", self.test), ("validation", self.validation)):
            if amount and subset not in subsets and "train" in subsets:
                taken = _take(subsets["train"], amount, f"{subset} of the {self.title}", sampler)
                subsets.update({"train": taken["train"], subset: taken["validation"]})
        if missing := {"train", "test"} - set(subsets):
            words = sorted({utterance.split for utterance in utterances})
            cure = "" if "train" in missing else "; the protocol's setting test = 0.2 takes it from train"
            raise BadConfig(f"{self.title}: there is no {' or '.join(sorted(missing))}: the corpus has {words}{cure}")
        yield "", subsets


def official_subsets(utterances: Sequence[Utterance], protocol: str) -> Subsets:
    """Return the subsets stated in the data, by their usual names.

    Utterances without a subset are in the training subset if their corpus names no training subset.

    Raises:
        BadConfig: No utterance has a subset, or some utterances of a corpus that names a training subset have none.
    """
    if not any(utterance.split for utterance in utterances):
        require(utterances, "split", protocol)
    names = usual_subsets(utterances)
    with_train = {utterance.corpus for utterance in utterances if names[utterance_key(utterance)] == "train"}
    if any(not utterance.split and utterance.corpus in with_train for utterance in utterances):
        require(utterances, "split", protocol, "exclude them with `without`, use another protocol")
    subsets: Subsets = {}
    for utterance in utterances:
        subsets.setdefault(names[utterance_key(utterance)] or "train", []).append(utterance)
    return subsets


def usual_subsets(utterances: Iterable[Utterance]) -> dict[str, str]:
    """Return the usual name of the subset stated in the data, by the utterance's key; "" for none."""
    utterances = list(utterances)
    words: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        words[utterance.corpus].add(utterance.split)
    names = {corpus: name_subsets(splits) for corpus, splits in words.items()}
    return {utterance_key(utterance): names[utterance.corpus][utterance.split] for utterance in utterances}


def _take(train: Sequence[Utterance], amount: float, purpose: str, sampler: Sampler) -> Subsets:
    """Divide training utterances into the subsets "train" and "validation": by speakers if there are enough."""
    speakers = {utterance.speaker_key for utterance in train}
    if len(speakers) >= MIN_SPEAKERS and all(utterance.speaker for utterance in train):
        return split_validation(train, amount, purpose, sampler, by="speakers", stratified=True)
    return split_validation(train, amount, purpose, sampler, by="utterances", stratified=True)
