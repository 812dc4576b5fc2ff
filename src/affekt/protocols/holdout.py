"""Protocols that hold something out: chosen people, utterances drawn at random, the corpus's own test part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from affekt.errors import BadConfig
from affekt.protocols.base import Draw, Parts, Protocol, need, part_name
from affekt.protocols.grouped import validated
from affekt.registry import did_you_mean
from affekt.utterance import Utterance


@dataclass(frozen=True)
class HeldOutPeople(Protocol):
    """Every part but "train" by the people in it ("cremad/1005"); everybody else is trained on.

    Raises `BadConfig` for a person who stands in two parts or does not occur: a part may not be smaller than it reads.
    """

    title: ClassVar[str] = "held-out people"
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    others: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # further parts by name

    def __post_init__(self) -> None:
        if taken := set(self.others) & {"train", "validation", "test"}:
            raise BadConfig(f"{self.title}: others holds {sorted(taken)}: name the people of these parts directly")
        if not any(self._named().values()):
            raise BadConfig(f"{self.title}: nobody is held out: expected test = ['CORPUS/SPEAKER', ...]")

    @property
    def drawn(self) -> bool:
        return False

    @property
    def description(self) -> str:
        return ", ".join(f"{part} {len(people)} people" for part, people in self._named().items())

    def _named(self) -> dict[str, tuple[str, ...]]:
        named = {"validation": self.validation, **self.others, "test": self.test}
        return {part: tuple(people) for part, people in named.items() if people}

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:  # noqa: ARG002
        everyone = {utterance.person for utterance in utterances}
        part_of: dict[str, str] = {}
        for part, people in self._named().items():
            for person in people:
                if person in part_of:
                    raise BadConfig(f"{person} stands in {part_of[person]!r} and in {part!r}")
                if person not in everyone:
                    near = did_you_mean(person, everyone)
                    raise BadConfig(f"{part!r} names {person}, of whom there is no utterance{near}")
                part_of[person] = part
        parts: Parts = {"train": [], **{part: [] for part in self._named()}}
        for utterance in utterances:
            parts[part_of.get(utterance.person, "train")].append(utterance)
        yield "", parts


@dataclass(frozen=True)
class RandomHoldOut(Protocol):
    """A test part drawn at random, whoever speaks, and drawn anew for every repeat.

    test, validation: a share below 1, rounded down, or a number of utterances; validation is drawn from what is left.
    """

    title: ClassVar[str] = "random hold-out"
    test: int | float = 0.2
    validation: int | float = 0
    repeats: int = 1
    stratified: bool = True  # the emotions keep their proportions

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.test <= 0 or self.validation < 0:
            raise BadConfig(
                f"{self.title}: test = {self.test}, validation = {self.validation}, repeats = {self.repeats}: expected a "
                "share or number to test, one or 0 to validate, and at least 1 repeat"
            )

    @property
    def idle(self) -> set[str]:
        return {
            name for name, value in {"validation": self.validation, "repeats": self.repeats - 1}.items() if not value
        }

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:
        for number in range(1, self.repeats + 1):
            test, left = draw.take(utterances, self.test, f"test part {number}", stratified=self.stratified)
            parts: Parts = {"train": left}
            if self.validation:
                purpose = f"validation part {number}"
                parts = validated(left, self.validation, purpose, draw, by="utterances", stratified=self.stratified)
            yield f"{number} of {self.repeats}" if self.repeats > 1 else "", {**parts, "test": test}


@dataclass(frozen=True)
class Official(Protocol):
    """The corpus's own split, such as MELD's train, dev and test; all papers on MELD use it.

    What corpora call the three usual parts is known; any other word is a part by its own name.
    """

    title: ClassVar[str] = "official split"

    @property
    def drawn(self) -> bool:
        return False

    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:  # noqa: ARG002
        need(utterances, "split", self.title)
        parts: Parts = {}
        for utterance in utterances:
            parts.setdefault(part_name(utterance.split), []).append(utterance)
        if missing := {"train", "test"} - set(parts):
            words = sorted({utterance.split for utterance in utterances})
            raise BadConfig(f"{self.title}: no part is {' or '.join(sorted(missing))}: the corpus says {words}")
        yield "", parts
