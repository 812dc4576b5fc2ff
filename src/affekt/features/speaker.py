"""ECAPA-TDNN (Desplanques et al., Interspeech 2020) as a feature: a speaker embedding, one vector per utterance.

This is the paper's network with 1024 channels and with SpeechBrain's parameter names. SpeechBrain's checkpoint, which was
trained on VoxCeleb, can therefore be loaded unchanged. The input is that of the checkpoint's training: 80 mel
filters in decibels, minus their mean over the utterance. The whole utterance is used, neither cropped nor repeated, and the
vector is not normalized.

Padding a batch does not change the output: beyond an utterance's end, convolutions use its reflected frames, not the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from affekt.audio.read import SAMPLE_RATE
from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.features.base import Feature
from affekt.features.spectral import TAPERS, tapered_fourier_basis

WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FLOOR = 1e-10  # power below this (full scale is 1) is set to this before the logarithm
RANGE = 80.0  # dB below the utterance's maximum; smaller values are set to this
MIN_VARIANCE = 1e-12  # smaller variances are set to this before the square root
DILATIONS = (2, 3, 4)  # of the three SE-Res2Blocks


@dataclass(frozen=True)
class ECAPAConfig:
    """The sizes of the network. The sizes of a checkpoint are read from its weights."""

    channels: int = 1024
    """Channels within the blocks."""
    scale: int = 8
    """Number of groups into which a Res2Net layer divides the channels."""
    squeezed: int = 128
    """Channels of the bottleneck between squeeze and excitation."""
    pooled: int = 3072
    """Channels of the pooling's input."""
    attention: int = 128
    """Channels of the bottleneck in the pooling's attention."""
    dim: int = 192
    """Size of the speaker embedding."""
    mels: int = 80
    """Number of mel filters."""

    def __post_init__(self) -> None:
        if self.scale < 2 or self.channels % self.scale:
            raise BadConfig(f"scale = {self.scale}: expected a divisor of channels = {self.channels}, 2 or more")


class DecibelMel(nn.Module):
    """The mel spectrum of a waveform at 16 kHz in decibels, in frames of 10 ms, minus its mean over the utterance."""

    basis: Tensor
    mel: Tensor

    def __init__(self, mels: int = 80) -> None:
        super().__init__()
        basis = tapered_fourier_basis(WINDOW, WINDOW // 2 + 1, TAPERS["hamming"])
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("mel", htk_mel_filters(mels, WINDOW, SAMPLE_RATE), persistent=False)

    def forward(
        self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch mels frames"]:
        """Compute the spectrum. `lengths` in samples, beyond which samples must be zero; later frames are zero as well."""
        # Frame i is centered on sample i * 160; the waveform is padded with zeros at both ends.
        padded = F.pad(waveform, (WINDOW // 2, WINDOW // 2)).unsqueeze(1)
        real, imaginary = F.conv1d(padded, self.basis, stride=HOP).chunk(2, dim=1)
        decibels = 10 * (self.mel @ (real.square() + imaginary.square())).clamp(min=FLOOR).log10()
        if lengths is None:
            decibels = torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - RANGE)
            return decibels - decibels.mean(dim=2, keepdim=True)
        mask = frame_mask(num_frames(lengths), decibels.shape[2]).unsqueeze(1)
        loudest = decibels.masked_fill(~mask, -torch.inf).amax(dim=(1, 2), keepdim=True)
        decibels = torch.maximum(decibels, loudest - RANGE)
        return (decibels - masked_mean(decibels, mask)) * mask.to(decibels.dtype)


def num_frames(lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Return the number of frames of waveforms with `lengths` samples."""
    return 1 + lengths // HOP


def htk_mel_filters(mels: int, window: int, sample_rate: int) -> Float[Tensor, "mels bins"]:
    """Return triangular filters of height 1, equally spaced on HTK's mel scale, as in SpeechBrain.

    Both sides of a triangle are as wide as the distance from its center to the next lower center. Its upper side is
    therefore steeper than the lower side of the next triangle, and overlapping filters do not sum to one.
    """
    points = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), mels + 2)
    hertz = 700 * (10 ** (points / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, window // 2 + 1)
    distance = np.abs(bins - hertz[1:-1, None]) / np.diff(hertz)[:-1, None]
    return torch.from_numpy(np.maximum(0, 1 - distance)).float()


def masked_mean(x: Float[Tensor, "batch dim frames"], mask: Bool[Tensor, "batch 1 frames"] | None) -> Tensor:
    """Return the mean over the frames without padding (True in `mask`), (batch, dim, 1)."""
    if mask is None:
        return x.mean(dim=2, keepdim=True)
    return (x * mask).sum(dim=2, keepdim=True) / mask.sum(dim=2, keepdim=True)


def pad_by_reflection(
    x: Float[Tensor, "batch dim frames"], padding: int, counts: Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch dim longer"]:
    """Pad both ends of each utterance with `padding` frames by reflection at its own first and last frame.

    `counts` is the number of frames of each utterance without the batch's padding. Each count must exceed `padding`.
    """
    padded = F.pad(x, (padding, padding), mode="reflect")
    if counts is None:
        return padded
    last, steps = counts.view(-1, 1, 1) - 1, torch.arange(1, padding + 1, device=x.device)
    sources = (last - steps).clamp(min=0).expand(-1, x.shape[1], -1)
    return padded.scatter(2, (padding + last + steps).expand(-1, x.shape[1], -1), x.gather(2, sources))


class Conv(nn.Module):
    """A convolution over frames that preserves their number."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        self.padding = dilation * (kernel - 1) // 2

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        return self.conv(pad_by_reflection(x, self.padding, counts) if self.padding else x)


class Norm(nn.Module):
    """Batch normalization, nested as in SpeechBrain's parameter names."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class TDNN(nn.Module):
    """A convolution, a ReLU and a norm, in this order."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = Conv(inputs, outputs, kernel, dilation), Norm(outputs)

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        return self.norm(F.relu(self.conv(x, counts)))


class Res2Net(nn.Module):
    """A Res2Net layer over equal groups of channels.

    The first group is passed on unchanged and the second is convolved. The previous output is added to each later group
    before its convolution.
    """

    def __init__(self, channels: int, scale: int, dilation: int) -> None:
        super().__init__()
        width = channels // scale
        self.blocks = nn.ModuleList(TDNN(width, width, 3, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor, counts: Tensor | None) -> Tensor:
        first, second, *others = x.chunk(len(self.blocks) + 1, dim=1)
        outputs = [first, self.blocks[0](second, counts)]
        for block, group in zip(self.blocks[1:], others, strict=True):
            outputs.append(block(group + outputs[-1], counts))
        return torch.cat(outputs, dim=1)


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation: each channel is multiplied by a weight computed from all channels' means over time."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(channels, squeezed), Conv(squeezed, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return x * self.conv2(F.relu(self.conv1(masked_mean(x, mask)))).sigmoid()


class SERes2Block(nn.Module):
    """A residual block: a Res2Net layer between two pointwise convolutions, then squeeze and excitation."""

    def __init__(self, config: ECAPAConfig, dilation: int) -> None:
        super().__init__()
        self.tdnn1 = TDNN(config.channels, config.channels)
        self.res2net_block = Res2Net(config.channels, config.scale, dilation)
        self.tdnn2 = TDNN(config.channels, config.channels)
        self.se_block = SqueezeExcitation(config.channels, config.squeezed)

    def forward(self, x: Tensor, mask: Tensor | None, counts: Tensor | None) -> Tensor:
        return x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x), counts)), mask)


class AttentiveStatistics(nn.Module):
    """Attentive statistics pooling: each channel's weighted mean and standard deviation over frames.

    The attention's input includes the unweighted mean and standard deviation.
    """

    def __init__(self, channels: int, attention: int) -> None:
        super().__init__()
        self.tdnn, self.conv = TDNN(3 * channels, attention), Conv(attention, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Float[Tensor, "batch channels_twice 1"]:
        mean = masked_mean(x, mask)
        std = masked_mean((x - mean).square(), mask).clamp(min=MIN_VARIANCE).sqrt()
        context = torch.cat([x, mean.expand_as(x), std.expand_as(x)], dim=1)
        scores = self.conv(self.tdnn(context).tanh())
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(dim=2)
        mean = (weights * x).sum(dim=2, keepdim=True)
        variance = (weights * (x - mean).square()).sum(dim=2, keepdim=True)
        return torch.cat([mean, variance.clamp(min=MIN_VARIANCE).sqrt()], dim=1)


class Network(nn.Module):
    """The network from mel frames to a speaker embedding, with SpeechBrain's parameter names."""

    def __init__(self, config: ECAPAConfig) -> None:
        super().__init__()
        blocks = (SERes2Block(config, dilation) for dilation in DILATIONS)
        self.blocks = nn.ModuleList([TDNN(config.mels, config.channels, 5), *blocks])
        self.mfa = TDNN(len(DILATIONS) * config.channels, config.pooled)
        self.asp, self.asp_bn = AttentiveStatistics(config.pooled, config.attention), Norm(2 * config.pooled)
        self.fc = Conv(2 * config.pooled, config.dim)

    def forward(
        self, mel: Float[Tensor, "batch mels frames"], counts: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Compute the embedding; `counts` is the number of frames of each utterance without padding."""
        mask = None if counts is None else frame_mask(counts, mel.shape[2]).unsqueeze(1)
        first, *blocks = self.blocks
        x, states = first(mel, counts), []
        for block in blocks:
            x = block(x, mask, counts)
            states.append(x)
        x = self.mfa(torch.cat(states, dim=1))
        return rearrange(self.fc(self.asp_bn(self.asp(x, mask))), "batch dim 1 -> batch dim")


class ECAPA(Feature):
    """The speaker embedding of ECAPA-TDNN. Utterances need at least 0.04 s, five frames."""

    Config = ECAPAConfig
    has_time = False
    sample_rate = SAMPLE_RATE
    frame_rate = None

    def __init__(self, config: ECAPAConfig) -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        self.mel, self.network = DecibelMel(config.mels), Network(config)

    @classmethod
    def from_folder(cls, folder: Path | None, config: ECAPAConfig) -> ECAPA:  # noqa: ARG003 (the weights determine the sizes)
        """Load model.safetensors with SpeechBrain's parameter names. Its sizes replace the config's.

        Raises `BadConfig` if there is none, or its weights are not exactly those of this network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if folder is None:
            raise BadConfig("ecapa needs folder, which contains the model.safetensors of an ECAPA-TDNN")
        folder = Path(folder)
        if not (folder / "model.safetensors").is_file():
            raise BadConfig(f"{folder} has no ECAPA-TDNN: expected model.safetensors")
        try:
            weights = load_file(folder / "model.safetensors")
            network = cls(read_sizes(weights))
            network.network.load_state_dict(weights)
        except (SafetensorError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadConfig(f"{folder} has no ECAPA-TDNN with SpeechBrain's parameter names: {reason}") from error
        return network.eval().requires_grad_(False)

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the embedding (batch, dim); `lengths` in samples if the waveforms are padded (with zeros)."""
        counts = None if lengths is None else num_frames(lengths)
        return Stream(self.network(self.mel(waveform, lengths), counts))


def read_sizes(weights: dict[str, Tensor]) -> ECAPAConfig:
    """Return the sizes of a network from the shapes of its weights. Raises `KeyError` if one is missing."""
    width = len(weights["blocks.1.res2net_block.blocks.0.conv.conv.weight"])
    channels, mels, _ = weights["blocks.0.conv.conv.weight"].shape
    return ECAPAConfig(
        channels=channels,
        scale=channels // width,
        squeezed=len(weights["blocks.1.se_block.conv1.conv.weight"]),
        pooled=len(weights["mfa.conv.conv.weight"]),
        attention=len(weights["asp.tdnn.conv.conv.weight"]),
        dim=len(weights["fc.conv.weight"]),
        mels=mels,
    )


def equal_error_rate(same: NDArray[np.floating], different: NDArray[np.floating]) -> float:
    """Return the error rate at the threshold where false rejections and false acceptances are equally frequent.

    If no threshold makes them equal, it is their mean at the threshold where they differ least.

    Args:
        same: Similarities of pairs of utterances by the same speaker.
        different: Similarities of pairs by different speakers.
    """
    thresholds = np.unique(np.concatenate([same, different]))
    rejected = np.searchsorted(np.sort(same), thresholds, side="left") / len(same)
    accepted = 1 - np.searchsorted(np.sort(different), thresholds, side="left") / len(different)
    nearest = int(np.argmin(np.abs(rejected - accepted)))
    return float(rejected[nearest] + accepted[nearest]) / 2
