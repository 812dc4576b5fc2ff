"""Generated sounds that are not speech: noise, tones, hum, clicks, sweeps, music and dithered silence.

They need no files, so a speech detector can always be trained on them. A sound is determined by its kind and number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform

Signal = NDArray[np.floating]
"""(samples,), mono, at 16 kHz."""
DURATION = (0.5, 6.0)
"""Range of the duration in seconds."""
PEAK = (-60.0, 0.0)
"""Range of the peak in dBFS."""
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), tuple(range(12)))
"""Major, minor, pentatonic and chromatic: semitones above the tonic."""


def make_noise(generator: np.random.Generator, size: int) -> Signal:
    """Return noise whose power falls by 0 (white) to 9 dB per octave, perhaps within a band, perhaps of varying gain."""
    spectrum = np.fft.rfft(generator.normal(size=size))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum *= np.maximum(hertz, 20.0) ** -generator.choice([0.0, 0.5, 1.0, generator.uniform(0, 1.5)])
    if generator.random() < 0.4:
        low = np.exp(generator.uniform(np.log(30), np.log(4000)))
        spectrum *= (
            1 / (1 + (low / np.maximum(hertz, 1.0)) ** 4) / (1 + (hertz / (low * generator.uniform(1.2, 8))) ** 4)
        )
    noise = np.fft.irfft(spectrum, size)
    return noise * _slow_gain(generator, size) if generator.random() < 0.3 else noise


def make_tone(generator: np.random.Generator, size: int) -> Signal:
    """Return one to three pure tones, perhaps with vibrato, perhaps switched on and off."""
    time = np.arange(size) / SAMPLE_RATE
    tone = np.zeros(size)
    for _ in range(generator.integers(1, 4)):
        frequency = np.exp(generator.uniform(np.log(60), np.log(6000)))
        depth = frequency * generator.uniform(0, 0.03) if generator.random() < 0.3 else 0.0
        rate = generator.uniform(3, 8)
        phase = 2 * np.pi * frequency * time + depth / rate * np.sin(2 * np.pi * rate * time)
        tone += generator.uniform(0.2, 1) * np.sin(phase + generator.uniform(0, 2 * np.pi))
    if generator.random() < 0.3:
        period = generator.uniform(0.1, 1.5)
        tone *= (time / period + generator.random()) % 1 < generator.uniform(0.2, 0.8)
    return tone + _background(generator, size)


def make_hum(generator: np.random.Generator, size: int) -> Signal:
    """Return mains hum of 50 or 60 Hz, or of a motor, with harmonics of falling strength."""
    time = np.arange(size) / SAMPLE_RATE
    base = generator.choice([50.0, 60.0, generator.uniform(20, 200)])
    count = generator.integers(1, 60)
    slope = generator.uniform(0.3, 2.0)
    hum = np.zeros(size)
    for harmonic in range(1, min(int(count), int(7900 / base)) + 1):
        strength = generator.uniform(0.2, 1) * harmonic**-slope
        hum += strength * np.sin(2 * np.pi * base * harmonic * time + generator.uniform(0, 2 * np.pi))
    return hum * (_slow_gain(generator, size) if generator.random() < 0.2 else 1.0) + _background(generator, size)


def make_clicks(generator: np.random.Generator, size: int) -> Signal:
    """Return clicks, knocks or ticks: resonances that decay, at regular or random times."""
    sound = np.zeros(size)
    interval = generator.uniform(0.03, 1.0)
    regular = generator.random() < 0.5
    frequency, decay = np.exp(generator.uniform(np.log(100), np.log(6000))), np.exp(generator.uniform(-7, -3))
    position = generator.uniform(0, interval)
    while position * SAMPLE_RATE < size - 1:
        start = int(position * SAMPLE_RATE)
        time = np.arange(min(size - start, int(8 * decay * SAMPLE_RATE) + 2)) / SAMPLE_RATE
        color = generator.normal(size=time.size) if generator.random() < 0.3 else 1.0
        click = np.cos(2 * np.pi * frequency * generator.uniform(0.97, 1.03) * time) * np.exp(-time / decay) * color
        sound[start : start + time.size] += generator.uniform(0.5, 1) * click
        position += interval if regular else generator.exponential(interval) + 0.01
    return sound + _background(generator, size)


def make_sweep(generator: np.random.Generator, size: int) -> Signal:
    """Return a sweep between two frequencies, perhaps repeated, like a chirp or a siren."""
    time = np.arange(size) / SAMPLE_RATE
    first, last = np.exp(generator.uniform(np.log(80), np.log(7000), 2))
    period = generator.uniform(0.15, 1.0) * size / SAMPLE_RATE
    progress = time / period % 1
    if generator.random() < 0.5:
        progress = 1 - np.abs(2 * progress - 1)
    frequency = first * (last / first) ** progress
    sweep = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)
    if generator.random() < 0.3:
        sweep = np.sign(sweep) * np.abs(sweep) ** generator.uniform(0.2, 1)
    return sweep + _background(generator, size)


def make_music(generator: np.random.Generator, size: int) -> Signal:
    """Return melodies and chords of instruments with harmonics and envelopes, perhaps with drums."""
    sound = np.zeros(size)
    beat = generator.uniform(0.15, 0.8)
    tonic, scale = generator.uniform(40, 64), SCALES[generator.integers(len(SCALES))]
    for _ in range(generator.integers(1, 4)):
        instrument = _Instrument(generator)
        chord = generator.integers(1, 5)
        position = 0.0
        while position * SAMPLE_RATE < size:
            length = beat * generator.choice([0.5, 1, 1, 2, 4])
            if generator.random() < 0.9:
                degree = generator.integers(0, 2 * len(scale))
                for step in range(chord):
                    octave, index = divmod(int(degree) + 2 * step, len(scale))
                    pitch = 440 * 2 ** ((tonic + 12 * octave + scale[index] - 69) / 12)
                    _add(sound, int(position * SAMPLE_RATE), instrument.play(generator, pitch, length))
            position += length
    if generator.random() < 0.4:
        for start in np.arange(0, size / SAMPLE_RATE, beat * generator.choice([0.5, 1])):
            drum = generator.normal(size=int(0.15 * SAMPLE_RATE)) * np.exp(-np.arange(int(0.15 * SAMPLE_RATE)) / 400)
            _add(sound, int(start * SAMPLE_RATE), generator.uniform(0.1, 0.6) * drum)
    return sound + _background(generator, size)


class _Instrument:
    """An instrument: the strengths of its harmonics, its envelope and its vibrato."""

    def __init__(self, generator: np.random.Generator) -> None:
        count = int(generator.integers(1, 16))
        self.strengths = generator.uniform(0.1, 1, count) * np.arange(1, count + 1) ** -generator.uniform(0.3, 2.5)
        self.attack, self.decay = np.exp(generator.uniform(-6, -1.5)), np.exp(generator.uniform(-2, 1.5))
        self.vibrato = generator.uniform(0, 0.01) if generator.random() < 0.4 else 0.0
        self.rate = generator.uniform(4, 7)

    def play(self, generator: np.random.Generator, pitch: float, length: float) -> Signal:
        """Return one note of a pitch in Hz and a length in seconds."""
        time = np.arange(max(2, int(length * SAMPLE_RATE))) / SAMPLE_RATE
        phase = 2 * np.pi * pitch * (time + self.vibrato / self.rate * np.sin(2 * np.pi * self.rate * time))
        note = np.zeros(time.size)
        for harmonic, strength in enumerate(self.strengths, start=1):
            if harmonic * pitch < SAMPLE_RATE / 2.1:
                note += strength * np.sin(harmonic * phase)
        envelope = np.minimum(time / self.attack, 1) * np.exp(-time / self.decay)
        release = np.minimum((time[-1] - time) / 0.02, 1)
        return generator.uniform(0.3, 1) * note * envelope * release


def make_silence(generator: np.random.Generator, size: int) -> Signal:
    """Return dithered silence: noise in the lowest bits of 16-bit samples, which is not scaled to PEAK."""
    return np.round(generator.normal(size=size) * generator.uniform(0.3, 2.0))


def _slow_gain(generator: np.random.Generator, size: int) -> Signal:
    """Return a gain that varies slowly and at random, (samples,)."""
    points = generator.uniform(0.05, 1, max(2, int(size / SAMPLE_RATE * generator.uniform(0.5, 6))))
    return np.interp(np.linspace(0, points.size - 1, size), np.arange(points.size), points)


def _background(generator: np.random.Generator, size: int) -> Signal:
    """Return weak noise, or none."""
    if generator.random() < 0.4:
        return np.zeros(size)
    return generator.normal(size=size) * 10 ** (generator.uniform(-70, -15) / 20)


def _add(sound: Signal, start: int, part: Signal) -> None:
    part = part[: max(0, sound.size - start)]
    sound[start : start + part.size] += part


MAKERS: Mapping[str, Callable[[np.random.Generator, int], Signal]] = {
    "noise": make_noise,
    "tone": make_tone,
    "hum": make_hum,
    "clicks": make_clicks,
    "sweep": make_sweep,
    "music": make_music,
    "silence": make_silence,
}
"""Kind -> function that makes a sound of a number of samples."""


def generate(kind: str, number: int) -> Waveform:
    """Return the sound of a kind with this number: mono, 16 kHz, 0.5 to 6 s, rounded to 16 bits."""
    generator = np.random.default_rng(list(hashlib.sha256(f"{kind} {number}".encode()).digest()))
    sound = MAKERS[kind](generator, round(generator.uniform(*DURATION) * SAMPLE_RATE))
    if kind != "silence":
        sound = sound / (np.abs(sound).max() + 1e-9) * 10 ** (generator.uniform(*PEAK) / 20) * 32767
    return (np.round(np.clip(sound, -32768, 32767)) / 32768).astype(np.float32)
