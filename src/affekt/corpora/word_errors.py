"""The word error rate of recognized transcripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""The words of digits, which speech-to-text models write in either way."""


@dataclass(frozen=True)
class WordErrors:
    """The number of word errors of transcripts: words that are substituted, inserted or deleted."""

    errors: int
    words: int
    """Words of the correct transcripts."""

    @property
    def rate(self) -> float:
        """The word error rate, a fraction of the correct words; it exceeds 1 if many words are inserted."""
        return self.errors / self.words


def count_word_errors(pairs: Iterable[tuple[str, str]]) -> WordErrors | None:
    """Count the errors of transcripts, ignoring case and punctuation; None if the correct transcripts have no words.

    Args:
        pairs: Each correct transcript with the recognized one.
    """
    split = [(split_words(correct), split_words(recognized)) for correct, recognized in pairs]
    words = sum(len(correct) for correct, _ in split)
    return WordErrors(sum(edit_distance(*pair) for pair in split), words) if words else None


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; numbers up to 12 are words."""
    words = re.findall(r"\w+(?:'\w+)*", text.casefold().replace("\u2019", "'"))
    return [NUMBERS[int(word)] if word.isdecimal() and int(word) < len(NUMBERS) else word for word in words]


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the smallest number of substitutions, insertions and deletions that turn one sequence into another."""
    distances = list(range(len(second) + 1))
    for number, item in enumerate(first, 1):
        diagonal, distances[0] = distances[0], number
        for index, other in enumerate(second, 1):
            substituted = diagonal + (item != other)
            diagonal = distances[index]
            distances[index] = min(substituted, diagonal + 1, distances[index - 1] + 1)
    return distances[-1]
