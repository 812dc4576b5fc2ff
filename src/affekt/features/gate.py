"""The speech gate: find the frames of a log-mel spectrogram that are louder than pauses and background, and keep only those.

A frame is kept if its power is close to that of the loudest frames, or clearly above the noise floor of the recording. What
is removed reaches neither the encoder's attention and positions nor the pooling, so that silence before, after and between
words changes nothing. The gate is not a voice activity detector: loud sounds of any kind pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from affekt.audio.loudness import FLOOR_QUANTILE, MIN_POWER, PEAK_SMOOTHING, SMOOTHING, GateConfig
from affekt.batch import frame_mask, largest


class SpeechGate(nn.Module):
    """Removes the frames of a log-mel that are much softer than the loudest part of the recording, or in its noise floor."""

    def __init__(self, config: GateConfig) -> None:
        super().__init__()
        self.config = config

    def forward(
        self, mel: Float[Tensor, "batch mels frames"], counts: Int[Tensor, " batch"] | None = None
    ) -> tuple[Float[Tensor, "batch mels kept"], Int[Tensor, " batch"]]:
        """Return the kept frames of each recording, followed by zeros as padding, and how many are kept.

        The frames are padded to the largest number that is kept of a recording of the batch.

        Args:
            mel: Whisper's log-mel, in units of 40 dB.
            counts: The number of frames of each recording; None if none is padded.
        """
        keep = self.find_speech(mel, counts)
        frames = keep.shape[1]
        index = torch.arange(frames, device=mel.device)
        order = torch.where(keep, index, index + frames).argsort(dim=1)
        kept = keep.sum(dim=1)
        longest = largest(kept)
        torch._check(longest <= frames)
        order = order.narrow(1, 0, longest).unsqueeze(1).expand(-1, mel.shape[1], -1)
        return mel.gather(2, order) * frame_mask(kept, longest).unsqueeze(1).to(mel.dtype), kept

    def find_speech(
        self, mel: Float[Tensor, "batch mels frames"], counts: Int[Tensor, " batch"] | None = None
    ) -> Bool[Tensor, "batch frames"]:
        """Return which frames may contain speech and are kept: at least one of each recording. Arguments as for `forward`."""
        frames = mel.shape[2]
        valid = torch.ones_like(mel[:, 0], dtype=torch.bool) if counts is None else frame_mask(counts, frames)
        power = torch.pow(10.0, 4.0 * mel).sum(dim=1) * valid.to(mel.dtype)
        loudness = decibels(smooth(power, SMOOTHING))
        relative = loudness - decibels(smooth(power, PEAK_SMOOTHING)).amax(dim=1, keepdim=True)
        audible = valid & (relative > -self.config.range)
        ranked = relative.masked_fill(~audible, torch.inf).sort(dim=1).values
        quantile = (audible.sum(dim=1, keepdim=True) * FLOOR_QUANTILE).long()
        floor = ranked.gather(1, quantile)
        threshold = (floor + self.config.margin).clamp(max=-self.config.certain)
        keep = audible & (relative >= threshold)
        reach = self.config.hangover
        keep = F.max_pool1d(keep.to(mel.dtype).unsqueeze(1), 2 * reach + 1, stride=1, padding=reach).squeeze(1) > 0
        return keep & valid


def smooth(power: Float[Tensor, "batch frames"], size: int) -> Float[Tensor, "batch frames"]:
    """Return the moving average over an odd number of frames; beyond the ends, the power is zero."""
    return F.avg_pool1d(power.unsqueeze(1), size, stride=1, padding=size // 2).squeeze(1)


def decibels(power: Tensor) -> Tensor:
    """Return a power in dB."""
    return 10.0 * power.clamp(min=MIN_POWER).log10()
