"""Splits read from files: saved folds, the split of a run, a table's column, or the folds of another toolkit."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from affekt.corpora.subsets import SUBSET_NAMES
from affekt.errors import BadConfig
from affekt.protocols.base import Label, Protocol, Sampler, Subsets, check_unique, emotion_of
from affekt.protocols.files import natural_order, read_splits
from affekt.protocols.grouped import split_validation
from affekt.protocols.split import Split, utterance_key
from affekt.utterance import Utterance

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitFiles(Protocol):
    """A split read from files, in any of the formats that `affekt.protocols.files.read_splits` describes.

    A table whose column has no usual name of a subset, such as a column of the numbers 1 to 5, has a fold for each value: its
    utterances are the test subset, all others the training subset.
    """

    title: ClassVar[str] = "split files"
    path: str
    """A file or folder, relative to the current folder."""
    column: str = ""
    """For a table: the column of subsets or folds; "" to find it by its name."""
    delimiter: str = ""
    """For a table in CSV or TSV: a character, or "tab", "semicolon", ...; "" to detect it."""
    allow_missing: bool = False
    """If true, utterances of the files that the corpora lack are left out; otherwise they are an error."""
    validation: float = 0.0
    """Fraction of the training subset that becomes the validation subset if the files have none; 0 for none."""
    validation_by: Literal["speakers", "utterances"] = "speakers"
    """Whether it consists of whole speakers or of single utterances."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation < 1:
            raise BadConfig(
                f"validation = {self.validation}: expected a fraction of the training subset, or 0 for none"
            )

    @property
    def is_random(self) -> bool:
        return bool(self.validation)

    @property
    def has_validation(self) -> bool:
        return True

    @property
    def unused(self) -> set[str]:
        used = {
            "column": self.column,
            "delimiter": False,
            "allow_missing": self.allow_missing,
            "validation": self.validation,
            "validation_by": self.validation,
        }
        return {name for name, value in used.items() if not value}

    def split(self, utterances: list[Utterance], sampler: Sampler) -> Iterator[tuple[str, Subsets]]:
        for stored, subsets in self._read(utterances, (), sampler):
            yield stored.fold, subsets

    def folds(
        self,
        utterances: Sequence[Utterance],
        seed: int = 0,
        *,
        label: Label = emotion_of,
        left_out: Sequence[Utterance] = (),
    ) -> list[Split]:
        """Return the splits of the files, without utterances that are not among the given ones.

        Their names and folds are those of the files; whether they are speaker-independent is determined anew.
        """
        check_unique(utterances)
        splits = []
        for stored, subsets in self._read(utterances, left_out, Sampler(seed, label)):
            keys = {subset: [utterance_key(utterance) for utterance in chosen] for subset, chosen in subsets.items()}
            description = ", ".join(part for part in (stored.description, f"read from {self.path}") if part)
            taken = "validation" in subsets and "validation" not in stored.subsets
            fold_seed = seed if taken else stored.seed
            options = {"fold": stored.fold, "description": description}
            splits.append(Split.of(utterances, keys, stored.name, seed=fold_seed, **options))
        return splits

    def _read(
        self, utterances: Sequence[Utterance], left_out: Sequence[Utterance], sampler: Sampler
    ) -> Iterator[tuple[Split, Subsets]]:
        """Yield the splits as the files state them, each with its subsets of the given utterances."""
        path, all_utterances = Path(self.path).expanduser(), [*utterances, *left_out]
        known = {utterance_key(utterance) for utterance in all_utterances}
        by_key = {utterance_key(utterance): utterance for utterance in utterances}
        stored = read_splits(path, all_utterances, self.delimiter, column=self.column, allow_missing=self.allow_missing)
        for stored_split in stored:
            for split in _folds_of_values(stored_split):
                self._check_missing(split, known)
                subsets = self._select(split, by_key)
                if self.validation and "validation" not in split.subsets:
                    purpose = f"validation of {self.title} {split.fold}".rstrip()
                    taken = split_validation(
                        subsets["train"], self.validation, purpose, sampler, by=self.validation_by, stratified=True
                    )
                    subsets = {**taken, **{name: subsets[name] for name in subsets if name != "train"}}
                yield split, subsets

    def _check_missing(self, split: Split, known: set[str]) -> None:
        """Raise `BadConfig`, or warn, if the split names utterances that the corpora lack."""
        named = {key for keys in split.subsets.values() for key in keys}
        if not (missing := sorted(named - known)):
            return
        problem = f"{self.path}: {len(missing)} of {len(named)} utterances are not in the corpora, first {missing[0]}"
        if not self.allow_missing:
            raise BadConfig(
                f"{problem}: use the corpora that the split was made from, or leave these utterances out with "
                "protocol.allow_missing=true"
            )
        logger.warning("%s: they are left out", problem)

    def _select(self, split: Split, by_key: dict[str, Utterance]) -> Subsets:
        """Return the utterances of each subset; raise `BadConfig` for a split that cannot be trained on."""
        subset_of: dict[str, str] = {}
        for subset, keys in split.subsets.items():
            for key in keys:
                if (other := subset_of.setdefault(key, subset)) != subset:
                    raise BadConfig(
                        f"{self.path}: {key} is in the subsets {other!r} and {subset!r}: remove one of them"
                    )
        subsets = {subset: [by_key[key] for key in keys if key in by_key] for subset, keys in split.subsets.items()}
        for subset in dict.fromkeys(("train", "test", *subsets)):
            if not subsets.get(subset):
                sizes = ", ".join(f"{name} {len(chosen)}" for name, chosen in sorted(subsets.items()))
                raise BadConfig(
                    f"{self.path}: the subset {subset!r} has no utterance of the recipe's corpora and emotions ({sizes})"
                )
        return subsets


def _folds_of_values(split: Split) -> list[Split]:
    """Return a fold for each value of a table's column of folds, which names no usual subset; otherwise the split itself."""
    names = sorted(split.subsets, key=natural_order)
    if len(names) < 2 or not set(names).isdisjoint(SUBSET_NAMES):
        return [split]
    return [
        replace(
            split,
            fold=name,
            subsets={
                "train": tuple(key for other in names if other != name for key in split.subsets[other]),
                "test": split.subsets[name],
            },
        )
        for name in names
    ]
