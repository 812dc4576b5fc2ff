"""What every protocol is: frozen settings, and the folds they make of utterances.

Nothing here asks a random generator, whose stream may change from one version of a library to the next. What is drawn
is put in the order of the SHA-256 of the seed, the purpose and the name, which is the same on every machine and does not
depend on the order in which a file system lists a corpus.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from affekt.errors import BadConfig
from affekt.protocols.split import Split, key
from affekt.utterance import Utterance

Label = Callable[[Utterance], str]
Parts = dict[str, list[Utterance]]

# What corpora call the three parts that everybody has.
PART_NAMES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
}


def part_name(word: str) -> str:
    """Our name of a part that others call `word`; a name that is not known stands for itself."""
    plain = word.strip().lower()
    return next((part for part, words in PART_NAMES.items() if plain in words), word.strip())


def emotion(utterance: Utterance) -> str:
    return utterance.emotion


@dataclass(frozen=True)
class Draw:
    """Chance that can be had again, anywhere."""

    seed: int
    label: Label = emotion  # what a stratified draw keeps in proportion

    def order(self, names: Iterable[str], purpose: str) -> list[str]:
        """The names in an order that looks random, and depends on nothing but seed, purpose and the names."""

        def place(name: str) -> bytes:
            return hashlib.sha256(json.dumps([self.seed, purpose, name]).encode()).digest()

        return sorted(names, key=place)

    def shuffled(self, utterances: Sequence[Utterance], purpose: str) -> list[Utterance]:
        by_key = {key(utterance): utterance for utterance in utterances}
        return [by_key[name] for name in self.order(by_key, purpose)]

    def deal(self, utterances: Sequence[Utterance], k: int, purpose: str, *, stratified: bool) -> list[list[Utterance]]:
        """k hands whose sizes differ by one at most; stratified, so do their numbers of every label."""
        order = self.shuffled(utterances, purpose)
        if stratified:
            order.sort(key=self.label)
        return [order[hand::k] for hand in range(k)]

    def take(
        self, utterances: Sequence[Utterance], amount: float, purpose: str, *, stratified: bool
    ) -> tuple[list[Utterance], list[Utterance]]:
        """A share below 1, rounded down, or a number of them; and the others."""
        number = count(amount, len(utterances), purpose)
        order = self.shuffled(utterances, purpose)
        if not stratified:
            return order[:number], order[number:]
        by_label = defaultdict(list)
        for utterance in order:
            by_label[self.label(utterance)].append(utterance)
        quotas = apportion(Counter({label: len(group) for label, group in by_label.items()}), number)
        taken = [one for label, group in by_label.items() for one in group[: quotas[label]]]
        left = [one for label, group in by_label.items() for one in group[quotas[label] :]]
        return taken, left


def count(amount: float, total: int, purpose: str) -> int:
    """How many a share below 1 of the total is, rounded down; a number from 1 on is meant as it stands."""
    number = math.floor(Fraction(str(amount)) * total) if amount < 1 else int(amount)
    if not 0 < number < total or (amount >= 1 and amount != number):
        raise BadConfig(
            f"{purpose} would have {number} of {total} utterances (asked for {amount}): expected a share below 1 or a whole "
            "number, that gives at least 1 and not all"
        )
    return number


def apportion(sizes: Counter[str], number: int) -> dict[str, int]:
    """`number` shared out in proportion to the sizes, by the largest remainders."""
    exact = {label: Fraction(number * size, sizes.total()) for label, size in sizes.items()}
    quotas = {label: math.floor(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], label))
    for label in by_remainder[: number - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def need(utterances: Sequence[Utterance], what: str, protocol: str, cure: str = "take another protocol") -> None:
    """Raise `BadConfig` if any utterance lacks what a protocol goes by: none is dropped in silence."""
    lacking = [key(utterance) for utterance in utterances if not getattr(utterance, what)]
    if lacking:
        raise BadConfig(
            f"{protocol} needs every utterance's {what}: {len(lacking)} of {len(utterances)} have none, "
            f"first {lacking[0]}; {cure}, or a table of the corpus that says it"
        )


@dataclass(frozen=True)
class Protocol(ABC):
    """Settings that make folds."""

    title: ClassVar[str]  # as it is printed with scores

    @property
    def drawn(self) -> bool:
        """Whether the seed has any part in the folds."""
        return True

    @property
    def has_validation(self) -> bool:
        """Whether the folds have a validation part, as far as the settings tell: an official split may have none."""
        return bool(getattr(self, "validation", True))

    @property
    def description(self) -> str:
        """The settings in one line: "validation next, stratified, k 10"."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        words = {True: "{}", False: "not {}"}
        said = [
            words[value].format(name) if isinstance(value, bool) else f"{name} {value}"
            for name, value in values.items()
            if name not in self.idle
        ]
        return ", ".join(said)

    @property
    def idle(self) -> set[str]:
        """The settings that have no part in the folds, as the others stand."""
        return set()

    @abstractmethod
    def cut(self, utterances: list[Utterance], draw: Draw) -> Iterator[tuple[str, Parts]]:
        """The folds by name. The utterances come sorted by their keys."""

    def folds(self, utterances: Sequence[Utterance], seed: int = 0, *, label: Label = emotion) -> list[Split]:
        """The protocol's splits of these utterances, in whatever order they are given.

        label: what a stratified draw keeps in proportion, where it is not the emotion itself (after a merge, say).
        Raises `BadConfig` where utterances lack what the protocol goes by, or a part would be empty.
        """
        if repeated := [name for name, times in Counter(map(key, utterances)).items() if times > 1]:
            raise BadConfig(f"{len(repeated)} utterances are given more than once, first {repeated[0]}")
        made = []
        for fold, parts in self.cut(sorted(utterances, key=key), Draw(seed, label)):
            for part, chosen in parts.items():
                if not chosen:
                    where = f"{self.title}, fold {fold}" if fold else self.title
                    raise BadConfig(f"{where}: part {part!r} of {len(utterances)} utterances would be empty")
            ids = {part: [key(utterance) for utterance in chosen] for part, chosen in parts.items()}
            drawn = seed if self.drawn else None
            made.append(Split.of(utterances, ids, self.title, fold=fold, seed=drawn, description=self.description))
        return made
