"""Hold-out protocols: named speakers or random utterances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from affekt.errors import BadConfig
from affekt.protocols.base import Protocol, Sampler, Subsets
from affekt.protocols.grouped import split_validation
from affekt.registry import did_you_mean
from affekt.utterance import Utterance


@dataclass(frozen=True)
class HeldOutSpeakers(Protocol):
    """Subsets of named speakers ("cremad/1005"); all other speakers are in "train".

    A speaker who is in two subsets or has no utterance raises `BadConfig`, so that no subset is smaller than its settings
    say.
    """

    title: ClassVar[str] = "held-out speakers"
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Further subsets by name."""

    def __post_init__(self) -> None:
        if taken := set(self.others) & {"train", "validation", "test"}:
            raise BadConfig(f"{self.title}: others has {sorted(taken)}: use the settings of these names")
        if not any(self._named().values()):
            raise BadConfig(f"{self.title}: no speaker is held out: expected test = ['CORPUS/SPEAKER', ...]")

    @property
    def is_random(self) -> bool:
        return False

    @property
    def description(self) -> str:
        return ", ".join(f"{subset} {len(speakers)} speakers" for subset, speakers in self._named().items())

    def _named(self) -> dict[str, tuple[str, ...]]:
        named = {"validation": self.validation, **self.others, "test": self.test}
        return {subset: tuple(speakers) for subset, speakers in named.items() if speakers}

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:  # noqa: ARG002
        all_speakers = {utterance.speaker_key for utterance in utterances}
        subset_of: dict[str, str] = {}
        for subset, speakers in self._named().items():
            for speaker in speakers:
                if speaker in subset_of:
                    raise BadConfig(f"speaker {speaker} is in both {subset_of[speaker]!r} and {subset!r}")
                if speaker not in all_speakers:
                    near = did_you_mean(speaker, all_speakers)
                    raise BadConfig(f"{subset!r} names {speaker}, who has no utterance{near}")
                subset_of[speaker] = subset
        subsets: Subsets = {"train": [], **{subset: [] for subset in self._named()}}
        for utterance in utterances:
            subsets[subset_of.get(utterance.speaker_key, "train")].append(utterance)
        yield "", subsets


@dataclass(frozen=True)
class RandomHoldOut(Protocol):
    """A random test subset regardless of speaker, chosen independently for every repeat."""

    title: ClassVar[str] = "random hold-out"
    test: int | float = 0.2
    """A fraction below 1, rounded down, or a number of utterances."""
    validation: int | float = 0
    """A fraction or number of the remaining utterances; 0 for no validation subset."""
    repeats: int = 1
    """Number of folds."""
    stratified: bool = True
    """If true, utterances are chosen in proportion to their emotions."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.test <= 0 or self.validation < 0:
            raise BadConfig(
                f"{self.title}: test = {self.test}, validation = {self.validation}, repeats = {self.repeats}: expected a "
                "fraction or number for test, a fraction, number or 0 for validation, and at least 1 repeat"
            )

    @property
    def unused(self) -> set[str]:
        return {
            name for name, value in {"validation": self.validation, "repeats": self.repeats - 1}.items() if not value
        }

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        for number in range(1, self.repeats + 1):
            test, train = sampler.take(utterances, self.test, f"test part {number}", stratified=self.stratified)
            subsets: Subsets = {"train": train}
            if self.validation:
                purpose = f"validation part {number}"
                subsets = split_validation(
                    train, self.validation, purpose, sampler, by="utterances", stratified=self.stratified
                )
            yield f"{number} of {self.repeats}" if self.repeats > 1 else "", {**subsets, "test": test}
