"""Features without weights: MFCC (Davis and Mermelstein, 1980) and the log power spectrogram, at any window and hop.

Both begin alike, with a Fourier transform as long as the window; there is no pre-emphasis and no dither. A frame lies
wholly in its utterance: frame i begins at sample i * hop, and n samples give 1 + (n - window) // hop frames. So nothing
is invented at the edges, and the zeros that pad a batch enter no frame. (Log-mel, which is Whisper's, centres its frames.)
With `centred` they are librosa's: frame i is centred on sample i * hop, zeros stand beyond the ends, and there are
1 + n // hop. With `scale = "db"` so is the logarithm, which then ends 80 dB below the utterance's loudest value.

What the papers print: `EMOTIONNAS`, the spectrogram of 140 x 140 (arXiv 2203.13617 v1, section 3.2), and `MCSAN`, 40 MFCC
(Sun et al., ICASSP 2021), are the settings of them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.audio.read import SAMPLE_RATE
from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.features.base import Feature
from affekt.features.whisper import mel_filters

FLOOR = 1e-10  # power below this, of a full scale of 1, is set to this before the logarithm
RANGE = 80.0  # dB: what is further below an utterance's loudest value is set to there, as librosa does it by default
LONGEST = 0.05  # s: the shortest utterance, 0.1 s, has frames even after its speed was doubled
DELTA_REACH = 2  # frames to each side that a difference looks at

# How each window falls off towards its ends: Hamming and Hann are both a - (1 - a) cos, over the period of the window.
TAPERS = {"hann": 0.5, "hamming": 0.54}


def samples(name: str, seconds: float) -> int:
    """A window or a hop in samples. Raises `BadConfig` where it is no whole number of them, or too long."""
    count = round(seconds * SAMPLE_RATE)
    if not 0 < seconds <= LONGEST or abs(count - seconds * SAMPLE_RATE) > 1e-6:
        raise BadConfig(
            f"{name} = {seconds} s: expected up to {LONGEST} s in whole samples of 16 kHz, as 0.025 or 0.011"
        )
    return count


@dataclass(frozen=True)
class SpectrogramConfig:
    window: float = 0.025  # s
    hop: float = 0.010  # s
    taper: Literal["hann", "hamming"] = "hann"
    bins: int | None = None  # so many from 0 Hz upwards, `1 / window` Hz apart; all where None
    scale: Literal["log", "db"] = "log"  # the natural logarithm, or decibels over a range of 80
    centred: bool = False  # frames about every hop, zeros beyond the ends, instead of frames within the utterance
    seconds: float | None = None  # every utterance is cut off, or filled up with zeros, to last so long
    frames: int | None = None  # of a spectrogram: the first so many, after `pool`; all where None
    # Needs `seconds`. Each frame becomes the mean of so many, none of them twice, a remainder left out; "adaptive" makes
    # `frames` means of all, a frame that lies across a boundary counting on both sides.
    pool: int | Literal["adaptive"] = 1

    def __post_init__(self) -> None:
        size = samples("window", self.window)
        if size % 2:
            raise BadConfig(f"window = {self.window} s is {size} samples at 16 kHz: expected an even number")
        samples("hop", self.hop)
        if self.bins is not None and not 0 < self.bins <= size // 2 + 1:
            raise BadConfig(f"bins = {self.bins}: a window of {self.window} s has {size // 2 + 1}")
        self._check_frames(size)

    def _check_frames(self, size: int) -> None:
        if self.frames is not None and self.frames < 1:
            raise BadConfig(f"frames = {self.frames}: expected 1 or more")
        if self.pool != "adaptive" and self.pool < 1:
            raise BadConfig(f'pool = {self.pool}: expected 1 or more, or "adaptive"')
        if self.seconds is None:
            if self.pool != 1:
                raise BadConfig(f"pool = {self.pool!r} needs seconds: a short utterance could be left without a frame")
            return
        if round(self.seconds * SAMPLE_RATE) < size:
            raise BadConfig(f"seconds = {self.seconds}: expected at least a window, {self.window}")
        if self.pool == "adaptive" and self.frames is None:
            raise BadConfig('pool = "adaptive" needs frames: how many means are made')
        there = self.total() if self.pool == "adaptive" else self.total() // self.pool
        if (self.frames or 1) > there:
            raise BadConfig(f"frames = {self.frames or 1}: {self.seconds} s are {there} frames, pooled by {self.pool}")

    def total(self) -> int:
        """Frames of `seconds`, before they are pooled."""
        window, hop = samples("window", self.window), samples("hop", self.hop)
        assert self.seconds is not None
        return 1 + (round(self.seconds * SAMPLE_RATE) + (window if self.centred else 0) - window) // hop


@dataclass(frozen=True)
class MFCCConfig:
    coefficients: int = 40  # the first one, which is the level, among them
    mels: int = 80
    deltas: Literal[0, 1, 2] = 0  # orders of differences over time that follow the coefficients
    window: float = 0.025  # s
    hop: float = 0.010  # s
    taper: Literal["hann", "hamming"] = "hann"
    scale: Literal["log", "db"] = "log"  # of the mels: the natural logarithm, or decibels over a range of 80
    centred: bool = False  # frames about every hop, zeros beyond the ends, instead of frames within the utterance

    def __post_init__(self) -> None:
        if not 0 < self.coefficients <= self.mels:
            raise BadConfig(f"coefficients = {self.coefficients}: expected 1 to mels = {self.mels}")
        window = self.spectrum().window
        if not mel_filters(self.mels, samples("window", window), SAMPLE_RATE).any(dim=1).all():
            raise BadConfig(
                f"mels = {self.mels}: a window of {window} s is too short to tell them apart; "
                "take fewer mels or a longer window"
            )

    def spectrum(self) -> SpectrogramConfig:
        return SpectrogramConfig(self.window, self.hop, self.taper, scale=self.scale, centred=self.centred)


# The paper is silent on which 140 frequencies of a 25 ms window it means: here those from 0 to 5.6 kHz; on the scale, which
# is librosa's usual one; and on how 726 frames (a hop of 25 - 14 ms) become 140: by fives, the last five means left out.
EMOTIONNAS = SpectrogramConfig(
    window=0.025, hop=0.011, taper="hamming", bins=140, scale="db", seconds=8.0, frames=140, pool=5
)
# The paper names no library: here librosa's definition and its 128 mels. Its model takes the first 1000 frames, 10 s.
MCSAN = MFCCConfig(coefficients=40, mels=128, window=0.025, hop=0.010, scale="db", centred=True)


class PowerSpectrum(nn.Module):
    """Waveform at 16 kHz -> power in each frequency, by a convolution: an exported graph needs no STFT operator."""

    basis: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.window, self.hop = samples("window", config.window), samples("hop", config.hop)
        self.beyond = self.window // 2 if config.centred else 0  # samples before the beginning and after the end
        self.bins = config.bins or self.window // 2 + 1
        basis = tapered_fourier_basis(self.window, self.bins, TAPERS[config.taper])
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch bins frames"]:
        waveform = F.pad(waveform, (self.beyond, self.beyond)) if self.beyond else waveform
        real, imaginary = F.conv1d(waveform.unsqueeze(1), self.basis, stride=self.hop).chunk(2, dim=1)
        return real.square() + imaginary.square()

    def frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        return (1 + (lengths + 2 * self.beyond - self.window) // self.hop).clamp(min=0)


def tapered_fourier_basis(window: int, bins: int, taper: float) -> Float[Tensor, "bins_twice 1 window"]:
    """Rows of cosines, then of sines, under the periodic window `taper - (1 - taper) cos`."""
    time = np.arange(window)
    shape = taper - (1 - taper) * np.cos(2 * np.pi * time / window)
    angle = 2 * np.pi / window * (np.arange(bins)[:, None] * time % window)
    return torch.from_numpy(np.concatenate([np.cos(angle), np.sin(angle)]) * shape).unsqueeze(1).float()


def cosine_transform(size: int, kept: int) -> Float[Tensor, "kept size"]:
    """The first rows of the orthonormal DCT-II."""
    rows = np.cos(np.pi / size * np.arange(kept)[:, None] * (np.arange(size) + 0.5)) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return torch.from_numpy(rows).float()


def differences(
    values: Float[Tensor, "batch frames dim"], counts: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, "batch frames dim"]:
    """The slope of each feature by least squares over 5 frames; beyond an utterance's ends its end frames are repeated.

    counts: frames of each utterance, where the others are padding.
    """
    frames = torch.arange(values.shape[1], device=values.device)
    last = frames[-1:] if counts is None else (counts.unsqueeze(1) - 1).clamp(min=0)
    total = torch.zeros_like(values)
    for step in range(1, DELTA_REACH + 1):
        later, earlier = torch.minimum(frames + step, last), (frames - step).clamp(min=0)
        later = later.expand(values.shape[0], -1).unsqueeze(2).expand_as(values)
        total = total + step * (values.gather(1, later) - values[:, earlier])
    return total / (2 * sum(step**2 for step in range(1, DELTA_REACH + 1)))


class _Spectral(Feature):
    """What the features of this file have in common: no weights, and frames that the window and the hop decide."""

    sample_rate = SAMPLE_RATE

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.spectrum = PowerSpectrum(config)
        self.frame_rate: float = SAMPLE_RATE / self.spectrum.hop

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> Feature:
        if folder is not None:
            raise BadConfig(f"{cls.__name__} has no weights; leave out folder = {str(folder)!r}")
        return cls(config)

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """`lengths` in samples, where the waveforms are padded (with zeros); frames: see `PowerSpectrum.frames`."""
        power = rearrange(self.spectrum(waveform), "batch bins frames -> batch frames bins")
        counts = None if lengths is None else self.spectrum.frames(lengths)
        values = self.features(power, counts)
        if counts is None:
            return Stream(values, None, self.frame_rate)
        mask = frame_mask(counts, values.shape[1])
        return Stream(values * mask.unsqueeze(2).to(values.dtype), mask, self.frame_rate)

    def features(
        self, power: Float[Tensor, "batch frames bins"], counts: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch frames dim"]:
        raise NotImplementedError


def decibels(
    power: Float[Tensor, "batch frames dim"], counts: Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch frames dim"]:
    """Ten times the common logarithm, no less than 80 below the loudest value of the utterance's frames."""
    result = 10 * power.clamp(min=FLOOR).log10()
    real = result
    if counts is not None:
        real = result.masked_fill(~frame_mask(counts, result.shape[1]).unsqueeze(2), -torch.inf)
    return torch.maximum(result, real.amax(dim=(1, 2), keepdim=True) - RANGE)


def means_of_frames(config: SpectrogramConfig) -> Float[Tensor, "frames total"]:
    """Each row a mean over neighbouring frames of `config.seconds`."""
    total = config.total()
    if config.pool == "adaptive":
        kept = config.frames or total
        spans = [(i * total // kept, -(-(i + 1) * total // kept)) for i in range(kept)]
    else:
        kept = config.frames or total // config.pool
        spans = [(i * config.pool, (i + 1) * config.pool) for i in range(kept)]
    rows = torch.zeros(kept, total)
    for row, (first, last) in zip(rows, spans, strict=True):
        row[first:last] = 1 / (last - first)
    return rows


class Spectrogram(_Spectral):
    """Waveform -> logarithm of the power in each frequency: natural, or in decibels over a range of 80.

    Ten times the common logarithm is 4.343 times the natural one. With `seconds` every utterance has the same frames, those
    of the zeros with which it was filled up among them.
    """

    Config = SpectrogramConfig
    means: Tensor | None

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__(config)
        self.config, self.dim = config, self.spectrum.bins
        self.register_buffer("means", None if config.pool == 1 else means_of_frames(config), persistent=False)
        if config.pool == "adaptive":
            self.frame_rate *= (config.frames or 1) / config.total()
        else:
            self.frame_rate /= config.pool

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """`lengths` in samples, where the waveforms are padded (with zeros)."""
        if self.config.seconds is not None:
            size = round(self.config.seconds * SAMPLE_RATE)
            waveform = F.pad(waveform, (0, size))[:, :size]
            lengths = None if lengths is None else torch.full_like(lengths, size)
        stream = super().forward(waveform, lengths)
        if self.means is None:
            return stream if self.config.frames is None else stream.trimmed(self.config.frames)
        values = self.means @ stream.values
        mask = None if lengths is None else torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Stream(values, mask, self.frame_rate)

    def features(self, power: Tensor, counts: Tensor | None) -> Tensor:
        return power.clamp(min=FLOOR).log() if self.config.scale == "log" else decibels(power, counts)


class MFCC(_Spectral):
    """Waveform -> mel-frequency cepstral coefficients: the DCT of the logarithm of the mels' power, then deltas.

    The mels are Slaney's, triangles of unit area (as log-mel's); the DCT is of type II, orthonormal, without liftering.
    """

    Config = MFCCConfig
    mel: Tensor
    cosines: Tensor

    def __init__(self, config: MFCCConfig) -> None:
        super().__init__(config.spectrum())
        self.config, self.dim = config, config.coefficients * (1 + config.deltas)
        mel = mel_filters(config.mels, self.spectrum.window, SAMPLE_RATE)
        self.register_buffer("mel", mel.T.contiguous(), persistent=False)
        self.register_buffer("cosines", cosine_transform(config.mels, config.coefficients).T, persistent=False)

    def features(self, power: Tensor, counts: Tensor | None) -> Tensor:
        mels = power @ self.mel
        mels = mels.clamp(min=FLOOR).log() if self.config.scale == "log" else decibels(mels, counts)
        orders = [mels @ self.cosines]
        for _ in range(self.config.deltas):
            orders.append(differences(orders[-1], counts))
        return torch.cat(orders, dim=2)
