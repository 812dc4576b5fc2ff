"""Cross-validation over groups of utterances: sessions, speakers or random folds. Each is the test subset once.

Leave one session out: MSTR (Li et al., Interspeech 2023, 5 folds of IEMOCAP's 5,531 utterances), KS-Transformer (5 folds
by session; fold f of its code is tested on session 6-f), TDFNet (Zhao et al., TASLP 2023, "LOSO"). None of them names
a validation subset, so there is none by default; TDFNet stops early, for which we assume `validation = 0.1,
validation_by = "utterances"`. Leave one speaker out: TDFNet's "LOPO", 10 folds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from affekt.errors import BadConfig
from affekt.protocols.base import Protocol, Sampler, Subsets, count, require
from affekt.utterance import Utterance

Groups = dict[str, list[Utterance]]
NEXT = "next"


@dataclass(frozen=True)
class Grouped(Protocol):
    """One fold per group of utterances: the group is the test subset, the others are for training and validation."""

    validation: float | Literal["next"] = 0.0
    """Validation subset: 0 for none, "next" for the group after the test group (for the last group, the first), or a
    fraction of the other utterances (a value of 1 or more is a number of utterances)."""
    validation_by: Literal["speakers", "utterances"] = "speakers"
    """How a fraction is chosen: as whole speakers (as close to it as possible) or as single utterances."""
    stratified: bool = True
    """If true, single utterances are chosen in proportion to their emotions."""

    def __post_init__(self) -> None:
        if not isinstance(self.validation, str) and self.validation < 0:
            raise BadConfig(f"validation = {self.validation}: expected 'next', a fraction, or 0 for none")

    @property
    def uses_fraction(self) -> bool:
        """Return True if a fraction of the training utterances is chosen at random for validation."""
        return self.validation not in (0, NEXT)

    @property
    def unused(self) -> set[str]:
        by_utterances = self.uses_fraction and self.validation_by == "utterances"
        is_used = {
            "validation": bool(self.validation),
            "validation_by": self.uses_fraction,
            "stratified": by_utterances,
        }
        return {name for name, used in is_used.items() if not used}

    @abstractmethod
    def groups(self, utterances: list[Utterance], sampler: Sampler) -> Groups:
        """Return the groups by name, in the order in which they are the test subset."""

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        groups = self.groups(utterances, sampler)
        names = list(groups)
        needed = 3 if self.validation == NEXT else 2
        if len(names) < needed:
            raise BadConfig(f"{self.title}: expected {needed} groups or more, got {', '.join(names)}")
        for number, name in enumerate(names):
            after = names[(number + 1) % len(names)] if self.validation == NEXT else None
            train = [utterance for other in names if other not in (name, after) for utterance in groups[other]]
            subsets = {"train": train, "validation": groups[after]} if after else self._split(train, name, sampler)
            yield name, {**subsets, "test": groups[name]}

    def _split(self, train: list[Utterance], fold: str, sampler: Sampler) -> Subsets:
        if isinstance(self.validation, str) or not self.validation:
            return {"train": train}
        return split_validation(
            train,
            self.validation,
            f"validation of fold {fold}",
            sampler,
            by=self.validation_by,
            stratified=self.stratified,
        )


def split_validation(
    train: Sequence[Utterance],
    amount: float,
    purpose: str,
    sampler: Sampler,
    *,
    by: Literal["speakers", "utterances"],
    stratified: bool,
) -> Subsets:
    """Divide training utterances into the subsets "train" and "validation".

    Args:
        train: The utterances to divide.
        amount: Size of the validation subset: a fraction or a number of utterances, as in `count`.
        purpose: A part of the hashed string, and a name for error messages.
        sampler: The source of random choices.
        by: Whether to choose whole speakers or single utterances.
        stratified: Choose utterances in proportion to the labels; without effect for speakers.

    Raises:
        BadConfig: A subset would be empty, or an utterance has no speaker.
    """
    if by == "utterances":
        chosen, others = sampler.take(train, amount, purpose, stratified=stratified)
        return {"train": others, "validation": chosen}
    require(train, "speaker", "validation by speakers", "set validation_by = 'utterances'")
    wanted, speakers = count(amount, len(train), purpose), group_by_speaker(train)
    chosen = []
    for speaker in sampler.order(speakers, purpose)[:-1]:  # at least one speaker is left to train on
        # Whole speakers, at least one, and as near to the fraction as possible.
        if chosen and abs(len(chosen) + len(speakers[speaker]) - wanted) >= abs(len(chosen) - wanted):
            break
        chosen += speakers[speaker]
    validating = {utterance.speaker_key for utterance in chosen}
    return {
        "train": [utterance for utterance in train if utterance.speaker_key not in validating],
        "validation": chosen,
    }


def group_by_speaker(utterances: Sequence[Utterance]) -> Groups:
    """Group utterances by `speaker_key`, sorted."""
    groups = defaultdict(list)
    for utterance in utterances:
        groups[utterance.speaker_key].append(utterance)
    return dict(sorted(groups.items()))


def group_by_session(utterances: Sequence[Utterance]) -> Groups:
    """Group utterances by corpus and session ("iemocap/Ses01"), sorted."""
    groups = defaultdict(list)
    for utterance in utterances:
        groups[f"{utterance.corpus}/{utterance.session}"].append(utterance)
    return dict(sorted(groups.items()))


@dataclass(frozen=True)
class LeaveOneSessionOut(Grouped):
    """One fold per session."""

    title: ClassVar[str] = "leave one session out"

    def groups(self, utterances: list[Utterance], sampler: Sampler) -> Groups:  # noqa: ARG002
        require(utterances, "session", self.title)
        return group_by_session(utterances)

    @property
    def is_random(self) -> bool:
        return self.uses_fraction


@dataclass(frozen=True)
class LeaveOneSpeakerOut(Grouped):
    """One fold per speaker."""

    title: ClassVar[str] = "leave one speaker out"

    def groups(self, utterances: list[Utterance], sampler: Sampler) -> Groups:  # noqa: ARG002
        require(utterances, "speaker", self.title)
        return group_by_speaker(utterances)

    @property
    def is_random(self) -> bool:
        return self.uses_fraction


@dataclass(frozen=True)
class SpeakerFolds(Grouped):
    """k groups of whole speakers with similar numbers of utterances.

    Each speaker is assigned to the group that is smallest so far; those with the most utterances are assigned first. The seed
    decides the order of speakers with equally many.
    """

    title: ClassVar[str] = "speaker folds"
    k: int = 5

    def groups(self, utterances: list[Utterance], sampler: Sampler) -> Groups:
        require(utterances, "speaker", self.title)
        speakers = group_by_speaker(utterances)
        if not 2 <= self.k <= len(speakers):
            raise BadConfig(f"{self.title}: k = {self.k}: expected 2 to {len(speakers)}, the number of speakers")
        folds: list[list[Utterance]] = [[] for _ in range(self.k)]
        for speaker in sorted(sampler.order(speakers, "speaker folds"), key=lambda name: -len(speakers[name])):
            min(folds, key=len).extend(speakers[speaker])
        return number_folds(folds)


@dataclass(frozen=True)
class RandomFolds(Grouped):
    """k folds of utterances regardless of speaker: not speaker-independent."""

    title: ClassVar[str] = "random folds"
    validation_by: Literal["speakers", "utterances"] = "utterances"
    k: int = 10

    @property
    def unused(self) -> set[str]:
        return super().unused - {"stratified"}

    def groups(self, utterances: list[Utterance], sampler: Sampler) -> Groups:
        if not 2 <= self.k <= len(utterances):
            raise BadConfig(f"{self.title}: k = {self.k}: expected 2 to {len(utterances)}, the number of utterances")
        return number_folds(sampler.deal(utterances, self.k, "random folds", stratified=self.stratified))


def number_folds(folds: Sequence[list[Utterance]]) -> Groups:
    """Name folds "1 of 5", "2 of 5" and so on."""
    return {f"{number} of {len(folds)}": fold for number, fold in enumerate(folds, start=1)}
