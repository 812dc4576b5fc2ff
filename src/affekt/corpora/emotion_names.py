"""Names of emotions in the user's own data."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from affekt.errors import BadCorpus
from affekt.labels import canonical_emotion, fold_label
from affekt.registry import did_you_mean

logger = logging.getLogger(__name__)


class EmotionNames:
    """A mapping from labels to emotions: first the user's mapping, then common synonyms. Any other label is kept.

    Spellings that differ only in case, spaces, hyphens, underscores or Unicode form are the same label.

    Args:
        mapping: Custom label -> emotion.
    """

    def __init__(self, mapping: Mapping[str, str]) -> None:
        self.mapping = mapping
        self.seen: Counter[str] = Counter()
        self._folded = {fold_label(label): label for label in mapping}

    def __call__(self, label: str) -> str:
        """Return the emotion to which a label is mapped."""
        self.seen[label] += 1
        mapped = label if label in self.mapping else self._folded.get(fold_label(label))
        return canonical_emotion(label if mapped is None else self.mapping[mapped])

    def maps(self, label: str) -> bool:
        """Return True if the user mapped the label."""
        return fold_label(label) in self._folded

    def check_used(self, source: Path) -> None:
        """Raise `BadCorpus` for a custom label that never occurred, since it is probably misspelled."""
        folded = {fold_label(label) for label in self.seen}
        for label in sorted(label for label in self.mapping if fold_label(label) not in folded):
            raise BadCorpus(
                f"emotions maps {label!r}, which {source} does not have{did_you_mean(label, self.seen)} "
                f"(it has: {', '.join(sorted(self.seen))})"
            )

    def log_merged(self, source: Path) -> None:
        """Log which spellings of a label were merged."""
        spellings: dict[str, list[str]] = defaultdict(list)
        for label in sorted(self.seen):
            spellings[fold_label(label)].append(label)
        for labels in spellings.values():
            if len(labels) > 1:
                counts = ", ".join(f"{label!r} ({self.seen[label]})" for label in labels)
                emotion = sorted({canonical_emotion(self.mapping.get(label, label)) for label in labels})
                logger.info("%s: %s are read as %s", source.name, counts, " and ".join(emotion))
