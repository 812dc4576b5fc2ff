"""From stored features to batches: utterances of like length side by side, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affekt.batch import Batch, Stream

POOL = 16  # batches whose utterances are sorted by length together


@dataclass(frozen=True)
class FeatureSpec:
    """What is known of a stream's features before one is read."""

    dim: int
    frame_rate: float | None
    parts: int = 1  # states of the encoder, one after the other along dim


@dataclass(frozen=True)
class Dataset:
    """Utterances with their features; nothing is read before it is asked for.

    features: part that the stream plays -> one (frames, dim) array per utterance, memory-mapped or not.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    features: Mapping[str, Sequence[NDArray[np.floating]]]
    specs: Mapping[str, FeatureSpec]
    copies: Sequence[Mapping[str, Sequence[NDArray[np.floating]]]] = ()  # of `features`, for training
    copy_share: float = 0.0  # of the utterances of an epoch, how many are heard as a copy
    crop: float = 0.0  # largest share of an utterance's frames that an epoch leaves out

    def drawn(self, generator: np.random.Generator) -> Dataset:
        """The dataset as one epoch hears it: of every utterance one version, cropped at one place."""
        if not self.copies and not self.crop:
            return self
        versions = [self.features, *self.copies]
        numbers = 1 + generator.integers(max(len(self.copies), 1), size=len(self))
        chosen = np.where(generator.random(len(self)) < self.copy_share * bool(self.copies), numbers, 0)
        kept, place = 1 - self.crop * generator.random(len(self)), generator.random(len(self))

        def one(name: str, index: int) -> NDArray[np.floating]:
            values = versions[chosen[index]][name][index]
            if self.specs[name].frame_rate is None:
                return values
            size = max(1, int(len(values) * kept[index]))
            start = int((len(values) - size + 1) * place[index])
            return values[start : start + size]

        features = {name: [one(name, index) for index in range(len(self))] for name in self.features}
        return replace(self, features=features, copies=(), copy_share=0.0, crop=0.0)

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> NDArray[np.int64]:
        """(utterances,): frames of the first stream that has time."""
        timed = next((name for name, spec in self.specs.items() if spec.frame_rate is not None), None)
        if timed is None:
            return np.ones(len(self), np.int64)
        return np.array([len(values) for values in self.features[timed]], np.int64)

    def statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Stream -> mean and deviation of each feature over all frames, (dim,) each."""
        result = {}
        for name, arrays in self.features.items():
            total = squares = np.zeros(self.specs[name].dim)
            count = 0
            for one in arrays:
                frames = np.atleast_2d(one).astype(np.float64)
                total, squares, count = (
                    total + frames.sum(axis=0),
                    squares + (frames**2).sum(axis=0),
                    count + len(frames),
                )
            mean = total / count
            deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
            result[name] = (torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())
        return result

    def batch(self, indices: Sequence[int]) -> Batch:
        streams = {
            name: collate([self.features[name][index] for index in indices], spec.frame_rate)
            for name, spec in self.specs.items()
        }
        labels = torch.from_numpy(self.labels[list(indices)])
        return Batch(streams, tuple(self.ids[index] for index in indices), labels)


def collate(values: Sequence[NDArray[np.floating]], frame_rate: float | None) -> Stream:
    """(frames, dim) arrays of differing lengths as one padded stream; (dim,) arrays as one without time."""
    if values[0].ndim == 1:
        return Stream(torch.from_numpy(np.stack(values).astype(np.float32)))
    counts = torch.tensor([len(one) for one in values])
    padded = torch.zeros(len(values), int(counts.max()), values[0].shape[1])
    for row, one in zip(padded, values, strict=True):
        row[: len(one)] = torch.from_numpy(one.astype(np.float32))
    return Stream(padded, torch.arange(padded.shape[1]) < counts.unsqueeze(1), frame_rate)


def training_batches(
    lengths: NDArray[np.int64], size: int, generator: np.random.Generator, *, rank: int = 0, world: int = 1
) -> Iterator[list[int]]:
    """An epoch's batches of indices for one of `world` processes: shuffled, then sorted by length within pools.

    Batches hold about `size` utterances. Every process gets equally many batches; a remainder is left out of this epoch.
    """
    order = generator.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        # What is left over joins its neighbour: a batch of one would have no statistics.
        count = max(1, round(len(pool) / size))
        batches += [part.tolist() for part in np.array_split(pool, count)]
    shuffled = [batches[i] for i in generator.permutation(len(batches))]
    return iter(shuffled[rank : len(shuffled) // world * world : world])


def scoring_batches(lengths: NDArray[np.int64], size: int) -> Iterator[list[int]]:
    """Batches of indices in order of length; together they hold every utterance once."""
    order = np.argsort(lengths, kind="stable")
    return (order[start : start + size].tolist() for start in range(0, len(order), size))
