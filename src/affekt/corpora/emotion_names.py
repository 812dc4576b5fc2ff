"""The emotions' names in one's own data: those given by the user, everyday words, and any others as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from affekt.errors import BadCorpus
from affekt.labels import canonical
from affekt.registry import did_you_mean


class EmotionNames:
    """`words(word)` is our emotion for a word of the data's. given: word -> emotion, before any other rule."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given
        self.met: set[str] = set()

    def __call__(self, word: str) -> str:
        self.met.add(word)
        return self.given[word] if word in self.given else canonical(word)

    def check_used(self, source: Path) -> None:
        """Raise `BadCorpus` for a given word that never occurred: it is likely to be misspelt."""
        for word in sorted(set(self.given) - self.met):
            raise BadCorpus(
                f"emotions maps {word!r}, which {source} does not have{did_you_mean(word, self.met)} "
                f"(it has: {', '.join(sorted(self.met))})"
            )
