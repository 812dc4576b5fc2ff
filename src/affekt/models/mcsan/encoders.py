"""MCSAN's encoders of speech and of words (Sun et al., ICASSP 2021, sections 2.1 and 2.2): recurrent networks whose two
directions are averaged, over utterances of different lengths, and before the speech's, two convolutions with pooling."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.batch import frame_mask
from affekt.models.layers import NEGATIVE, Sequence

Counts = Int[Tensor, " batch"]  # frames of each utterance, padding not counted
KERNEL = 3  # frames, of convolutions and pooling (section 3.2)


class SpeechEncoder(nn.Module):
    """Twice a convolution and max-pooling, then a bidirectional LSTM whose directions are averaged (eq. 1-3).

    padding: frames of zeros at either end of every convolution, 0 or 1. pool_stride: frames from one pooling to the next.
    activation: whether a ReLU stands between convolution and pooling.
    """

    def __init__(self, input_dim: int, dim: int, *, padding: int, pool_stride: int, activation: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(width, dim, KERNEL, padding=padding) for width in (input_dim, dim))
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.padding, self.pool_stride, self.activation = padding, pool_stride, activation

    def frames_left(self, frames: int) -> int:
        """What it makes of so many frames: at least one."""
        for _ in self.convolutions:
            frames = self._left(frames)
        return frames

    def forward(self, x: Sequence, counts: Counts) -> tuple[Float[Tensor, "batch fewer width"], Counts]:
        for convolution in self.convolutions:
            x, counts = self._block(convolution, x, counts)
        return averaged_directions(self.lstm, x, counts), counts

    def _block(self, convolution: nn.Module, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Zeros stand around an utterance, and nothing behind it is pooled: it does not feel what it is batched with."""
        left = self._left(x.shape[1])
        x = _filled(x, counts, 0.0)
        if self.padding == 0:
            x = F.pad(x, (0, 0, 0, KERNEL - 1))  # so that one frame gives one; what is too much is not pooled
        y = convolution(x.transpose(1, 2)).transpose(1, 2)
        if self.activation:
            y = F.relu(y)
        y = _filled(y, self._convolved(counts).clamp(min=1), NEGATIVE)
        # A pooling over the end of a short utterance takes the largest of the frames that are there.
        y = F.pad(y, (0, 0, 0, KERNEL - 1), value=NEGATIVE)
        y = F.max_pool1d(y.transpose(1, 2), KERNEL, self.pool_stride).transpose(1, 2)
        return y[:, :left], self._left(counts)

    def _convolved(self, frames: Any) -> Any:
        return frames - (KERNEL - 1) + 2 * self.padding

    def _left(self, frames: Any) -> Any:
        """What convolution and pooling leave of so many frames, a number or a tensor of them: at least one."""
        convolved = self._convolved(frames)
        whole = convolved.clamp(min=KERNEL) if isinstance(frames, Tensor) else torch.sym_max(convolved, KERNEL)
        return (whole - KERNEL) // self.pool_stride + 1


class TextEncoder(nn.Module):
    """A bidirectional LSTM whose directions are averaged (eq. 4-5)."""

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_dim, dim, batch_first=True, bidirectional=True)

    def frames_left(self, frames: int) -> int:
        return frames

    def forward(self, x: Sequence, counts: Counts) -> tuple[Float[Tensor, "batch frames width"], Counts]:
        return averaged_directions(self.lstm, x, counts), counts


def averaged_directions(lstm: nn.LSTM, x: Sequence, counts: Counts) -> Float[Tensor, "batch frames hidden"]:
    """The mean of a bidirectional LSTM's two directions, each utterance at its own length.

    What torch gives for packed sequences: the backward direction reads every utterance turned round within its length.
    What stands beyond that length is nobody's.
    """
    if torch.onnx.is_in_onnx_export():
        return _averaged_in_onnx(lstm, x, counts)
    position = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    mirrored = counts.unsqueeze(1) - 1 - position
    source = torch.where(mirrored >= 0, mirrored, position)
    forward = _one_direction(lstm, x, "")
    backward = _turned(_one_direction(lstm, _turned(x, source), "_reverse"), source)
    return (forward + backward) / 2


def _turned(x: Tensor, source: Tensor) -> Tensor:
    """x at the frames of `source`, (batch, frames)."""
    return x.gather(1, source.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _one_direction(lstm: nn.LSTM, x: Tensor, suffix: str) -> Tensor:
    weights = [getattr(lstm, f"{kind}_l0{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    start = x.new_zeros(1, x.shape[0], lstm.hidden_size)
    return torch.lstm(x, (start, start), weights, True, 1, 0.0, lstm.training, False, True)[0]


def _averaged_in_onnx(lstm: nn.LSTM, x: Tensor, counts: Tensor) -> Tensor:
    """The same by ONNX's own operator, which knows lengths.

    Torch (2.13) exports its LSTM for any length only the first time in a process; after that it unrolls it at one length.
    """
    weights = []
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        both = torch.stack([getattr(lstm, f"{kind}_l0{suffix}") for suffix in ("", "_reverse")])
        enter, forget, new, leave = both.chunk(4, dim=1)
        weights.append(torch.cat([enter, leave, forget, new], dim=1))  # ONNX has another order of gates
    states = torch.onnx.ops.symbolic(
        "LSTM",
        [x.transpose(0, 1), *weights[:2], torch.cat(weights[2:], dim=1), counts.to(torch.int32)],
        {"direction": "bidirectional", "hidden_size": lstm.hidden_size},
        dtype=x.dtype,
        shape=(x.shape[1], 2, x.shape[0], lstm.hidden_size),
        version=22,
    )
    return states.mean(dim=1).transpose(0, 1)


def _filled(x: Tensor, counts: Tensor, value: float) -> Tensor:
    """x with `value` beyond each utterance's own frames."""
    return x.masked_fill(~frame_mask(counts, x.shape[1]).unsqueeze(2), value)
