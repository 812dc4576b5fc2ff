"""Protocols that cut a corpus into groups and leave out one group after another: sessions, speakers, folds.

Leave one session out: MSTR (Li et al., Interspeech 2023, 5 folds of IEMOCAP's 5,531 utterances), KS-Transformer (5 folds
by session, whose code calls fold f the test on session 6-f), TDFNet (Zhao et al., TASLP 2023, "LOSO"). None of them names
a validation part, so none is the default; TDFNet stops early, and `validation = 0.1, validation_by = "utterances"` is our
reading of it. Leave one speaker out: TDFNet's "LOPO", 10 folds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from affekt.errors import BadConfig
from affekt.protocols.base import Draw, Parts, Protocol, count, need
from affekt.utterance import Utterance

Groups = dict[str, list[Utterance]]
NEXT = "next"


@dataclass(frozen=True)
class Grouped(Protocol):
    """One fold per group: the group is tested, the others are trained on, and part of them may validate.

    validation: "next" for the group after the tested one, the first after the last; or a share of the others (a number
    from 1 on counts utterances): as many whole speakers as come nearest to it, or utterances.
    """

    validation: float | Literal["next"] = 0.0  # 0: no validation part
    validation_by: Literal["speakers", "utterances"] = "speakers"
    stratified: bool = True  # what is drawn by utterances keeps the emotions in proportion

    def __post_init__(self) -> None:
        if not isinstance(self.validation, str) and self.validation < 0:
            raise BadConfig(f"validation = {self.validation}: expected 'next', a share, or 0 for none")

    @property
    def shares(self) -> bool:
        """Whether part of the training utterances is drawn for validation."""
        return self.validation not in (0, NEXT)

    @property
    def idle(self) -> set[str]:
        by_utterances = self.shares and self.validation_by == "utterances"
        unused = {"validation": bool(self.validation), "validation_by": self.shares, "stratified": by_utterances}
        return {name for name, used in unused.items() if not used}

    @abstractmethod
    def groups(self, utterances: list[Utterance], draw: Draw) -> Groups:
        """The groups by name, in the order in which they are tested."""

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:
        groups = self.groups(utterances, draw)
        names = list(groups)
        needed = 3 if self.validation == NEXT else 2
        if len(names) < needed:
            raise BadConfig(f"{self.title}: expected {needed} groups or more, got {', '.join(names)}")
        for number, name in enumerate(names):
            after = names[(number + 1) % len(names)] if self.validation == NEXT else None
            train = [one for other in names if other not in (name, after) for one in groups[other]]
            parts = {"train": train, "validation": groups[after]} if after else self._validated(train, name, draw)
            yield name, {**parts, "test": groups[name]}

    def _validated(self, train: list[Utterance], fold: str, draw: Draw) -> Parts:
        if isinstance(self.validation, str) or not self.validation:
            return {"train": train}
        return validated(
            train,
            self.validation,
            f"validation of fold {fold}",
            draw,
            by=self.validation_by,
            stratified=self.stratified,
        )


def validated(
    train: Sequence[Utterance],
    amount: float,
    purpose: str,
    draw: Draw,
    *,
    by: Literal["speakers", "utterances"],
    stratified: bool,
) -> Parts:
    """A training part divided into the parts "train" and "validation"."""
    if by == "utterances":
        chosen, left = draw.take(train, amount, purpose, stratified=stratified)
        return {"train": left, "validation": chosen}
    need(train, "speaker", "validation by speakers", "set validation_by = 'utterances'")
    wanted, people = count(amount, len(train), purpose), by_name(train, "person")
    chosen = []
    for person in draw.order(people, purpose)[:-1]:  # somebody has to be trained on
        # Whole speakers, at least one, and as near to the share as they come.
        if chosen and abs(len(chosen) + len(people[person]) - wanted) >= abs(len(chosen) - wanted):
            break
        chosen += people[person]
    heard = {one.person for one in chosen}
    return {"train": [one for one in train if one.person not in heard], "validation": chosen}


def by_name(utterances: Sequence[Utterance], what: str) -> Groups:
    """The utterances by their person, say; names in order."""
    groups = defaultdict(list)
    for utterance in utterances:
        groups[str(getattr(utterance, what))].append(utterance)
    return dict(sorted(groups.items()))


def by_session(utterances: Sequence[Utterance]) -> Groups:
    """The utterances by their session, told apart from sessions of other corpora: "iemocap/Ses01"."""
    groups = defaultdict(list)
    for utterance in utterances:
        groups[f"{utterance.corpus}/{utterance.session}"].append(utterance)
    return dict(sorted(groups.items()))


@dataclass(frozen=True)
class LeaveOneSessionOut(Grouped):
    title: ClassVar[str] = "leave one session out"

    def groups(self, utterances: list[Utterance], draw: Draw) -> Groups:  # noqa: ARG002
        need(utterances, "session", self.title)
        return by_session(utterances)

    @property
    def drawn(self) -> bool:
        return self.shares


@dataclass(frozen=True)
class LeaveOneSpeakerOut(Grouped):
    title: ClassVar[str] = "leave one speaker out"

    def groups(self, utterances: list[Utterance], draw: Draw) -> Groups:  # noqa: ARG002
        need(utterances, "speaker", self.title)
        return by_name(utterances, "person")

    @property
    def drawn(self) -> bool:
        return self.shares


@dataclass(frozen=True)
class SpeakerFolds(Grouped):
    """k groups of whole speakers, as even in utterances as going from the most to the least talkative makes them.

    The seed decides among speakers who have equally much to say.
    """

    title: ClassVar[str] = "speaker folds"
    k: int = 5

    def groups(self, utterances: list[Utterance], draw: Draw) -> Groups:
        need(utterances, "speaker", self.title)
        people = by_name(utterances, "person")
        if not 2 <= self.k <= len(people):
            raise BadConfig(f"{self.title}: k = {self.k}: expected 2 to {len(people)}, as many as there are speakers")
        folds: list[list[Utterance]] = [[] for _ in range(self.k)]
        for person in sorted(draw.order(people, "speaker folds"), key=lambda person: -len(people[person])):
            min(folds, key=len).extend(people[person])
        return numbered(folds)


@dataclass(frozen=True)
class RandomFolds(Grouped):
    """k folds by utterances, whoever speaks: not speaker-independent."""

    title: ClassVar[str] = "random folds"
    validation_by: Literal["speakers", "utterances"] = "utterances"
    k: int = 10

    @property
    def idle(self) -> set[str]:
        return super().idle - {"stratified"}

    def groups(self, utterances: list[Utterance], draw: Draw) -> Groups:
        if not 2 <= self.k <= len(utterances):
            raise BadConfig(
                f"{self.title}: k = {self.k}: expected 2 to {len(utterances)}, as many as there are utterances"
            )
        return numbered(draw.deal(utterances, self.k, "random folds", stratified=self.stratified))


def numbered(folds: Sequence[list[Utterance]]) -> Groups:
    return {f"{number} of {len(folds)}": fold for number, fold in enumerate(folds, start=1)}
