"""Other voices, rooms and microphones from the same recordings: copies whose features are computed once and stored.

A copy changes speed and pitch together (another vocal tract), the colour (another microphone) and the noise. Which copy of
an utterance is heard changes from epoch to epoch.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from affekt.audio import SAMPLE_RATE, Waveform
from affekt.errors import BadConfig

KERNEL = 64  # samples of the filter that colours: 4 ms


@dataclass(frozen=True)
class Alteration:
    """How a copy differs from its original."""

    speed: float = 0.16  # speeds are drawn evenly between exp(-speed) and exp(speed); pitch goes along
    colour: float = 4.0  # dB: deviation of the filter's gain at five frequencies
    colour_share: float = 0.6  # of the copies, how many are coloured
    noise: tuple[float, float] = (12.0, 40.0)  # dB: signal-to-noise ratios are drawn between these
    noise_share: float = 0.4  # of the copies, how many are noisy


@dataclass(frozen=True)
class Augmentation:
    copies: int = 0  # altered copies of every training utterance, beside the original
    share: float = 0.5  # of the utterances of an epoch, how many are heard as a copy
    crop: float = 0.0  # largest share of an utterance's frames that is cut away, at a place drawn anew every epoch
    alteration: Alteration = field(default_factory=Alteration)

    def __post_init__(self) -> None:
        if self.copies < 0 or not 0 <= self.share <= 1 or not 0 <= self.crop < 1:
            raise BadConfig(
                f"copies = {self.copies}, share = {self.share}, crop = {self.crop}: "
                "expected no negative number, and shares between 0 and 1"
            )


@dataclass(frozen=True)
class Copy:
    """One altered copy of everything: which number it is, and under which seed."""

    number: int
    seed: int
    alteration: Alteration

    def __call__(self, waveform: Waveform, key: str) -> Waveform:
        """The altered waveform; `key` names the utterance, and decides the draw with seed and number."""
        digest = hashlib.sha256(f"{self.seed}/{self.number}/{key}".encode()).digest()
        return altered(waveform, self.alteration, np.random.default_rng(list(digest)))


def altered(waveform: Waveform, settings: Alteration, generator: np.random.Generator) -> Waveform:
    """(samples,) at 16 kHz -> (other samples,) at 16 kHz."""
    import soxr

    speed = np.exp(generator.uniform(-settings.speed, settings.speed))
    result = soxr.resample(waveform, SAMPLE_RATE * speed, SAMPLE_RATE) if settings.speed else waveform
    if generator.random() < settings.colour_share:
        result = np.convolve(result, _filter(settings.colour, generator), mode="same")
    if generator.random() < settings.noise_share:
        result = result + _noise(result, generator.uniform(*settings.noise), generator)
    return np.asarray(result, np.float32)


def _filter(deviation: float, generator: np.random.Generator) -> np.ndarray:
    """A short linear-phase filter, smooth in frequency."""
    bins = KERNEL // 2 + 1
    gains = np.interp(np.arange(bins), np.linspace(0, bins - 1, 5), generator.normal(0, deviation, 5))
    response = 10 ** (gains / 20) * np.exp(-1j * np.pi * np.arange(bins))  # the delay that centres the kernel
    return np.fft.irfft(response, KERNEL) * np.hanning(KERNEL)


def _noise(signal: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """White noise, or noise that falls with frequency as rooms' does, `ratio` dB below the signal."""
    noise = generator.normal(size=signal.size)
    if generator.random() < 0.5:
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / (1 + np.arange(spectrum.size) * SAMPLE_RATE / signal.size / 130), signal.size)
    power = np.mean(noise**2) + 1e-12
    return noise * np.sqrt(np.mean(signal**2) / power * 10 ** (-ratio / 10))
