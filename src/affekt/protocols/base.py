"""The base class of protocols: frozen settings that divide utterances into folds.

No random number generator is used, since its numbers may change between versions of a library. Names are shuffled by
sorting them by the SHA-256 of the seed, a purpose and the name. The result is the same on every machine and does not depend
on the order in which a file system lists a corpus. The strings that name a purpose must therefore not change.
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
from affekt.protocols.split import Split, utterance_key
from affekt.utterance import Utterance

Label = Callable[[Utterance], str]
Subsets = dict[str, list[Utterance]]


def emotion_of(utterance: Utterance) -> str:
    """Return the emotion of an utterance, for `stratified`."""
    return utterance.emotion


@dataclass(frozen=True)
class Sampler:
    """A source of reproducible random choices."""

    seed: int
    label: Label = emotion_of
    """The label whose proportions a stratified choice preserves."""

    def order(self, names: Iterable[str], purpose: str) -> list[str]:
        """Return the names in a pseudorandom order that depends only on the seed, the purpose and the names."""

        def sort_key(name: str) -> bytes:
            return hashlib.sha256(json.dumps([self.seed, purpose, name]).encode()).digest()

        return sorted(names, key=sort_key)

    def shuffle(self, utterances: Sequence[Utterance], purpose: str) -> list[Utterance]:
        """Return the utterances in the order that `order` returns for their keys."""
        by_key = {utterance_key(utterance): utterance for utterance in utterances}
        return [by_key[key] for key in self.order(by_key, purpose)]

    def deal(self, utterances: Sequence[Utterance], k: int, purpose: str, *, stratified: bool) -> list[list[Utterance]]:
        """Return k groups whose sizes differ by at most one; if stratified, their counts of each label do too.

        Args:
            utterances: The utterances to divide.
            k: Number of groups.
            purpose: A part of the hashed string; the same purpose gives the same order.
            stratified: Preserve the proportions of the labels in each group.
        """
        order = self.shuffle(utterances, purpose)
        if stratified:
            order.sort(key=self.label)
        return [order[group::k] for group in range(k)]

    def take(
        self, utterances: Sequence[Utterance], amount: float, purpose: str, *, stratified: bool
    ) -> tuple[list[Utterance], list[Utterance]]:
        """Return the chosen utterances and the others.

        Args:
            utterances: The utterances to choose from.
            amount: A fraction or a number, as in `count`.
            purpose: A part of the hashed string, and a name for error messages.
            stratified: Choose in proportion to the labels.
        """
        number = count(amount, len(utterances), purpose)
        order = self.shuffle(utterances, purpose)
        if not stratified:
            return order[:number], order[number:]
        by_label = defaultdict(list)
        for utterance in order:
            by_label[self.label(utterance)].append(utterance)
        quotas = apportion(Counter({label: len(group) for label, group in by_label.items()}), number)
        chosen = [utterance for label, group in by_label.items() for utterance in group[: quotas[label]]]
        others = [utterance for label, group in by_label.items() for utterance in group[quotas[label] :]]
        return chosen, others


def count(amount: float, total: int, purpose: str) -> int:
    """Convert an amount to a number of utterances, which must be at least 1 and less than the total.

    Args:
        amount: Below 1, a fraction of the total, rounded down; otherwise the number itself.
        total: The number of utterances to choose from.
        purpose: What the utterances are for, for the error message.

    Raises:
        BadConfig: The number is not in this range, or not whole.
    """
    number = math.floor(Fraction(str(amount)) * total) if amount < 1 else int(amount)
    if not 0 < number < total or (amount >= 1 and amount != number):
        raise BadConfig(
            f"{purpose} would have {number} of {total} utterances ({amount} requested): expected a fraction below 1 or a "
            "whole number, for at least 1 utterance and not all"
        )
    return number


def apportion(sizes: Counter[str], number: int) -> dict[str, int]:
    """Divide `number` in proportion to the sizes, by the largest-remainder method."""
    exact = {label: Fraction(number * size, sizes.total()) for label, size in sizes.items()}
    quotas = {label: math.floor(quota) for label, quota in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (quotas[label] - exact[label], label))
    for label in by_remainder[: number - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def require(utterances: Sequence[Utterance], field: str, protocol: str, cure: str = "use another protocol") -> None:
    """Check that every utterance has a field that the protocol needs; dropping utterances would go unnoticed.

    Args:
        utterances: The utterances.
        field: Name of the field, such as "speaker".
        protocol: Name of the protocol, for the message.
        cure: What to do if the field is missing, for the message.

    Raises:
        BadConfig: An utterance lacks the field.
    """
    lacking = [utterance_key(utterance) for utterance in utterances if not getattr(utterance, field)]
    if lacking:
        raise BadConfig(
            f"{protocol} needs every utterance's {field}: {len(lacking)} of {len(utterances)} have none, "
            f"first {lacking[0]}; {cure}, or list the corpus in a table with this field"
        )


def check_unique(utterances: Sequence[Utterance]) -> None:
    """Raise `BadConfig` if an utterance is given twice."""
    if repeated := [key for key, times in Counter(map(utterance_key, utterances)).items() if times > 1]:
        raise BadConfig(f"{len(repeated)} utterances are given more than once, first {repeated[0]}")


@dataclass(frozen=True)
class Protocol(ABC):
    """A way to divide utterances into training, validation and test subsets, in one or several folds."""

    title: ClassVar[str]
    """The protocol's name beside scores and in messages."""

    @property
    def is_random(self) -> bool:
        """Return True if the folds depend on the seed."""
        return True

    @property
    def has_validation(self) -> bool:
        """Return True if the settings ask for a validation subset. An official split may nevertheless have none."""
        return bool(getattr(self, "validation", True))

    @property
    def description(self) -> str:
        """The settings in one line: "validation next, stratified, k 10"."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        templates = {True: "{}", False: "not {}"}
        settings = [
            templates[value].format(name) if isinstance(value, bool) else f"{name} {value}"
            for name, value in values.items()
            if name not in self.unused
        ]
        return ", ".join(settings)

    @property
    def unused(self) -> set[str]:
        """The settings that have no effect, given the others."""
        return set()

    @abstractmethod
    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        """Yield each fold's name and subsets. The utterances are sorted by their keys."""

    def folds(
        self,
        utterances: Sequence[Utterance],
        seed: int = 0,
        *,
        label: Label = emotion_of,
        left_out: Sequence[Utterance] = (),  # noqa: ARG002 (only files name utterances that are not used)
    ) -> list[Split]:
        """Return the protocol's splits of these utterances, which do not depend on their order.

        Args:
            utterances: The utterances, each once.
            seed: Seed of all random choices.
            label: The label whose proportions a stratified choice preserves: by default the emotion, before any merging.
            left_out: Further utterances of the corpora that are not used, such as those with other emotions. Split files
                may name them.

        Raises:
            BadConfig: An utterance is given twice or lacks a field that the protocol needs, or a subset would be empty.
        """
        check_unique(utterances)
        splits = []
        for fold, subsets in self.split(sorted(utterances, key=utterance_key), Sampler(seed, label)):
            for subset, chosen in subsets.items():
                if not chosen:
                    where = f"{self.title}, fold {fold}" if fold else self.title
                    raise BadConfig(f"{where}: subset {subset!r} of {len(utterances)} utterances would be empty")
            keys = {subset: [utterance_key(utterance) for utterance in chosen] for subset, chosen in subsets.items()}
            fold_seed = seed if self.is_random else None
            splits.append(
                Split.of(utterances, keys, self.title, fold=fold, seed=fold_seed, description=self.description)
            )
        return splits
