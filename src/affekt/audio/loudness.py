"""The speech gate without torch: the power of a waveform over time, and which of its frames may contain speech.

The power is the sum of the bands of Whisper's mel spectrogram, and the rule is that of `affekt.features.gate.SpeechGate`, so
that a long recording is cut where the gate would remove frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadConfig

WINDOW = 400
"""Samples of a frame, 25 ms."""
HOP = 160
"""Samples from frame to frame, 10 ms."""
MELS = 80
"""Number of mel bands."""
SMOOTHING = 7
"""Number of frames over which the power of each frame is averaged."""
PEAK_SMOOTHING = 21
"""Frames over which the power is averaged to find the loudest part; longer than a click."""
FLOOR_QUANTILE = 0.1
"""The noise floor is this quantile of the loudness of the frames within `GateConfig.range`."""
MAX_STEADY_RANGE = 3.0
"""Largest difference between the loudest part and the noise floor of a steady sound, in dB."""
MIN_POWER = 1e-12
"""Lower bound of the power, so that its logarithm is finite."""

Power = NDArray[np.floating]
"""Power of frames of 10 ms, (frames,)."""


@dataclass(frozen=True)
class GateConfig:
    """The settings of the speech gate, in dB and in frames of 10 ms."""

    range: float = 40.0
    """Frames that are softer than the loudest part of the recording by more than this (dB) are never kept."""
    margin: float = 9.0
    """Frames that exceed the noise floor by at least this (dB) are kept."""
    certain: float = 20.0
    """Frames that are softer than the loudest part by at most this (dB) are kept, even if the noise floor is high."""
    hangover: int = 10
    """Number of frames that are also kept on both sides of a kept frame. Pauses of up to twice this length are kept."""

    def __post_init__(self) -> None:
        if not 0 < self.certain <= self.range or self.margin < 0 or self.hangover < 0:
            raise BadConfig(
                f"gate: range = {self.range}, certain = {self.certain}, margin = {self.margin}, hangover = {self.hangover}: "
                "expected 0 < certain <= range, and a margin and hangover of 0 or more"
            )


def mel_filters(mels: int, window: int, sample_rate: int) -> NDArray[np.float64]:
    """Return triangular filters of unit area, (mels, bins), equally spaced on Slaney's mel scale.

    The scale is linear to 1 kHz and logarithmic above.
    """
    per_mel, corner, step = 200 / 3, 15.0, math.log(6.4) / 27  # Hz per mel below 1 kHz; 1 kHz in mels; log step above
    top = corner + math.log(sample_rate / 2 / 1000) / step
    points = np.linspace(0, top, mels + 2)
    hertz = np.where(points < corner, points * per_mel, 1000 * np.exp(step * (points - corner)))
    bins = np.linspace(0, sample_rate / 2, window // 2 + 1)
    rising = (bins - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    falling = (hertz[2:, None] - bins) / np.diff(hertz)[1:, None]
    triangles: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return triangles * (2 / (hertz[2:] - hertz[:-2]))[:, None]


@cache
def _weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the window of a frame, and the weight of each frequency in the sum of all mel bands."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return hann.astype(np.float32), mel_filters(MELS, WINDOW, SAMPLE_RATE).sum(axis=0).astype(np.float32)


def frame_power(waveform: Waveform) -> Power:
    """Return the power of the frames that lie completely inside a waveform, (frames,). The first begins at sample 0."""
    if waveform.size < WINDOW:
        return np.zeros(0, np.float32)
    window, weights = _weights()
    frames = np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP]
    return np.square(np.abs(np.fft.rfft(frames * window)).astype(np.float64)) @ weights


def find_speech(power: Power, config: GateConfig) -> NDArray[np.bool_]:
    """Return which frames of a recording may contain speech, (frames,): at least one, unless the recording is empty."""
    if not power.size:
        return np.zeros(0, bool)
    loudness = _decibels(_smooth(power, SMOOTHING))
    relative = loudness - _decibels(_smooth(power, PEAK_SMOOTHING)).max()
    audible = relative > -config.range
    ranked = np.sort(relative[audible])
    floor = ranked[int(ranked.size * FLOOR_QUANTILE)]
    keep = audible & (relative >= min(floor + config.margin, -config.certain))
    result: NDArray[np.bool_] = _smooth(keep.astype(np.float64), 2 * config.hangover + 1) > 1e-6
    return result


def is_steady(power: Power) -> bool:
    """Return whether the loudness hardly changes over time, which is true of noise, hum and silence but not of speech.

    A sound that is shorter than 0.63 s is never steady.
    """
    size = PEAK_SMOOTHING
    loudness = _decibels(_smooth(power, size))[size:-size]  # without the ends, where the average falls
    return loudness.size >= size and float(loudness.max() - np.quantile(loudness, FLOOR_QUANTILE)) < MAX_STEADY_RANGE


def _smooth(values: NDArray[np.floating], size: int) -> NDArray[np.float64]:
    """Return the moving average over an odd number of frames; beyond the ends, values are zero."""
    sums = np.cumsum(np.pad(values.astype(np.float64), (size // 2 + 1, size // 2)))
    return np.maximum(sums[size:] - sums[:-size], 0) / size


def _decibels(power: NDArray[np.floating]) -> NDArray[np.float64]:
    return 10.0 * np.log10(np.maximum(power, MIN_POWER).astype(np.float64))
