"""Names of emotions in the user's own data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from affekt.errors import BadCorpus
from affekt.labels import canonical_emotion
from affekt.registry import did_you_mean


class EmotionNames:
    """A mapping from labels to emotions: first the user's mapping, then common synonyms. Any other label is kept.

    Args:
        mapping: Custom label -> emotion.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = mapping
        self.seen: set[str] = set()

    def __call__(self, label: str) -> str:
        """Return the emotion to which a label is mapped."""
        self.seen.add(label)
        return self.mapping[label] if label in self.mapping else canonical_emotion(label)

    def check_used(self, source: Path) -> None:
        """Raise `BadCorpus` for a custom label that never occurred, since it is probably misspelled."""
        for label in sorted(set(self.mapping) - self.seen):
            raise BadCorpus(
                f"emotions maps {label!r}, which {source} does not have{did_you_mean(label, self.seen)} "
                f"(it has: {', '.join(sorted(self.seen))})"
            )
