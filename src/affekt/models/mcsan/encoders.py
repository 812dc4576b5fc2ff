"""MCSAN's encoders of speech and text (Sun et al., ICASSP 2021, sections 2.1 and 2.2): bidirectional LSTMs whose directions
are averaged, each utterance at its own length. For speech, two convolutions with pooling precede the LSTM."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.batch import frame_mask
from affekt.models.layers import NEGATIVE, Frames

Counts = Int[Tensor, " batch"]  # number of real frames of each utterance
KERNEL = 3  # frames of a convolution's kernel and of a pooling window (section 3.2)


class MCSANSpeechEncoder(nn.Module):
    """Two convolutions, each followed by max-pooling, then a bidirectional LSTM whose directions are averaged (eq. 1-3).

    Args:
        input_dim: Number of features of a frame.
        dim: Width of the convolutions and of the LSTM.
        padding: Zero frames at either end of every convolution, 0 or 1.
        pool_stride: Frames from one pooling window to the next.
        relu: Whether a ReLU follows each convolution.
    """

    def __init__(self, input_dim: int, dim: int, *, padding: int, pool_stride: int, relu: bool) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(width, dim, KERNEL, padding=padding) for width in (input_dim, dim))
        self.lstm = nn.LSTM(dim, dim, batch_first=True, bidirectional=True)
        self.padding, self.pool_stride, self.relu = padding, pool_stride, relu

    def num_output_frames(self, frames: int) -> int:
        """Return the number of output frames for this many input frames, at least one."""
        for _ in self.convolutions:
            frames = self._block_frames(frames)
        return frames

    def forward(self, x: Frames, counts: Counts) -> tuple[Float[Tensor, "batch fewer width"], Counts]:
        for convolution in self.convolutions:
            x, counts = self._block(convolution, x, counts)
        return run_bidirectional_lstm(self.lstm, x, counts), counts

    def _block(self, convolution: nn.Module, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Apply a convolution and pooling. Each utterance is surrounded by zeros, and no frame after its end is pooled,
        so its result does not depend on the rest of the batch."""
        frames = self._block_frames(x.shape[1])
        x = _fill_padding(x, counts, 0.0)
        if self.padding == 0:
            # The convolution then has as many output frames as input frames; the additional ones are not pooled.
            x = F.pad(x, (0, 0, 0, KERNEL - 1))
        y = convolution(x.transpose(1, 2)).transpose(1, 2)
        if self.relu:
            y = F.relu(y)
        y = _fill_padding(y, self._convolution_frames(counts).clamp(min=1), NEGATIVE)
        # In a pooling window that extends beyond the end, the maximum is over the existing frames.
        y = F.pad(y, (0, 0, 0, KERNEL - 1), value=NEGATIVE)
        y = F.max_pool1d(y.transpose(1, 2), KERNEL, self.pool_stride).transpose(1, 2)
        return y[:, :frames], self._block_frames(counts)

    def _convolution_frames(self, frames: Any) -> Any:
        """Return the number of frames after the convolution; for a number or a tensor of numbers."""
        return frames - (KERNEL - 1) + 2 * self.padding

    def _block_frames(self, frames: Any) -> Any:
        """Return the number of frames after convolution and pooling, at least one; for a number or a tensor of numbers."""
        convolved = self._convolution_frames(frames)
        at_least_one_window = (
            convolved.clamp(min=KERNEL) if isinstance(frames, Tensor) else torch.sym_max(convolved, KERNEL)
        )
        return (at_least_one_window - KERNEL) // self.pool_stride + 1


class MCSANTextEncoder(nn.Module):
    """A bidirectional LSTM whose directions are averaged (eq. 4-5)."""

    def __init__(self, input_dim: int, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_dim, dim, batch_first=True, bidirectional=True)

    def num_output_frames(self, frames: int) -> int:
        return frames

    def forward(self, x: Frames, counts: Counts) -> tuple[Float[Tensor, "batch frames width"], Counts]:
        return run_bidirectional_lstm(self.lstm, x, counts), counts


def run_bidirectional_lstm(lstm: nn.LSTM, x: Frames, counts: Counts) -> Float[Tensor, "batch frames hidden"]:
    """Return the mean of a bidirectional LSTM's two directions, each utterance at its own length.

    The result equals torch's for packed sequences: the backward direction reads every utterance in reverse within its
    length. Frames beyond that length are undefined.
    """
    if torch.onnx.is_in_onnx_export():
        return _onnx_lstm(lstm, x, counts)
    position = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
    # Reverse each utterance within its own length; the frames after it stay where they are.
    mirrored = counts.unsqueeze(1) - 1 - position
    source = torch.where(mirrored >= 0, mirrored, position)
    forward = _run_direction(lstm, x, "")
    backward = _gather_frames(_run_direction(lstm, _gather_frames(x, source), "_reverse"), source)
    return (forward + backward) / 2


def _gather_frames(x: Tensor, source: Tensor) -> Tensor:
    """Return the frames of x with the indices `source`, (batch, frames)."""
    return x.gather(1, source.unsqueeze(2).expand(-1, -1, x.shape[2]))


def _run_direction(lstm: nn.LSTM, x: Tensor, suffix: str) -> Tensor:
    weights = [getattr(lstm, f"{kind}_l0{suffix}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    start = x.new_zeros(1, x.shape[0], lstm.hidden_size)
    return torch.lstm(x, (start, start), weights, True, 1, 0.0, lstm.training, False, True)[0]


def _onnx_lstm(lstm: nn.LSTM, x: Tensor, counts: Tensor) -> Tensor:
    """Compute `run_bidirectional_lstm` by ONNX's own operator, which accepts lengths.

    The first LSTM that torch (2.13) exports in a process accepts any length; later ones are unrolled at a single length.
    """
    weights = []
    for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        directions = torch.stack([getattr(lstm, f"{kind}_l0{suffix}") for suffix in ("", "_reverse")])
        input_gate, forget_gate, cell_gate, output_gate = directions.chunk(4, dim=1)
        weights.append(torch.cat([input_gate, output_gate, forget_gate, cell_gate], dim=1))  # ONNX's order
    states = torch.onnx.ops.symbolic(
        "LSTM",
        [x.transpose(0, 1), *weights[:2], torch.cat(weights[2:], dim=1), counts.to(torch.int32)],
        {"direction": "bidirectional", "hidden_size": lstm.hidden_size},
        dtype=x.dtype,
        shape=(x.shape[1], 2, x.shape[0], lstm.hidden_size),
        version=22,
    )
    return states.mean(dim=1).transpose(0, 1)


def _fill_padding(x: Tensor, counts: Tensor, value: float) -> Tensor:
    """Return x with `value` beyond each utterance's own frames."""
    return x.masked_fill(~frame_mask(counts, x.shape[1]).unsqueeze(2), value)
