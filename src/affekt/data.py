"""From stored features to batches: utterances of like length side by side, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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

    Every process gets equally many; what does not fill the last round is left out of this epoch.
    """
    order = generator.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), size * POOL):
        pool = order[start : start + size * POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + size].tolist() for i in range(0, len(pool), size)]
    shuffled = [batches[i] for i in generator.permutation(len(batches))]
    return iter(shuffled[rank : len(shuffled) // world * world : world])


def scoring_batches(lengths: NDArray[np.int64], size: int) -> Iterator[list[int]]:
    """Batches of indices in order of length; together they hold every utterance once."""
    order = np.argsort(lengths, kind="stable")
    return (order[start : start + size].tolist() for start in range(0, len(order), size))
