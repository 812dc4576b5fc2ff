"""Protocols as papers print them, where they are more than a choice of settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from affekt.errors import BadConfig
from affekt.protocols.base import Draw, Parts, Protocol, need
from affekt.protocols.grouped import RandomFolds, by_name, by_session
from affekt.protocols.holdout import RandomHoldOut
from affekt.utterance import Utterance


@dataclass(frozen=True)
class MSTRRandom(Protocol):
    """MSTR (Li et al., Interspeech 2023) on CREMA-D: "samples ... randomly" 80/20. All speakers stand on both sides.

    The paper prints neither a seed nor whether emotions keep their proportions; read plainly, they need not.
    """

    title: ClassVar[str] = "MSTR's random 80/20"
    stratified: bool = False

    @property
    def has_validation(self) -> bool:
        return False

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:
        return RandomHoldOut(test=0.2, stratified=self.stratified).cut(utterances, draw)


@dataclass(frozen=True)
class TDFNetRandomTen(Protocol):
    """TDFNet (Zhao et al., TASLP 2023, Table I, "RA"): ten random tests of exactly 553 of IEMOCAP's 5,531 utterances.

    Every printed WA is a multiple of 1/553, and none of 1/554, which a partition into ten would have once: so ten draws.
    The paper stops early but names no validation part; a tenth of the training part, stratified, is our reading.
    """

    title: ClassVar[str] = "TDFNet's ten random tests"
    validation: int | float = 0.1
    stratified: bool = True

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:
        settings = RandomHoldOut(test=553, validation=self.validation, repeats=10, stratified=self.stratified)
        return settings.cut(utterances, draw)


@dataclass(frozen=True)
class EightOneOne(Protocol):
    """MCSAN (Sun et al., ICASSP 2021, section 3): ten folds, train 8, validation 1, test 1, as AMH split IEMOCAP's 7,487.

    The folds are of utterances, so not speaker-independent. AMH's own are not public, nor whether they were stratified.
    """

    title: ClassVar[str] = "8:1:1 folds"
    stratified: bool = True

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:
        return RandomFolds(k=10, validation="next", stratified=self.stratified).cut(utterances, draw)


@dataclass(frozen=True)
class EmotionNAS(Protocol):
    """EmotionNAS (Sun, Lian et al., arXiv 2203.13617 v1): of the session left out, one speaker validates, one tests.

    Eight of IEMOCAP's ten speakers train. The paper has five folds and does not say who validates: here the woman does,
    or whom `validates` says; with `swap` each fold is there in both directions. Speaker-independent, but validation and
    test are two sides of the same dialogues.
    """

    title: ClassVar[str] = "EmotionNAS's folds"
    validates: Literal["female", "male", "drawn"] = "female"
    swap: bool = False

    @property
    def drawn(self) -> bool:
        return self.validates == "drawn"

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:
        need(utterances, "session", self.title)
        need(utterances, "speaker", self.title)
        sessions = by_session(utterances)
        for session, heard in sessions.items():
            train = [one for other, group in sessions.items() if other != session for one in group]
            first, second = self._two(session, heard, draw)
            yield session, {"train": train, "validation": first, "test": second}
            if self.swap:
                yield f"{session}, swapped", {"train": train, "validation": second, "test": first}

    def _two(self, session: str, heard: list[Utterance], draw: Draw) -> tuple[list[Utterance], list[Utterance]]:
        """The session's speaker who validates, and the other."""
        people = by_name(heard, "person")
        if len(people) != 2:
            raise BadConfig(f"{self.title} needs two speakers in every session: {session} has {', '.join(people)}")
        if self.validates == "drawn":
            names = draw.order(people, f"who validates in {session}")
        else:
            need(heard, "gender", self.title, "set validates = 'drawn'")
            names = sorted(people, key=lambda person: people[person][0].gender != self.validates)
            if [people[name][0].gender == self.validates for name in names] != [True, False]:
                raise BadConfig(
                    f"{self.title}: {session} has not one {self.validates} speaker: set validates = 'drawn'"
                )
        return people[names[0]], people[names[1]]
