"""What a model is given: named streams and, in training, labels.

A stream is known by the part it plays ("speech", "text", "speaker"), not by the feature that fills it, so that a model
does not change when HuBERT is exchanged for Whisper; the recipe says which feature plays which part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def frame_mask(lengths: Int[Tensor, " batch"], num_frames: int) -> Bool[Tensor, "batch frames"]:
    """Return the mask of a batch padded to `num_frames`: True for the first `lengths` frames of each utterance."""
    return torch.arange(num_frames, device=lengths.device) < lengths.unsqueeze(1)


@dataclass(frozen=True)
class Stream:
    """One input of a batch.

    values:     (batch, frames, dim); (batch, dim) for a stream without time, such as a speaker vector.
    mask:       (batch, frames), True where there is a frame; frames stand first and padding last.
                None means that every frame is real. Always None for a stream without time.
    frame_rate: frames per second; None where frames are not evenly spaced in time (words), or there is no time.
    words:      (batch, frames), for a stream of tokens: the index of the word that each token belongs to, -1 for none.
    """

    values: Float[Tensor, "batch *frames dim"]
    mask: Bool[Tensor, "batch frames"] | None = None
    frame_rate: float | None = None
    words: Int[Tensor, "batch frames"] | None = None

    @property
    def has_time(self) -> bool:
        return self.values.ndim == 3

    def lengths(self) -> Int[Tensor, " batch"]:
        """Frames of each utterance, padding not counted; of a stream that has time."""
        if self.mask is not None:
            return self.mask.sum(dim=1)
        return torch.full(
            self.values.shape[:1], self.values.shape[1], device=self.values.device
        )  # len() would fix the size of a graph

    def padded(self, to: int) -> Stream:
        """The same stream with padding appended (values 0, mask False) up to `to` frames."""
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
            words=None if self.words is None else torch.nn.functional.pad(self.words, (0, extra), value=-1),
        )

    def fitted(self, to: int) -> Stream:
        """The same stream at exactly `to` frames: the tail cut off, or padding appended. The same graph for any length."""
        longer = self.padded(self.values.shape[1] + to) if self.has_time else self
        return longer.trimmed(to)

    def trimmed(self, to: int) -> Stream:
        """The same stream without what follows the first `to` frames."""
        return replace(
            self,
            values=self.values[:, :to],
            mask=None if self.mask is None else self.mask[:, :to],
            words=None if self.words is None else self.words[:, :to],
        )


@dataclass(frozen=True)
class Batch:
    """Utterances side by side.

    streams:     by the part they play.
    ids:         the utterances' ids, in order; may be empty where nobody asks for them.
    labels:      (batch,), index of the emotion.
    soft_labels: (batch, emotions), rows sum to one: shares of a crowd's votes, or a teacher's probabilities.
    targets:     (batch, dimensions), continuous targets such as valence and arousal.
    """

    streams: Mapping[str, Stream]
    ids: tuple[str, ...] = field(default=())
    labels: Int[Tensor, " batch"] | None = None
    soft_labels: Float[Tensor, "batch emotions"] | None = None
    targets: Float[Tensor, "batch dimensions"] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.streams.values())).values)

    def __getitem__(self, index: int) -> Batch:
        """One utterance as a batch of one, its padding cut away."""
        if not 0 <= index < len(self):
            raise IndexError(f"utterance {index} of a batch of {len(self)}")
        one = slice(index, index + 1)
        streams = {}
        for name, stream in self.streams.items():
            single = Stream(
                stream.values[one],
                None if stream.mask is None else stream.mask[one],
                stream.frame_rate,
                None if stream.words is None else stream.words[one],
            )
            streams[name] = single if single.mask is None else single.trimmed(int(single.mask.sum()))
        return Batch(
            streams,
            self.ids[one],
            *(None if x is None else x[one] for x in (self.labels, self.soft_labels, self.targets)),
        )

    def padded(self, to: int) -> Batch:
        """The same utterances with every stream that has time padded to at least `to` frames."""
        return replace(self, streams={name: stream.padded(to) for name, stream in self.streams.items()})

    def to(self, device: torch.device | str | torch.dtype) -> Batch:
        """The same batch on another device, or with floating point values in another precision."""

        def move(x: Tensor | None) -> Tensor | None:
            if x is None or (isinstance(device, torch.dtype) and not x.is_floating_point()):
                return x
            return x.to(device)

        streams = {
            name: Stream(s.values.to(device), move(s.mask), s.frame_rate, move(s.words))
            for name, s in self.streams.items()
        }
        return Batch(streams, self.ids, move(self.labels), move(self.soft_labels), move(self.targets))
