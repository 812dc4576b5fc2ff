"""Names of the subsets of a split, as corpora, folders and tables write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

SUBSET_NAMES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "devel", "development"),
    "test": ("test", "testing", "tst"),
}
"""The usual subsets, with their names in corpora and tables."""
EVALUATION = ("eval", "evaluation")
"""Names that mean the test subset in some corpora and the validation subset in others; see `name_subsets`."""
_SUFFIX = re.compile(r"(sub)?(set|split|data|part)$")
_WORDS = {word: subset for subset, words in SUBSET_NAMES.items() for word in words}
_LONGER = re.compile(
    rf"(?:{'|'.join(sorted((*_WORDS, *EVALUATION), key=len, reverse=True))})(?:[\W_\d].*)", re.I | re.S
)


def _plain(word: str) -> str:
    """Return a word without case, punctuation and a suffix: "training" for "Training-Set"."""
    letters = re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", word).casefold())
    stem = _SUFFIX.sub("", letters)
    return stem if stem in _WORDS or stem in EVALUATION else letters


def is_subset(word: str) -> bool:
    """Return True for a usual name of a subset, in any case, such as "Dev" or "train_set"."""
    return (plain := _plain(word)) in _WORDS or plain in EVALUATION


def resembles_subset(word: str) -> bool:
    """Return True for a name that is no usual name of a subset but begins like one: "test2", "train-clean-100"."""
    return not is_subset(word) and _LONGER.fullmatch(word.strip()) is not None


def is_also_a_person_name(word: str) -> bool:
    """Return True for a name of a subset that is also a name of people: "Dev", "Val"."""
    return word.strip().casefold() in ("dev", "val")


def name_subsets(words: Iterable[str]) -> dict[str, str]:
    """Return word -> usual name of the subset, such as "dev" -> "validation"; other words are kept, without outer spaces.

    "eval" and "evaluation" are the validation subset if another word means test, and the test subset otherwise.

    Args:
        words: All names of subsets of one corpus.
    """
    plain = {word: _plain(word) for word in words}
    evaluation = "validation" if "test" in {_WORDS.get(name) for name in plain.values()} else "test"
    names = {**_WORDS, **dict.fromkeys(EVALUATION, evaluation)}
    return {word: names.get(name, word.strip()) for word, name in plain.items()}
