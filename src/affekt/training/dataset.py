"""Turn stored features into batches of utterances of similar length, in an order that depends only on a seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from affekt.batch import Batch, Stream, frame_mask
from affekt.models.base import FeatureSpec
from affekt.training.offsets import EpochOffsets, SourceOffsets

Frames = NDArray[np.floating]
"""The features of an utterance: (frames, dim), or (dim,) without a time axis."""

BATCHES_PER_POOL = 16
"""Number of batches whose utterances are sorted by length together."""


class EpochView(Sequence[Frames]):
    """A stream of a dataset in one epoch: one version of each utterance, cropped, read on access.

    Args:
        versions: The originals, then each set of augmented copies; each is a sequence with the frames of every utterance.
        version_index: For each utterance, the index in `versions` of the version to use, (utterances,).
        fraction: The fraction of its frames that a crop keeps, (utterances,); None for no crop.
        position: The position of the crop, from 0 (at the start) to 1 (at the end), (utterances,); None for no crop.
    """

    def __init__(
        self,
        versions: Sequence[Sequence[Frames]],
        version_index: NDArray[np.int64],
        fraction: NDArray[np.float64] | None = None,
        position: NDArray[np.float64] | None = None,
    ) -> None:
        self.versions, self.version_index, self.fraction, self.position = versions, version_index, fraction, position

    def __len__(self) -> int:
        return len(self.version_index)

    def __getitem__(self, index: Any) -> Any:
        values = self.versions[self.version_index[index]][index]
        if self.fraction is None or self.position is None:
            return values
        size = max(1, int(len(values) * self.fraction[index]))
        start = int((len(values) - size + 1) * self.position[index])
        return values[start : start + size]


class Subset(Sequence[Any]):
    """Some of the entries of a sequence, read on access."""

    def __init__(self, values: Sequence[Any], indices: Sequence[int]) -> None:
        self.values, self.indices = values, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.values[self.indices[index]]


@dataclass(frozen=True)
class Dataset:
    """Utterances with their features, which are read on access."""

    ids: Sequence[str]
    labels: NDArray[np.int64]
    """(utterances,)"""
    features: Mapping[str, Sequence[Frames]]
    """Stream -> the frames of each utterance, read on access."""
    specs: Mapping[str, FeatureSpec]
    """Stream -> its size and frame rate."""
    soft_labels: NDArray[np.float32] | None = None
    """(utterances, emotions)"""
    word_index: Mapping[str, Sequence[NDArray[np.int64]]] = field(default_factory=dict)
    """Stream of tokens -> for each utterance the index of the word that each token belongs to, (tokens,)."""
    copies: Sequence[Mapping[str, Sequence[Frames]]] = ()
    """Augmented copies of `features`, for training."""
    copy_probability: float = 0.0
    """Probability that an epoch uses a copy of an utterance instead of the original."""
    crop: float = 0.0
    """Largest fraction of an utterance's frames that an epoch leaves out."""
    offsets: Mapping[str, SourceOffsets] = field(default_factory=dict)
    """Stream -> the offsets that vary in training."""
    epoch_offsets: Mapping[str, EpochOffsets] = field(default_factory=dict)
    """Stream -> the offsets that this epoch removes."""

    def sample_epoch(self, generator: np.random.Generator) -> Dataset:
        """Return the dataset of one epoch: one randomly chosen version of every utterance, randomly cropped."""
        if not self.copies and not self.crop and not self.offsets:
            return self
        copy_numbers = 1 + generator.integers(max(len(self.copies), 1), size=len(self))
        uses_copy = generator.random(len(self)) < self.copy_probability * bool(self.copies)
        version_index = np.where(uses_copy, copy_numbers, 0)
        fraction, position = 1 - self.crop * generator.random(len(self)), generator.random(len(self))
        features = {}
        for name, spec in self.specs.items():
            versions = [self.features[name], *(copy[name] for copy in self.copies)]
            crop = () if spec.frame_rate is None else (fraction, position)  # tokens and vectors are not cropped
            features[name] = EpochView(versions, version_index, *crop)
        epoch_offsets = {name: offsets.sample(generator) for name, offsets in self.offsets.items()}
        return replace(
            self, features=features, copies=(), copy_probability=0.0, crop=0.0, offsets={}, epoch_offsets=epoch_offsets
        )

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> NDArray[np.int64]:
        """Return the number of frames of each utterance in the first stream with a time axis, (utterances,).

        Without such a stream, every number is 1.
        """
        timed = next((name for name, spec in self.specs.items() if spec.has_time), None)
        if timed is None:
            return np.ones(len(self), np.int64)
        return np.array([len(values) for values in self.features[timed]], np.int64)

    def only(self, stream: str) -> Dataset:
        """Return the same utterances with one of their streams, and without copies."""
        word_index = {stream: self.word_index[stream]} if stream in self.word_index else {}
        features, specs = {stream: self.features[stream]}, {stream: self.specs[stream]}
        return replace(self, features=features, specs=specs, word_index=word_index, copies=(), offsets={})

    def select(self, indices: Sequence[int]) -> Dataset:
        """Return some of the utterances, in the order of `indices`, with their labels, features and copies."""
        selected = list(indices)

        def select_in_streams(streams: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
            return {name: Subset(values, selected) for name, values in streams.items()}

        return replace(
            self,
            ids=[self.ids[index] for index in selected],
            labels=self.labels[selected],
            features=select_in_streams(self.features),
            soft_labels=None if self.soft_labels is None else self.soft_labels[selected],
            word_index=select_in_streams(self.word_index),
            copies=[select_in_streams(copy) for copy in self.copies],
            offsets={name: offsets.select(selected) for name, offsets in self.offsets.items()},
        )

    def statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return, for each stream, mean and standard deviation of each feature over all frames, (dim,) each."""
        result = {}
        for name, arrays in self.features.items():
            total = squares = np.zeros(self.specs[name].dim)
            count = 0
            for values in arrays:
                frames = np.atleast_2d(values).astype(np.float64)
                total, squares, count = (
                    total + frames.sum(axis=0),
                    squares + (frames**2).sum(axis=0),
                    count + len(frames),
                )
            mean = total / count
            std = np.sqrt(np.maximum(squares / count - mean**2, 0))
            result[name] = (torch.from_numpy(mean).float(), torch.from_numpy(std).float())
        return result

    def batch(self, indices: Sequence[int]) -> Batch:
        """Return a padded batch of some of the utterances."""
        streams = {
            name: collate(
                [self._frames(name, index) for index in indices],
                spec.frame_rate,
                [self.word_index[name][index] for index in indices] if name in self.word_index else None,
            )
            for name, spec in self.specs.items()
        }
        selected = list(indices)
        labels, soft = (
            None if values is None else torch.from_numpy(values[selected]) for values in (self.labels, self.soft_labels)
        )
        return Batch(streams, tuple(self.ids[index] for index in indices), labels, soft)

    def _frames(self, stream: str, index: int) -> Frames:
        frames: Frames = self.features[stream][index]
        return self.epoch_offsets[stream].remove(frames, index) if stream in self.epoch_offsets else frames


def collate(
    values: Sequence[Frames], frame_rate: float | None, word_index: Sequence[NDArray[np.int64]] | None = None
) -> Stream:
    """Pad (frames, dim) arrays of different lengths into one stream, or stack (dim,) arrays into one without a time axis.

    Args:
        values: The features of each utterance.
        frame_rate: Frames per second; None for tokens and for features without a time axis.
        word_index: The word of each token, (tokens,) per utterance; padding gets -1.
    """
    if values[0].ndim == 1:
        return Stream(torch.from_numpy(np.stack(values).astype(np.float32)))
    counts = torch.tensor([len(frames) for frames in values])
    padded = torch.zeros(len(values), int(counts.max()), values[0].shape[1])
    for row, frames in zip(padded, values, strict=True):
        row[: len(frames)] = torch.from_numpy(
            np.array(frames)
        )  # torch converts 16 bits several times faster than numpy
    mask = frame_mask(counts, padded.shape[1])
    if word_index is None:
        return Stream(padded, mask, frame_rate)
    padded_words = torch.full(mask.shape, -1)
    for row, words in zip(padded_words, word_index, strict=True):
        row[: len(words)] = torch.from_numpy(words)
    return Stream(padded, mask, frame_rate, padded_words)


def sample_groups(groups: ArrayLike, generator: np.random.Generator, power: float = 0.0) -> NDArray[np.int64]:
    """Return as many indices as there are utterances, sampled so that small groups occur more often than in the data.

    All utterances of a group are sampled before any is sampled again.

    Args:
        groups: The group of each utterance, (utterances,), such as its emotion or corpus.
        generator: The random generator.
        power: A group is sampled in proportion to the number of its utterances to this power: 0 for equally often.
    """
    names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights = sizes.astype(float) ** power
    counts = np.ceil(len(group) * weights / weights.sum()).astype(int)
    indices = np.concatenate(
        [np.resize(generator.permutation(np.flatnonzero(group == n)), counts[n]) for n in range(len(names))]
    )
    return indices[generator.permutation(len(indices))][: len(group)]


def training_batches(
    lengths: NDArray[np.int64],
    size: int,
    generator: np.random.Generator,
    order: NDArray[np.int64] | None = None,
    *,
    rank: int = 0,
    world: int = 1,
) -> Iterator[list[int]]:
    """Yield an epoch's batches of indices: in a random order, but sorted by length within pools.

    Every process gets the same number of batches; remaining batches are left out of this epoch.

    Args:
        lengths: The number of frames of each utterance.
        size: The approximate number of utterances in a batch.
        generator: The random generator; the same in all processes.
        order: The indices of the epoch in a random order, the same in all processes; by default, every utterance once.
        rank: The number of this process, from 0.
        world: The number of processes.
    """
    order = generator.permutation(len(lengths)) if order is None else order
    batches = []
    # Pools and batches are split evenly: batch normalization cannot compute statistics of a last batch of one utterance.
    for pool in np.array_split(order, max(1, round(len(order) / (size * BATCHES_PER_POOL)))):
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [batch.tolist() for batch in np.array_split(pool, max(1, round(len(pool) / size)))]
    shuffled = [batches[i] for i in generator.permutation(len(batches))]
    return iter(shuffled[rank : len(shuffled) // world * world : world])


def scoring_batches(lengths: NDArray[np.int64], size: int) -> Iterator[list[int]]:
    """Yield batches of indices, sorted by length, that together contain every utterance once."""
    order = np.argsort(lengths, kind="stable")
    return (order[start : start + size].tolist() for start in range(0, len(order), size))
