"""The input of a model: named streams and, in training, labels.

A stream is named by its role ("speech", "text", "speaker"), not by the feature that provides it, so that a model does not
change when HuBERT is replaced by Whisper; the recipe assigns features to roles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def frame_mask(lengths: Int[Tensor, " batch"], num_frames: int) -> Bool[Tensor, "batch frames"]:
    """Return the mask of a batch padded to `num_frames`: True for the first `lengths` frames of each utterance."""
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


def largest(counts: Int[Tensor, "*batch"]) -> int:
    """Return the largest of some numbers of frames, at least 1, as the size of an axis.

    In a graph that is being exported it is a symbol, which `int()` would replace by a constant.
    """
    size = cast("int", counts.max().item())
    torch._check(size >= 1)
    return size


@dataclass(frozen=True)
class Stream:
    """One input of a batch: a sequence of frames or tokens, or a single vector, for each utterance."""

    values: Float[Tensor, "batch *frames dim"]
    """(batch, frames, dim); (batch, dim) for a stream without a time axis, such as a speaker vector."""
    mask: Bool[Tensor, "batch frames"] | None = None
    """(batch, frames), True for frames and False for the padding after them. None if there is no padding, and always for a
    stream without a time axis."""
    frame_rate: float | None = None
    """Frames per second; None if frames are not evenly spaced in time (tokens of a text), or if there is no time axis."""
    word_index: Int[Tensor, "batch frames"] | None = None
    """(batch, frames), for a stream of tokens: the index of the word of each token, -1 for none."""

    @property
    def has_time(self) -> bool:
        return self.values.ndim == 3

    def lengths(self) -> Int[Tensor, " batch"]:
        """Return the number of frames of each utterance, without padding. The stream must have a time axis."""
        if self.mask is not None:
            return self.mask.sum(dim=1)
        # Not len(self.values): it would be a constant in an exported graph.
        return torch.full(self.values.shape[:1], self.values.shape[1], device=self.values.device)

    def pad(self, to: int) -> Stream:
        """Return the stream padded (values 0, mask False) to at least `to` frames."""
        extra = to - self.values.shape[1]
        if not self.has_time or extra <= 0:
            return self
        mask = self.mask
        if mask is None:
            mask = torch.ones(self.values.shape[:2], dtype=torch.bool, device=self.values.device)
        return replace(
            self,
            values=torch.nn.functional.pad(self.values, (0, 0, 0, extra)),
            mask=torch.nn.functional.pad(mask, (0, extra), value=False),
            word_index=None
            if self.word_index is None
            else torch.nn.functional.pad(self.word_index, (0, extra), value=-1),
        )

    def pad_or_trim(self, to: int) -> Stream:
        """Return the stream cut or padded to exactly `to` frames.

        The operations do not depend on the length, so they can be exported with a dynamic number of frames.
        """
        longer = self.pad(self.values.shape[1] + to) if self.has_time else self
        return longer.trim(to)

    def trim(self, to: int) -> Stream:
        """Return the first `to` frames of the stream."""
        return replace(
            self,
            values=self.values[:, :to],
            mask=None if self.mask is None else self.mask[:, :to],
            word_index=None if self.word_index is None else self.word_index[:, :to],
        )


@dataclass(frozen=True)
class Batch:
    """A batch of utterances."""

    streams: Mapping[str, Stream]
    """Inputs by role."""
    ids: tuple[str, ...] = field(default=())
    """The utterances' ids, in order; may be empty."""
    labels: Int[Tensor, " batch"] | None = None
    """(batch,), indices of the emotions."""
    soft_labels: Float[Tensor, "batch emotions"] | None = None
    """(batch, emotions), rows sum to one: fractions of a crowd's votes, or a teacher's probabilities."""

    def __len__(self) -> int:
        return len(next(iter(self.streams.values())).values)

    def __getitem__(self, index: int) -> Batch:
        """Return one utterance as a batch of one, without its padding."""
        if not 0 <= index < len(self):
            raise IndexError(f"utterance {index} of a batch of {len(self)}")
        item = slice(index, index + 1)
        streams = {}
        for name, stream in self.streams.items():
            single = Stream(
                stream.values[item],
                None if stream.mask is None else stream.mask[item],
                stream.frame_rate,
                None if stream.word_index is None else stream.word_index[item],
            )
            streams[name] = single if single.mask is None else single.trim(int(single.mask.sum()))
        return Batch(
            streams,
            self.ids[item],
            *(None if x is None else x[item] for x in (self.labels, self.soft_labels)),
        )

    def pad(self, to: int) -> Batch:
        """Return the batch with every stream that has a time axis padded to at least `to` frames."""
        return replace(self, streams={name: stream.pad(to) for name, stream in self.streams.items()})

    def to(self, device: torch.device | str | torch.dtype) -> Batch:
        """Return the batch on another device, or with floating-point values in another precision."""

        def move(x: Tensor | None) -> Tensor | None:
            if x is None or (isinstance(device, torch.dtype) and not x.is_floating_point()):
                return x
            return x.to(device)

        streams = {
            name: Stream(s.values.to(device), move(s.mask), s.frame_rate, move(s.word_index))
            for name, s in self.streams.items()
        }
        return Batch(streams, self.ids, move(self.labels), move(self.soft_labels))
