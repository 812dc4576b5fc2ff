"""Protocols of papers that settings of another protocol cannot express."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from affekt.errors import BadConfig
from affekt.protocols.base import Protocol, Sampler, Subsets, require
from affekt.protocols.grouped import RandomFolds, group_by_session, group_by_speaker
from affekt.protocols.holdout import RandomHoldOut
from affekt.utterance import Utterance


@dataclass(frozen=True)
class MSTRRandom(Protocol):
    """MSTR (Li et al., Interspeech 2023) on CREMA-D: a random 80/20 split ("samples ... randomly").

    All speakers are in both subsets. The paper states neither a seed nor whether the split is stratified; we assume that it
    is not.
    """

    title: ClassVar[str] = "MSTR's random 80/20"
    stratified: bool = False

    @property
    def has_validation(self) -> bool:
        return False

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        return RandomHoldOut(test=0.2, stratified=self.stratified).split(utterances, sampler)


@dataclass(frozen=True)
class TDFNetRandomTen(Protocol):
    """TDFNet (Zhao et al., TASLP 2023, Table I, "RA"): ten random test subsets of 553 of IEMOCAP's 5,531 utterances.

    Every published WA is a multiple of 1/553. In a partition into ten folds, one fold would have 554 utterances, so the test
    subsets are ten independent draws. The paper stops early but names no validation subset; we assume a stratified tenth of
    the training subset.
    """

    title: ClassVar[str] = "TDFNet's ten random tests"
    validation: int | float = 0.1
    stratified: bool = True

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        settings = RandomHoldOut(test=553, validation=self.validation, repeats=10, stratified=self.stratified)
        return settings.split(utterances, sampler)


@dataclass(frozen=True)
class EightOneOne(Protocol):
    """MCSAN (Sun et al., ICASSP 2021, section 3) on IEMOCAP's 7,487 utterances: ten folds.

    Eight folds are for training, one for validation and one for testing. The folds consist of single utterances, so they are
    not speaker-independent. MCSAN takes the protocol from AMH (Yoon et al., ICASSP 2020), which publishes neither its folds
    nor whether they are stratified.
    """

    title: ClassVar[str] = "8:1:1 folds"
    stratified: bool = True

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        return RandomFolds(k=10, validation="next", stratified=self.stratified).split(utterances, sampler)


@dataclass(frozen=True)
class EmotionNAS(Protocol):
    """EmotionNAS (Sun, Lian et al., arXiv 2203.13617 v1): the held-out session's speakers are validation and test.

    The other eight of IEMOCAP's ten speakers are the training subset. The paper has five folds and does not say which
    speaker is the validation subset. The split is speaker-independent, but validation and test are the two sides of the same
    dialogues.
    """

    title: ClassVar[str] = "EmotionNAS's folds"
    validates: Literal["female", "male", "random"] = "female"
    """The speaker of the validation subset; "random" chooses at random."""
    swap: bool = False
    """If true, each fold is also used with validation and test swapped."""
    renamed_values: ClassVar[Mapping[str, Mapping[str, str]]] = {"validates": {"drawn": "random"}}

    @property
    def is_random(self) -> bool:
        return self.validates == "random"

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        require(utterances, "session", self.title)
        require(utterances, "speaker", self.title)
        sessions = group_by_session(utterances)
        for session, held_out in sessions.items():
            train = [utterance for other, group in sessions.items() if other != session for utterance in group]
            first, second = self._by_speaker(session, held_out, sampler)
            yield session, {"train": train, "validation": first, "test": second}
            if self.swap:
                yield f"{session}, swapped", {"train": train, "validation": second, "test": first}

    def _by_speaker(
        self, session: str, utterances: list[Utterance], sampler: Sampler
    ) -> tuple[list[Utterance], list[Utterance]]:
        """Return the utterances of the session's validation speaker, and those of its test speaker."""
        speakers = group_by_speaker(utterances)
        if len(speakers) != 2:
            raise BadConfig(f"{self.title} needs two speakers in every session: {session} has {', '.join(speakers)}")
        if self.validates == "random":
            names = sampler.order(speakers, f"who validates in {session}")
        else:
            require(utterances, "gender", self.title, "set validates = 'random'")
            names = sorted(speakers, key=lambda name: speakers[name][0].gender != self.validates)
            if [speakers[name][0].gender == self.validates for name in names] != [True, False]:
                raise BadConfig(
                    f"{self.title}: {session} does not have exactly one {self.validates} speaker: set validates = 'random'"
                )
        return speakers[names[0]], speakers[names[1]]
