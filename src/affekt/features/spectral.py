"""Features without weights: MFCC (Davis and Mermelstein, 1980) and the log power spectrogram, with any window and hop.

Both start with a Fourier transform as long as the window, without pre-emphasis or dither. Every frame lies within its
utterance: frame i begins at sample i * hop, and n samples have 1 + (n - window) // hop frames. So no frame contains padding,
whether at the edges of the utterance or from a batch. (The feature log-mel, which is Whisper's, centers its frames.) With
`centered`, frames are those of librosa: frame i is centered on sample i * hop, the waveform is padded with zeros, and there
are 1 + n // hop frames. With `scale = "db"`, the logarithm is also librosa's: decibels, limited to 80 dB below the
utterance's maximum.

`EMOTIONNAS` and `MCSAN` are the settings of two papers: a spectrogram of 140 x 140 (arXiv 2203.13617 v1, section 3.2) and
40 MFCC (Sun et al., ICASSP 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from affekt.audio.loudness import mel_filters
from affekt.audio.read import SAMPLE_RATE
from affekt.batch import Stream, frame_mask
from affekt.errors import BadConfig
from affekt.features.base import Feature

FLOOR = 1e-10  # power below this (full scale is 1) is set to this before the logarithm
RANGE = 80.0  # dB below the utterance's maximum; smaller values are set to this, as librosa does by default
MAX_WINDOW = 0.05  # s: with longer windows, the shortest utterance (0.1 s) might have no frame after a change of speed
DELTA_REACH = 2  # number of frames on each side from which a delta is computed

# Window shapes: Hann and Hamming windows are both a - (1 - a) cos, over one period; the value is a.
TAPERS = {"hann": 0.5, "hamming": 0.54}


def to_samples(name: str, seconds: float) -> int:
    """Convert a window or hop to samples. Raises `BadConfig` if it is not a whole number of them, or the time is too long."""
    count = round(seconds * SAMPLE_RATE)
    if not 0 < seconds <= MAX_WINDOW or abs(count - seconds * SAMPLE_RATE) > 1e-6:
        raise BadConfig(
            f"{name} = {seconds} s: expected up to {MAX_WINDOW} s in whole samples at 16 kHz, such as 0.025 or 0.011"
        )
    return count


@dataclass(frozen=True)
class SpectrogramConfig:
    """The settings of a spectrogram."""

    window: float = 0.025
    """Window length in seconds."""
    hop: float = 0.010
    """Hop in seconds."""
    taper: Literal["hann", "hamming"] = "hann"
    """Shape of the window."""
    bins: int | None = None
    """Number of frequencies from 0 Hz upwards, `1 / window` Hz apart; None for all."""
    scale: Literal["log", "db"] = "log"
    """The natural logarithm, or decibels with a range of 80 dB."""
    centered: bool = False
    """If true, frames are centered on every hop, with zero padding, instead of lying within the utterance."""
    seconds: float | None = None
    """Length to which every utterance is cut or padded with zeros, in seconds; None to keep the utterance's length."""
    frames: int | None = None
    """Number of frames to keep, after `pool`; None for all."""
    pool: int | Literal["adaptive"] = 1
    """Number of consecutive frames that are averaged into one; a remainder is left out. Needs `seconds`.

    With "adaptive", all frames are averaged into `frames` means; a frame across a boundary counts on both sides.
    """

    renamed: ClassVar[Mapping[str, str]] = {"centred": "centered"}

    def __post_init__(self) -> None:
        size = to_samples("window", self.window)
        if size % 2:
            raise BadConfig(f"window = {self.window} s is {size} samples at 16 kHz: expected an even number")
        to_samples("hop", self.hop)
        if self.bins is not None and not 0 < self.bins <= size // 2 + 1:
            raise BadConfig(f"bins = {self.bins}: a window of {self.window} s has only {size // 2 + 1}")
        self._check_frames(size)

    def _check_frames(self, size: int) -> None:
        """Raise `BadConfig` for settings of frames, pool and seconds that do not fit together."""
        if self.frames is not None and self.frames < 1:
            raise BadConfig(f"frames = {self.frames}: expected 1 or more")
        if self.pool != "adaptive" and self.pool < 1:
            raise BadConfig(f'pool = {self.pool}: expected 1 or more, or "adaptive"')
        if self.seconds is None:
            if self.pool != 1:
                raise BadConfig(f"pool = {self.pool!r} needs seconds: a short utterance might have no frame")
            return
        if round(self.seconds * SAMPLE_RATE) < size:
            raise BadConfig(f"seconds = {self.seconds}: expected at least the window, {self.window}")
        if self.pool == "adaptive" and self.frames is None:
            raise BadConfig('pool = "adaptive" needs frames, the number of means')
        available = self.num_frames() if self.pool == "adaptive" else self.num_frames() // self.pool
        if (self.frames or 1) > available:
            raise BadConfig(
                f"frames = {self.frames or 1}: {self.seconds} s are {available} frames with pool = {self.pool}"
            )

    def num_frames(self) -> int:
        """Return the number of frames of `seconds`, before pooling."""
        window, hop = to_samples("window", self.window), to_samples("hop", self.hop)
        assert self.seconds is not None
        return 1 + (round(self.seconds * SAMPLE_RATE) + (window if self.centered else 0) - window) // hop


@dataclass(frozen=True)
class MFCCConfig:
    """The settings of MFCC."""

    coefficients: int = 40
    """Number of coefficients, including the first, which measures the loudness."""
    mels: int = 80
    """Number of mel filters."""
    deltas: Literal[0, 1, 2] = 0
    """Highest order of the deltas that are appended to the coefficients."""
    window: float = 0.025
    """Window length in seconds."""
    hop: float = 0.010
    """Hop in seconds."""
    taper: Literal["hann", "hamming"] = "hann"
    """Shape of the window."""
    scale: Literal["log", "db"] = "log"
    """Scale of the mel spectrum: the natural logarithm, or decibels with a range of 80 dB."""
    centered: bool = False
    """If true, frames are centered on every hop, with zero padding, instead of lying within the utterance."""

    renamed: ClassVar[Mapping[str, str]] = {"centred": "centered"}

    def __post_init__(self) -> None:
        if not 0 < self.coefficients <= self.mels:
            raise BadConfig(f"coefficients = {self.coefficients}: expected 1 to mels = {self.mels}")
        window = self.spectrum().window
        if not mel_filters(self.mels, to_samples("window", window), SAMPLE_RATE).any(axis=1).all():
            raise BadConfig(
                f"mels = {self.mels}: a window of {window} s is too short to separate them; "
                "use fewer mels or a longer window"
            )

    def spectrum(self) -> SpectrogramConfig:
        """Return the settings of the underlying spectrogram."""
        return SpectrogramConfig(self.window, self.hop, self.taper, scale=self.scale, centered=self.centered)


# The paper does not state three of these settings. Which 140 frequencies of a 25 ms window are used: here the lowest, 0 to
# 5.6 kHz. The scale: here librosa's decibels. How 726 frames (the hop is 25 - 14 ms) become 140: here five frames are
# averaged into one, and the first 140 of these are kept.
EMOTIONNAS = SpectrogramConfig(
    window=0.025, hop=0.011, taper="hamming", bins=140, scale="db", seconds=8.0, frames=140, pool=5
)
# The paper does not name a library: here librosa's definition with its default of 128 mels. The paper's model uses the first
# 1000 frames, 10 s.
MCSAN = MFCCConfig(coefficients=40, mels=128, window=0.025, hop=0.010, scale="db", centered=True)


class PowerSpectrum(nn.Module):
    """The power spectrum of a waveform at 16 kHz, by a convolution, so that an exported graph needs no STFT operator."""

    basis: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.window, self.hop = to_samples("window", config.window), to_samples("hop", config.hop)
        self.padding = self.window // 2 if config.centered else 0  # samples at the beginning and at the end
        self.bins = config.bins or self.window // 2 + 1
        basis = tapered_fourier_basis(self.window, self.bins, TAPERS[config.taper])
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch bins frames"]:
        """Compute the power of each frequency and frame."""
        waveform = F.pad(waveform, (self.padding, self.padding)) if self.padding else waveform
        real, imaginary = F.conv1d(waveform.unsqueeze(1), self.basis, stride=self.hop).chunk(2, dim=1)
        return real.square() + imaginary.square()

    def num_frames(self, lengths: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Return the number of frames of waveforms with `lengths` samples."""
        return (1 + (lengths + 2 * self.padding - self.window) // self.hop).clamp(min=0)


def tapered_fourier_basis(window: int, bins: int, taper: float) -> Float[Tensor, "bins_twice 1 window"]:
    """Return rows of cosines, then of sines, multiplied by the periodic window `taper - (1 - taper) cos`."""
    time = np.arange(window)
    shape = taper - (1 - taper) * np.cos(2 * np.pi * time / window)
    angle = 2 * np.pi / window * (np.arange(bins)[:, None] * time % window)
    return torch.from_numpy(np.concatenate([np.cos(angle), np.sin(angle)]) * shape).unsqueeze(1).float()


def cosine_transform(size: int, num_rows: int) -> Float[Tensor, "num_rows size"]:
    """Return the first rows of the orthonormal DCT-II."""
    rows = np.cos(np.pi / size * np.arange(num_rows)[:, None] * (np.arange(size) + 0.5)) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return torch.from_numpy(rows).float()


def compute_deltas(
    values: Float[Tensor, "batch frames dim"], counts: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, "batch frames dim"]:
    """Compute the slope of each feature by least squares over 5 frames. Beyond the ends, the first or last frame is repeated.

    `counts` is the number of frames of each utterance without padding.
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
    """The base class of the features of this module, which have no weights."""

    sample_rate = SAMPLE_RATE

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        self.spectrum = PowerSpectrum(config)
        self.frame_rate: float = SAMPLE_RATE / self.spectrum.hop

    @classmethod
    def from_folder(cls, folder: Path | None, config: Any) -> Feature:
        """Build the feature. Raises `BadConfig` if a folder is given, since there are no weights."""
        if folder is not None:
            raise BadConfig(f"{cls.__name__} has no weights; remove folder = {str(folder)!r}")
        return cls(config)

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the features; `lengths` in samples if the waveforms are padded (with zeros)."""
        power = rearrange(self.spectrum(waveform), "batch bins frames -> batch frames bins")
        counts = None if lengths is None else self.spectrum.num_frames(lengths)
        values = self.features(power, counts)
        if counts is None:
            return Stream(values, None, self.frame_rate)
        mask = frame_mask(counts, values.shape[1])
        return Stream(values * mask.unsqueeze(2).to(values.dtype), mask, self.frame_rate)

    def features(
        self, power: Float[Tensor, "batch frames bins"], counts: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch frames dim"]:
        """Compute the features from the power; `counts` is the number of frames of each utterance without padding."""
        raise NotImplementedError


def to_decibels(
    power: Float[Tensor, "batch frames dim"], counts: Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch frames dim"]:
    """Convert power to decibels. Values more than 80 dB below the utterance's maximum are raised to this limit."""
    decibels = 10 * power.clamp(min=FLOOR).log10()
    masked = decibels
    if counts is not None:
        masked = decibels.masked_fill(~frame_mask(counts, decibels.shape[1]).unsqueeze(2), -torch.inf)
    return torch.maximum(decibels, masked.amax(dim=(1, 2), keepdim=True) - RANGE)


def pooling_matrix(config: SpectrogramConfig) -> Float[Tensor, "frames total"]:
    """Return a matrix whose rows average consecutive frames of an utterance of `config.seconds`."""
    total = config.num_frames()
    if config.pool == "adaptive":
        num_means = config.frames or total
        spans = [(i * total // num_means, -(-(i + 1) * total // num_means)) for i in range(num_means)]
    else:
        num_means = config.frames or total // config.pool
        spans = [(i * config.pool, (i + 1) * config.pool) for i in range(num_means)]
    matrix = torch.zeros(num_means, total)
    for row, (start, end) in zip(matrix, spans, strict=True):
        row[start:end] = 1 / (end - start)
    return matrix


class Spectrogram(_Spectral):
    """The log power spectrogram: the natural logarithm, or decibels with a range of 80 dB.

    The value in decibels is 10 / ln 10 = 4.343 times the natural logarithm. With `seconds`, every utterance has the
    same number of frames, including those of the zero padding.
    """

    Config = SpectrogramConfig
    means: Tensor | None

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__(config)
        self.config, self.dim = config, self.spectrum.bins
        self.register_buffer("means", None if config.pool == 1 else pooling_matrix(config), persistent=False)
        if config.pool == "adaptive":
            self.frame_rate *= (config.frames or 1) / config.num_frames()
        else:
            self.frame_rate /= config.pool

    def forward(self, waveform: Float[Tensor, "batch samples"], lengths: Int[Tensor, " batch"] | None = None) -> Stream:
        """Compute the spectrogram; `lengths` in samples if the waveforms are padded (with zeros)."""
        if self.config.seconds is not None:
            size = round(self.config.seconds * SAMPLE_RATE)
            waveform = F.pad(waveform, (0, size))[:, :size]
            lengths = None if lengths is None else torch.full_like(lengths, size)
        stream = super().forward(waveform, lengths)
        if self.means is None:
            return stream if self.config.frames is None else stream.trim(self.config.frames)
        values = self.means @ stream.values
        mask = None if lengths is None else torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return Stream(values, mask, self.frame_rate)

    def features(self, power: Tensor, counts: Tensor | None) -> Tensor:
        """Compute the logarithm of the power."""
        return power.clamp(min=FLOOR).log() if self.config.scale == "log" else to_decibels(power, counts)


class MFCC(_Spectral):
    """Mel-frequency cepstral coefficients: the DCT of the log mel spectrum, with deltas appended.

    The mel filters are Slaney's triangles of unit area (as in log-mel); the DCT is of type II, orthonormal, not liftered.
    """

    Config = MFCCConfig
    mel: Tensor
    cosines: Tensor

    def __init__(self, config: MFCCConfig) -> None:
        super().__init__(config.spectrum())
        self.config, self.dim = config, config.coefficients * (1 + config.deltas)
        mel = torch.from_numpy(mel_filters(config.mels, self.spectrum.window, SAMPLE_RATE)).float()
        self.register_buffer("mel", mel.T.contiguous(), persistent=False)
        self.register_buffer("cosines", cosine_transform(config.mels, config.coefficients).T, persistent=False)

    def features(self, power: Tensor, counts: Tensor | None) -> Tensor:
        """Compute the coefficients and deltas from the power."""
        mels = power @ self.mel
        mels = mels.clamp(min=FLOOR).log() if self.config.scale == "log" else to_decibels(mels, counts)
        orders = [mels @ self.cosines]
        for _ in range(self.config.deltas):
            orders.append(compute_deltas(orders[-1], counts))
        return torch.cat(orders, dim=2)
