"""From stored features to batches: utterances of like length side by side, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affekt.batch import Batch, Stream, frame_mask
from affekt.models.base import FeatureSpec

Frames = NDArray[np.floating]  # (frames, dim), or (dim,) without time

POOL = 16  # batches whose utterances are sorted by length together


class EpochView(Sequence[Frames]):
    """A view of the dataset for one epoch: one version of each utterance, read on access.

    chosen: which version, by utterance; kept: which share of its frames; place: where these begin, from 0 to 1.
    """

    def __init__(
        self,
        versions: Sequence[Sequence[Frames]],
        chosen: NDArray[np.int64],
        kept: NDArray[np.float64] | None = None,
        place: NDArray[np.float64] | None = None,
    ) -> None:
        self.versions, self.chosen, self.kept, self.place = versions, chosen, kept, place

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: Any) -> Any:
        values = self.versions[self.chosen[index]][index]
        if self.kept is None or self.place is None:
            return values
        size = max(1, int(len(values) * self.kept[index]))
        start = int((len(values) - size + 1) * self.place[index])
        return values[start : start + size]


class Subset(Sequence[Any]):
    """Some of a sequence's entries, each still read when it is asked for."""

    def __init__(self, values: Sequence[Any], indices: Sequence[int]) -> None:
        self.values, self.indices = values, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.values[self.indices[index]]


@dataclass(frozen=True)
class Dataset:
    """Utterances with their features; nothing is read before it is asked for.

    features: part that the stream plays -> a sequence that gives each utterance's (frames, dim) when it is asked for.
    words: of a stream of tokens, each utterance's map from token to word, (tokens,).
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    features: Mapping[str, Sequence[Frames]]
    specs: Mapping[str, FeatureSpec]
    soft_labels: NDArray[np.float32] | None = None  # (utterances, emotions)
    words: Mapping[str, Sequence[NDArray[np.int64]]] = field(default_factory=dict)
    copies: Sequence[Mapping[str, Sequence[Frames]]] = ()  # of `features`, for training
    copy_probability: float = 0.0  # of using a copy of an utterance instead of the original in an epoch
    crop: float = 0.0  # largest share of an utterance's frames that an epoch leaves out

    def drawn(self, generator: np.random.Generator) -> Dataset:
        """The dataset as one epoch hears it: of every utterance one version, cropped at one place."""
        if not self.copies and not self.crop:
            return self
        numbers = 1 + generator.integers(max(len(self.copies), 1), size=len(self))
        chosen = np.where(generator.random(len(self)) < self.copy_probability * bool(self.copies), numbers, 0)
        kept, place = 1 - self.crop * generator.random(len(self)), generator.random(len(self))
        features = {
            name: EpochView([self.features[name], *(copy[name] for copy in self.copies)], chosen)
            if spec.frame_rate is None
            else EpochView([self.features[name], *(copy[name] for copy in self.copies)], chosen, kept, place)
            for name, spec in self.specs.items()
        }
        return replace(self, features=features, copies=(), copy_probability=0.0, crop=0.0)

    def __len__(self) -> int:
        return len(self.ids)

    def lengths(self) -> NDArray[np.int64]:
        """(utterances,): frames of the first stream that has time."""
        timed = next((name for name, spec in self.specs.items() if spec.has_time), None)
        if timed is None:
            return np.ones(len(self), np.int64)
        return np.array([len(values) for values in self.features[timed]], np.int64)

    def only(self, stream: str) -> Dataset:
        """The same utterances with one of their streams, and without copies."""
        words = {stream: self.words[stream]} if stream in self.words else {}
        features, specs = {stream: self.features[stream]}, {stream: self.specs[stream]}
        return replace(self, features=features, specs=specs, words=words, copies=())

    def chosen(self, indices: Sequence[int]) -> Dataset:
        """Some of the utterances, in this order, with all that belongs to them."""
        places = list(indices)

        def of(values: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
            return {name: Subset(entries, places) for name, entries in values.items()}

        return replace(
            self,
            ids=[self.ids[index] for index in places],
            labels=self.labels[places],
            features=of(self.features),
            soft_labels=None if self.soft_labels is None else self.soft_labels[places],
            words=of(self.words),
            copies=[of(copy) for copy in self.copies],
        )

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
            name: collate(
                [self.features[name][index] for index in indices],
                spec.frame_rate,
                [self.words[name][index] for index in indices] if name in self.words else None,
            )
            for name, spec in self.specs.items()
        }
        chosen = list(indices)
        labels, soft = (
            None if values is None else torch.from_numpy(values[chosen]) for values in (self.labels, self.soft_labels)
        )
        return Batch(streams, tuple(self.ids[index] for index in indices), labels, soft)


def collate(
    values: Sequence[Frames], frame_rate: float | None, words: Sequence[NDArray[np.int64]] | None = None
) -> Stream:
    """(frames, dim) arrays of differing lengths as one padded stream; (dim,) arrays as one without time."""
    if values[0].ndim == 1:
        return Stream(torch.from_numpy(np.stack(values).astype(np.float32)))
    counts = torch.tensor([len(one) for one in values])
    padded = torch.zeros(len(values), int(counts.max()), values[0].shape[1])
    for row, one in zip(padded, values, strict=True):
        row[: len(one)] = torch.from_numpy(np.array(one))  # torch widens 16 bits several times faster than numpy
    mask = frame_mask(counts, padded.shape[1])
    if words is None:
        return Stream(padded, mask, frame_rate)
    places = torch.full(mask.shape, -1)
    for place, indices in zip(places, words, strict=True):
        place[: len(indices)] = torch.from_numpy(indices)
    return Stream(padded, mask, frame_rate, places)


def balanced(labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """As many indices as there are labels, drawn so that every emotion that occurs is drawn equally often.

    An emotion's utterances are all drawn before any is drawn again.
    """
    groups = [generator.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    each = -(-len(labels) // len(groups))
    return np.concatenate([np.resize(group, each) for group in groups])[generator.permutation(each * len(groups))][
        : len(labels)
    ]


def training_batches(
    lengths: NDArray[np.int64],
    size: int,
    generator: np.random.Generator,
    *,
    rank: int = 0,
    world: int = 1,
    labels: NDArray[np.int64] | None = None,
) -> Iterator[list[int]]:
    """An epoch's batches of indices for one of `world` processes: shuffled, then sorted by length within pools.

    Batches hold about `size` utterances. Every process gets equally many batches; a remainder is left out of this epoch.
    labels: given, every emotion is drawn equally often.
    """
    order = generator.permutation(len(lengths)) if labels is None else balanced(labels, generator)
    batches = []
    # Pools and batches are cut into equal pieces: a batch of one, left over at an end, would have no statistics.
    for pool in np.array_split(order, max(1, round(len(order) / (size * POOL)))):
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [part.tolist() for part in np.array_split(pool, max(1, round(len(pool) / size)))]
    shuffled = [batches[i] for i in generator.permutation(len(batches))]
    return iter(shuffled[rank : len(shuffled) // world * world : world])


def scoring_batches(lengths: NDArray[np.int64], size: int) -> Iterator[list[int]]:
    """Batches of indices in order of length; together they hold every utterance once."""
    order = np.argsort(lengths, kind="stable")
    return (order[start : start + size].tolist() for start in range(0, len(order), size))
