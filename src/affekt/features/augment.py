"""Data augmentation: altered copies of every training utterance, whose features are computed once and stored.

A copy changes speed and pitch together (like another vocal tract) and the frequency response (another microphone), adds
pauses, reverberation and noise, applies a low-pass filter and passes through a lossy codec (another transmission line). Which
version of an utterance is trained on changes from epoch to epoch.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadConfig

EQUALIZER_SIZE = 64  # samples of the equalizer's filter: 4 ms
# Samples passed to a codec at a time. With minutes of audio at once, the Vorbis encoder overflows the stack.
CODEC_BLOCK = SAMPLE_RATE
CODECS = (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))  # as libsndfile names them

Signal = NDArray[np.floating]


@dataclass(frozen=True)
class Alteration:
    """The settings of an altered copy. `NAME_probability` is the probability that a copy gets the effect NAME."""

    renamed: ClassVar[Mapping[str, str]] = {
        "colour": "equalizer",
        "colour_share": "equalizer_probability",
        "room": "reverb",
        "room_share": "reverb_probability",
        "noise_share": "noise_probability",
        "band": "lowpass",
        "band_share": "lowpass_probability",
        "codec_share": "codec_probability",
        "level": "gain",
    }

    speed: float = 0.16
    """Speed factors are drawn uniformly between exp(-speed) and exp(speed). Pitch changes with the speed."""
    equalizer: float = 4.0
    """Standard deviation of the filter's gain at five frequencies, in dB."""
    equalizer_probability: float = 0.6
    reverb: tuple[float, float] = (0.1, 0.6)
    """Range of the reverberation time, in seconds: the time in which echoes decay by 60 dB."""
    reverb_probability: float = 0.0
    noise: tuple[float, float] = (12.0, 40.0)
    """Range of the signal-to-noise ratio, in dB."""
    noise_probability: float = 0.4
    lowpass: tuple[float, float] = (3000.0, 7000.0)
    """Range of the low-pass filter's cut-off frequency, in Hz."""
    lowpass_probability: float = 0.0
    codec_probability: float = 0.0
    """Probability of passing through Vorbis, Opus or MP3, at a quality drawn from the codec's whole range."""
    pause: tuple[float, float] = (0.1, 1.5)
    """Range of the length of added silence, in seconds."""
    pause_probability: float = 0.0
    """Probability of silence before the speech, and of silence after it. Half as often, silence is inserted at the quietest
    point inside. Noise, if there is any, is added afterwards and fills the silence."""
    pause_noise: tuple[float, float] = (-60.0, -35.0)
    """Range of the power of noise in added pauses, in dB relative to full scale."""
    pause_noise_probability: float = 0.0
    """Probability that a copy's added pauses contain noise, which the speech between them does not."""
    gain: tuple[float, float] = (0.0, 0.0)
    """Range of the gain, in dB. Samples beyond full scale are clipped."""

    def __post_init__(self) -> None:
        for name in ("equalizer", "reverb", "noise", "lowpass", "codec", "pause", "pause_noise"):
            probability = getattr(self, f"{name}_probability")
            if not 0 <= probability <= 1:
                raise BadConfig(f"alteration: {name}_probability = {probability}, expected a number from 0 to 1")
        for name in ("reverb", "noise", "lowpass", "pause", "pause_noise", "gain"):
            low, high = getattr(self, name)
            if low > high:
                raise BadConfig(f"alteration: {name} = [{low}, {high}], expected the lower value first")


@dataclass(frozen=True)
class Masking:
    """SpecAugment (Park et al., 2019) on a stream: intervals of time and bands of features are set to the mean.

    Each feature is set to its own mean over the utterance. An encoder's features differ in mean and variance, so the mean
    of all features would be an outlier for most of them.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "times": "num_time_masks",
        "time_share": "max_time_fraction",
        "bands": "num_feature_masks",
        "band_share": "max_feature_fraction",
        "floor_share": "floor_probability",
    }

    num_time_masks: int = 0
    """Number of masked intervals of time per utterance."""
    max_time_fraction: float = 0.1
    """Longest masked interval, as a fraction of the utterance."""
    num_feature_masks: int = 0
    """Number of masked bands of features per utterance."""
    max_feature_fraction: float = 0.1
    """Widest masked band, as a fraction of the features."""
    floor: tuple[float, float] = (0.9, 2.0)
    """Limits between which the dynamic range of a log-mel is drawn, in the stream's units (1 is 40 dB in Whisper's log-mel).

    Not in the paper. The dynamic range sets a lower limit, at this distance below the utterance's maximum. Smaller values are
    raised to the limit, as if background noise masked them.
    """
    floor_probability: float = 0.0
    """Probability that an utterance's dynamic range is limited in this way."""

    def __post_init__(self) -> None:
        fractions = (self.max_time_fraction, self.max_feature_fraction, self.floor_probability)
        if min(self.num_time_masks, self.num_feature_masks) < 0 or not all(0 <= value <= 1 for value in fractions):
            raise BadConfig(f"{self}: expected counts of 0 or more, and fractions and probabilities from 0 to 1")


@dataclass(frozen=True)
class Offsets:
    """How the offsets of features, which come from speaker, microphone and room, are varied in training.

    Not in a paper. See `affekt.training.offsets`.
    """

    center_probability: float = 0.0
    """Probability that an utterance is centered on the mean of its speaker or, equally often, of its corpus."""
    shift_probability: float = 0.0
    """Probability that an utterance is shifted by the difference between two random speakers of the training subset,
    multiplied by a random factor between 0 and `shift`."""
    shift: float = 1.0
    """Largest factor of a shift."""

    def __post_init__(self) -> None:
        probabilities = (self.center_probability, self.shift_probability)
        if min(probabilities) < 0 or sum(probabilities) > 1 or self.shift < 0:
            raise BadConfig(
                f"offsets: center_probability = {self.center_probability}, shift_probability = {self.shift_probability}, "
                f"shift = {self.shift}: expected probabilities whose sum is at most 1, and a shift of 0 or more"
            )


@dataclass(frozen=True)
class Augmentation:
    """How training data are augmented: by altered copies, which are stored, and by masks and crops drawn in every epoch."""

    renamed: ClassVar[Mapping[str, str]] = {"share": "copy_probability"}

    copies: int = 0
    """Number of altered copies of every training utterance, in addition to the original."""
    copy_probability: float = 0.5
    """Probability that an epoch uses one of an utterance's copies instead of the original."""
    crop: float = 0.0
    """Largest fraction of an utterance's frames that is cut away, at a position drawn in every epoch."""
    alteration: Alteration = field(default_factory=Alteration)
    masking: Masking = field(default_factory=Masking)
    offsets: Offsets = field(default_factory=Offsets)

    def __post_init__(self) -> None:
        if self.copies < 0 or not 0 <= self.copy_probability <= 1 or not 0 <= self.crop < 1:
            raise BadConfig(
                f"copies = {self.copies}, copy_probability = {self.copy_probability}, crop = {self.crop}: "
                "expected 0 or more copies, a probability from 0 to 1 and a fraction from 0 to below 1"
            )


@dataclass(frozen=True)
class Copy:
    """One altered copy of all utterances, identified by its number and seed."""

    number: int
    seed: int
    alteration: Alteration

    def __call__(self, waveform: Waveform, key: str) -> Waveform:
        """Return the altered waveform.

        The random numbers depend on the seed, the number and `key`, which identifies the utterance.
        """
        digest = hashlib.sha256(f"{self.seed}/{self.number}/{key}".encode()).digest()
        return alter(waveform, self.alteration, np.random.default_rng(list(digest)))


def alter(waveform: Waveform, alteration: Alteration, generator: np.random.Generator) -> Waveform:
    """Return an altered waveform at 16 kHz; `speed` changes the number of samples.

    The effects are applied in the order in which they occur, from the speaker to the transmission line.
    """
    import soxr

    speed = np.exp(generator.uniform(-alteration.speed, alteration.speed))
    result = soxr.resample(waveform, SAMPLE_RATE * speed, SAMPLE_RATE) if alteration.speed else waveform
    if alteration.pause_probability:
        result = _add_pauses(result, alteration, generator)
    if generator.random() < alteration.reverb_probability:
        result = add_reverb(result, generator.uniform(*alteration.reverb), generator)
    if generator.random() < alteration.equalizer_probability:
        result = np.convolve(result, _equalizer_filter(alteration.equalizer, generator), mode="same")
    if generator.random() < alteration.noise_probability:
        result = result + make_noise(result, generator.uniform(*alteration.noise), generator)
    if generator.random() < alteration.lowpass_probability:
        result = apply_lowpass(result, generator.uniform(*alteration.lowpass))
    if alteration.gain != (0.0, 0.0):
        result = np.clip(result * 10 ** (generator.uniform(*alteration.gain) / 20), -1, 1)
    if generator.random() < alteration.codec_probability:
        result = apply_codec(result, CODECS[generator.integers(len(CODECS))], generator.random())
    return np.asarray(result, np.float32)


def _add_pauses(signal: Signal, alteration: Alteration, generator: np.random.Generator) -> Signal:
    """Return the signal with silence, or noise, before, after and inside it."""
    pause_inside, pause_before, pause_after = generator.random(3) < alteration.pause_probability * np.array(
        [0.5, 1.0, 1.0]
    )
    lengths = (generator.uniform(*alteration.pause, size=3) * SAMPLE_RATE).astype(int)
    lengths *= np.array([pause_inside, pause_before, pause_after])
    pauses = np.zeros(lengths.sum(), signal.dtype)
    # No number is drawn if the probability is zero, so that copies without noise in pauses stay the same.
    if alteration.pause_noise_probability and generator.random() < alteration.pause_noise_probability:
        pauses = _unit_noise(pauses.size, generator) * 10 ** (generator.uniform(*alteration.pause_noise) / 20)
    inside, before, after = np.split(pauses, np.cumsum(lengths)[:-1])
    quietest = quietest_point(signal) if inside.size else 0
    return np.concatenate([before, signal[:quietest], inside, signal[quietest:], after])


def quietest_point(signal: Signal) -> int:
    """Return the middle of the 50 ms with the least energy in the second and third quarter of a signal, as a sample index."""
    start, end, size = signal.size // 4, signal.size - signal.size // 4, SAMPLE_RATE // 20
    if end - start <= size:
        return signal.size // 2
    energy = np.cumsum(np.square(signal[start:end], dtype=np.float64))
    return start + size // 2 + int(np.argmin(energy[size:] - energy[:-size]))


def _equalizer_filter(std: float, generator: np.random.Generator) -> Signal:
    """Return a short linear-phase filter whose gain is smooth in frequency and has a standard deviation of `std` dB."""
    bins = EQUALIZER_SIZE // 2 + 1
    gains = np.interp(np.arange(bins), np.linspace(0, bins - 1, 5), generator.normal(0, std, 5))
    response = 10 ** (gains / 20) * np.exp(
        -1j * np.pi * np.arange(bins)
    )  # a delay of half the filter, which centers it
    return np.fft.irfft(response, EQUALIZER_SIZE) * np.hanning(EQUALIZER_SIZE)


def make_noise(signal: Signal, ratio: float, generator: np.random.Generator) -> Signal:
    """Return noise `ratio` dB below the signal: white, or weaker at high frequencies, like background noise in rooms."""
    return _unit_noise(signal.size, generator) * np.sqrt(np.mean(signal**2) * 10 ** (-ratio / 10))


def _unit_noise(size: int, generator: np.random.Generator) -> Signal:
    """Return noise with a power of 1, white or weaker at high frequencies."""
    noise = generator.normal(size=size)
    if size and generator.random() < 0.5:
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / (1 + np.arange(spectrum.size) * SAMPLE_RATE / size / 130), size)
    return noise / np.sqrt(np.mean(noise**2) + 1e-12) if size else noise


def add_reverb(signal: Signal, time: float, generator: np.random.Generator) -> Signal:
    """Convolve the signal with an impulse response whose noisy tail decays by 60 dB in `time` seconds; same length."""
    length = max(2, int(time * SAMPLE_RATE))
    tail = generator.normal(size=length) * 10 ** (-3 * np.arange(length) / length)
    tail[: SAMPLE_RATE // 500] = 0  # the first reflection arrives after 2 ms
    direct = generator.uniform(0.5, 4.0)  # ratio of the direct sound's energy to that of the reverberation
    response = tail / np.sqrt(np.sum(tail**2) * direct + 1e-12)
    response[0] = 1.0
    size = signal.size + length
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)[: signal.size]


def apply_lowpass(signal: Signal, frequency: float) -> Signal:
    """Remove the spectrum above a frequency in Hz. The transition band above it is 10 % of the frequency wide."""
    spectrum = np.fft.rfft(signal)
    hertz = np.arange(spectrum.size) * SAMPLE_RATE / signal.size
    return np.fft.irfft(spectrum * np.clip((1.1 * frequency - hertz) / (0.1 * frequency), 0, 1), signal.size)


def apply_codec(signal: Signal, codec: tuple[str, str], compression: float) -> Signal:
    """Encode and decode the signal with a lossy codec; the result is aligned with the signal and has its length.

    Args:
        signal: Samples at 16 kHz, (samples,).
        codec: One of `CODECS`.
        compression: From 0 (best quality) to 1 (smallest size).
    """
    import soundfile

    buffer = io.BytesIO()
    container, subtype = codec
    clipped = np.clip(signal, -1, 1).astype(np.float32)
    level = min(0.99, max(0.0, compression))  # libsndfile rejects a level of exactly 1 for some codecs
    with soundfile.SoundFile(
        buffer, "w", SAMPLE_RATE, 1, format=container, subtype=subtype, compression_level=level
    ) as file:
        for start in range(0, clipped.size, CODEC_BLOCK):
            file.write(clipped[start : start + CODEC_BLOCK])
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.pad(decoded, (0, max(0, signal.size - decoded.size)))[: signal.size]
