"""Other voices, rooms, microphones and lines from the same recordings: copies whose features are computed once and stored.

A copy changes speed and pitch together (another vocal tract), the colour (another microphone), adds a room's echoes and
noise, cuts the band and passes a lossy codec (another line). Which copy of an utterance is heard changes from epoch to epoch.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadConfig

KERNEL = 64  # samples of the filter that colours: 4 ms
CODED = SAMPLE_RATE  # samples that a codec is given at a time: in one go, Vorbis runs out of stack after some minutes
CODECS = (("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))  # as libsndfile names them

Signal = NDArray[np.floating]


@dataclass(frozen=True)
class Alteration:
    """How a copy differs from its original. A share says how many of the copies are altered in this way."""

    speed: float = 0.16  # speeds are drawn evenly between exp(-speed) and exp(speed); pitch goes along
    colour: float = 4.0  # dB: deviation of the filter's gain at five frequencies
    colour_share: float = 0.6
    room: tuple[float, float] = (0.1, 0.6)  # s: times in which the echoes fall by 60 dB are drawn between these
    room_share: float = 0.0
    noise: tuple[float, float] = (12.0, 40.0)  # dB: signal-to-noise ratios are drawn between these
    noise_share: float = 0.4
    band: tuple[float, float] = (3000.0, 7000.0)  # Hz: what lies above a frequency drawn between these is cut away
    band_share: float = 0.0
    codec_share: float = 0.0  # through Vorbis, Opus or MP3, at a quality drawn from all that the codec has
    level: tuple[float, float] = (0.0, 0.0)  # dB: gains are drawn between these; what exceeds full scale is clipped

    def __post_init__(self) -> None:
        for name in ("colour_share", "room_share", "noise_share", "band_share", "codec_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadConfig(f"alteration: {name} = {getattr(self, name)}, expected a share between 0 and 1")
        for name in ("room", "noise", "band", "level"):
            low, high = getattr(self, name)
            if low > high:
                raise BadConfig(f"alteration: {name} = [{low}, {high}], expected the lower first")


@dataclass(frozen=True)
class Masking:
    """SpecAugment (Park et al., 2019) on a stream: stretches of time, and bands of features, set to their means.

    The mean is each feature's own over the utterance: features of an encoder differ in height and spread, so that one mean
    of all of them would be no silence but an outlier.
    """

    times: int = 0  # stretches of an utterance
    time_share: float = 0.1  # the longest stretch, as a share of the utterance
    bands: int = 0
    band_share: float = 0.1  # the widest band, as a share of the features
    # Not of the paper. Of a log-mel: what lies more than a depth below its loudest value is raised to there, as another
    # recording's background would hide it. Depths are drawn between these, in the stream's units (Whisper's are 40 dB).
    floor: tuple[float, float] = (0.9, 2.0)
    floor_share: float = 0.0  # of the utterances

    def __post_init__(self) -> None:
        shares = (self.time_share, self.band_share, self.floor_share)
        if self.times < 0 or self.bands < 0 or not all(0 <= share <= 1 for share in shares):
            raise BadConfig(f"{self}: expected no negative number, and shares between 0 and 1")


@dataclass(frozen=True)
class Augmentation:
    copies: int = 0  # altered copies of every training utterance, beside the original
    share: float = 0.5  # of the utterances of an epoch, how many are heard as a copy
    crop: float = 0.0  # largest share of an utterance's frames that is cut away, at a place drawn anew every epoch
    alteration: Alteration = field(default_factory=Alteration)
    masking: Masking = field(default_factory=Masking)

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
    """(samples,) at 16 kHz -> (other samples,) at 16 kHz: from the voice to the line, in the order of nature."""
    import soxr

    speed = np.exp(generator.uniform(-settings.speed, settings.speed))
    result = soxr.resample(waveform, SAMPLE_RATE * speed, SAMPLE_RATE) if settings.speed else waveform
    if generator.random() < settings.room_share:
        result = echoed(result, generator.uniform(*settings.room), generator)
    if generator.random() < settings.colour_share:
        result = np.convolve(result, _filter(settings.colour, generator), mode="same")
    if generator.random() < settings.noise_share:
        result = result + noise(result, generator.uniform(*settings.noise), generator)
    if generator.random() < settings.band_share:
        result = narrowed(result, generator.uniform(*settings.band))
    if settings.level != (0.0, 0.0):
        result = np.clip(result * 10 ** (generator.uniform(*settings.level) / 20), -1, 1)
    if generator.random() < settings.codec_share:
        result = coded(result, CODECS[generator.integers(len(CODECS))], generator.random())
    return np.asarray(result, np.float32)


def _filter(deviation: float, generator: np.random.Generator) -> Signal:
    """A short linear-phase filter, smooth in frequency."""
    bins = KERNEL // 2 + 1
    gains = np.interp(np.arange(bins), np.linspace(0, bins - 1, 5), generator.normal(0, deviation, 5))
    response = 10 ** (gains / 20) * np.exp(-1j * np.pi * np.arange(bins))  # the delay that centres the kernel
    return np.fft.irfft(response, KERNEL) * np.hanning(KERNEL)


def noise(signal: Signal, ratio: float, generator: np.random.Generator) -> Signal:
    """White noise, or noise that falls with frequency as rooms' does, `ratio` dB below the signal."""
    drawn = generator.normal(size=signal.size)
    if generator.random() < 0.5:
        spectrum = np.fft.rfft(drawn)
        drawn = np.fft.irfft(spectrum / (1 + np.arange(spectrum.size) * SAMPLE_RATE / signal.size / 130), signal.size)
    power = np.mean(drawn**2) + 1e-12
    return drawn * np.sqrt(np.mean(signal**2) / power * 10 ** (-ratio / 10))


def echoed(signal: Signal, time: float, generator: np.random.Generator) -> Signal:
    """The signal in a room: itself and a tail of noise that falls by 60 dB within `time` seconds; as long as it was."""
    length = max(2, int(time * SAMPLE_RATE))
    tail = generator.normal(size=length) * 10 ** (-3 * np.arange(length) / length)
    tail[: SAMPLE_RATE // 500] = 0  # the first reflection arrives after 2 ms
    direct = generator.uniform(0.5, 4.0)  # energy of the direct sound over that of the room
    response = tail / np.sqrt(np.sum(tail**2) * direct + 1e-12)
    response[0] = 1.0
    size = signal.size + length
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(response, size), size)[: signal.size]


def narrowed(signal: Signal, frequency: float) -> Signal:
    """Without what lies above `frequency` (Hz), falling over 10 % of it."""
    spectrum = np.fft.rfft(signal)
    hertz = np.arange(spectrum.size) * SAMPLE_RATE / signal.size
    return np.fft.irfft(spectrum * np.clip((1.1 * frequency - hertz) / (0.1 * frequency), 0, 1), signal.size)


def coded(signal: Signal, codec: tuple[str, str], loss: float) -> Signal:
    """The signal out of a lossy codec, aligned with what went in and as long; `loss` from 0 (best quality) to 1."""
    import soundfile

    buffer = io.BytesIO()
    container, subtype = codec
    sound = np.clip(signal, -1, 1).astype(np.float32)
    level = min(0.99, max(0.0, loss))  # libsndfile refuses a level of exactly 1 for some codecs
    with soundfile.SoundFile(
        buffer, "w", SAMPLE_RATE, 1, format=container, subtype=subtype, compression_level=level
    ) as file:
        for start in range(0, sound.size, CODED):
            file.write(sound[start : start + CODED])
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.pad(decoded, (0, max(0, signal.size - decoded.size)))[: signal.size]
