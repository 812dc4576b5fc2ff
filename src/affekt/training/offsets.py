"""Offsets in training: utterances are centered on the mean of their source, or shifted by the difference of two speakers.

Recordings of one source share an offset of the encoder's features, which comes from speaker, microphone and room. A model
that is trained with the offsets of its corpora alone depends on them. With centering, it learns to use features without the
offset, as a profile provides them (`affekt.bundle.adaptation`); with shifts, to ignore an offset that it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from affekt.batch import Stream
from affekt.bundle.adaptation import time_statistics
from affekt.features.augment import Offsets

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Statistics:
    """Statistics over time of one stream, averaged over groups of utterances."""

    mean: Floats
    """The mean of each feature, (groups, dim), minus that of all utterances."""
    log_std: Floats
    """The logarithm of the standard deviation of each feature, (groups, dim), minus that of all utterances."""
    center: Floats
    """The mean of each feature over all utterances, (dim,)."""


@dataclass(frozen=True)
class SourceOffsets:
    """The offsets of a dataset's corpora and speakers in one stream."""

    settings: Offsets
    statistics: Statistics
    """The corpora first, then the speakers."""
    corpus: NDArray[np.int64]
    """The index of each utterance's corpus among the groups, (utterances,)."""
    speaker: NDArray[np.int64]
    """The index of each utterance's speaker among the groups, (utterances,)."""
    num_corpora: int
    """Number of groups that are corpora."""

    @classmethod
    def measure(
        cls,
        settings: Offsets,
        features: Sequence[NDArray[np.floating]],
        corpora: Sequence[str],
        speakers: Sequence[str],
    ) -> SourceOffsets:
        """Measure the offsets of corpora and speakers.

        Args:
            settings: The settings of a recipe.
            features: The frames of each utterance, (frames, dim).
            corpora: The corpus of each utterance.
            speakers: The speaker of each utterance; names are unique across corpora.
        """
        by_utterance = [
            time_statistics(Stream(torch.from_numpy(np.array(frames)).float()[None])) for frames in features
        ]
        means, log_stds = (torch.cat(values).numpy() for values in zip(*by_utterance, strict=True))
        center, scale = means.mean(axis=0), log_stds.mean(axis=0)
        corpus_names, corpus = np.unique(corpora, return_inverse=True)
        speaker_names, speaker = np.unique(speakers, return_inverse=True)
        members = [corpus == group for group in range(len(corpus_names))]  # (utterances,) for each group
        members += [speaker == group for group in range(len(speaker_names))]
        statistics = Statistics(
            np.stack([means[group].mean(axis=0) - center for group in members]),
            np.stack([log_stds[group].mean(axis=0) - scale for group in members]),
            center,
        )
        return cls(settings, statistics, corpus, speaker + len(corpus_names), len(corpus_names))

    def select(self, indices: Sequence[int]) -> SourceOffsets:
        """Return the offsets of some of the utterances, in this order; the groups stay the same."""
        return replace(self, corpus=self.corpus[list(indices)], speaker=self.speaker[list(indices)])

    def sample(self, generator: np.random.Generator) -> EpochOffsets:
        """Sample the offset that is removed from each utterance in one epoch."""
        count, corpora = len(self.corpus), self.num_corpora
        uniform, settings = generator.random(count), self.settings
        centered = uniform < settings.center_probability
        shifted = ~centered & (uniform < settings.center_probability + settings.shift_probability)
        group = np.where(generator.random(count) < 0.5, self.corpus, self.speaker)
        pairs = generator.integers(corpora, len(self.statistics.mean), size=(2, count))
        weight = (centered + shifted * settings.shift * generator.random(count)).astype(np.float32)
        return EpochOffsets(
            self.statistics, weight, np.where(centered, group, pairs[0]), np.where(centered, -1, pairs[1])
        )


@dataclass(frozen=True)
class EpochOffsets:
    """The offset that is removed from each utterance in one epoch: `weight * (plus - minus)`."""

    statistics: Statistics
    weight: Floats
    """(utterances,); 0 for an utterance that stays unchanged."""
    plus: NDArray[np.int64]
    """The index of a group, (utterances,)."""
    minus: NDArray[np.int64]
    """The index of a group, (utterances,); -1 for none."""

    def remove(self, frames: NDArray[np.floating], index: int) -> Floats:
        """Return an utterance's frames (frames, dim) without its offset, as `Adaptation` removes it in a pipeline."""
        offset, log_scale = (
            self._difference(self.statistics.mean, index),
            self._difference(self.statistics.log_std, index),
        )
        center, scale = self.statistics.center, np.exp(-log_scale)
        values: Floats = frames.astype(np.float32)
        values *= scale
        values += center - (center + offset) * scale
        return values

    def _difference(self, groups: Floats, index: int) -> Floats:
        difference = groups[self.plus[index]]
        if self.minus[index] >= 0:
            difference = difference - groups[self.minus[index]]
        return self.weight[index] * difference
