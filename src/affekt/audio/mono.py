"""Mix channels to mono and resample to 16 kHz, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from affekt.audio.notes import Reading
from affekt.errors import BadAudio

Waveform = NDArray[np.float32]
"""(samples,), mono, at SAMPLE_RATE."""
SAMPLE_RATE = 16_000
"""Hz."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Range of the sample rates that are read, in Hz."""
MAX_AMPLITUDE = 1e12
"""Limit of the absolute value of a sample; full scale is 1. Beyond this the power of a spectrum overflows float32."""
SILENCE_RANGE = 2.0**-15
"""One step of 16-bit audio. A waveform whose range of values is smaller is digital silence."""
MAX_LOSS = 100.0
"""Ratio of powers, 20 dB. Where mixing loses more against the loudest channel, that channel is used."""
LOUDER = 4.0
"""Ratio of powers, 6 dB, by which another channel must be louder to replace the one in use."""
SHORTEST_COMPARISON = 0.1
"""Seconds. In a shorter block, channels may cancel each other by chance."""


def check_rate(rate: int, name: str) -> None:
    """Raise `BadAudio` if a sample rate is outside the range that is read."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise BadAudio(
            f"{name} has a sample rate of {rate} Hz: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz; "
            "is its header damaged? If its rate is known, write the file again with that rate",
            code="not_audio",
        )


def to_mono(source_blocks: Iterator[NDArray[np.float32]], rate: int, reading: Reading) -> Iterator[Waveform]:
    """Convert blocks (samples, channels) at this sample rate to (samples,) at 16 kHz, and check their values.

    Yields nothing if there are no samples. If the reading keeps channels separate, blocks are (samples, channels).

    Raises:
        BadAudio: The sample rate is out of range, a sample is not finite, or the number of separate channels changes.
    """
    check_rate(rate, reading.name)
    checked = _check_values(source_blocks, rate, reading.name)
    if reading.separate:
        yield from _resample(_same_channels(checked, reading), rate)
    else:
        mixer = Mixer(rate, reading)
        mixed = (block[:, 0] if block.shape[1] == 1 else mixer.mix(block) for block in checked)
        yield from _resample(mixed, rate)


def _check_values(blocks: Iterator[NDArray[np.float32]], rate: int, name: str) -> Iterator[NDArray[np.float32]]:
    read = 0
    for block in blocks:
        if not (block.min() > -MAX_AMPLITUDE and block.max() < MAX_AMPLITUDE):  # also false for NaN
            position = read + int(np.argmin((np.abs(block) < MAX_AMPLITUDE).all(axis=1)))
            raise BadAudio(
                f"{name} has NaN, infinite or impossibly large samples, the first at {position / rate:.3f} s",
                code="not_finite",
            )
        yield block
        read += len(block)


def _same_channels(blocks: Iterator[NDArray[np.float32]], reading: Reading) -> Iterator[NDArray[np.float32]]:
    """Return the blocks unchanged; raise `BadAudio` if their number of channels is not that of the file's first block."""
    for block in blocks:
        reading.channels = reading.channels or block.shape[1]
        if block.shape[1] != reading.channels:
            raise BadAudio(
                f"{reading.name} has {reading.channels} channels at its start and {block.shape[1]} later: they can only be "
                "mixed, not kept separate",
                code="not_audio",
            )
        yield block


def _resample(blocks: Iterator[NDArray[np.float32]], rate: int) -> Iterator[NDArray[np.float32]]:
    """Resample blocks, (samples,) or (samples, channels), to 16 kHz."""
    import soxr

    if rate == SAMPLE_RATE:
        yield from blocks
        return
    first = next(blocks, None)
    if first is None:
        return
    channels = 1 if first.ndim == 1 else first.shape[1]
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, channels, dtype="float32")
    # Resample relative to the first sample: the filter assumes zeros before it, so a DC offset would cause a click.
    offset, empty = first[0].copy(), np.zeros((0, *first.shape[1:]), np.float32)
    for block in chain([first], blocks):
        yield resampler.resample_chunk(block - offset) + offset
    yield resampler.resample_chunk(empty, last=True) + offset


class Mixer:
    """A mixer of channels to their mean. Where the channels cancel each other, it uses the loudest one instead.

    Args:
        rate: Sample rate of the blocks, in Hz.
        reading: The reading to which the use of a single channel is reported.
    """

    def __init__(self, rate: int, reading: Reading) -> None:
        self._rate, self._reading = rate, reading
        self._channel: int | None = None
        self._compared = False

    def mix(self, block: NDArray[np.float32]) -> Waveform:
        """Mix a block (samples, channels) to (samples,)."""
        mean = block.mean(axis=1)
        if len(block) >= SHORTEST_COMPARISON * self._rate or not self._compared:
            self._channel, self._compared = self._choose(block, mean), True
        if self._channel is None or self._channel >= block.shape[1]:
            return mean
        self._reading.use_channel(self._channel, block.shape[1], len(block) / self._rate)
        return block[:, self._channel]

    def _choose(self, block: NDArray[np.float32], mean: Waveform) -> int | None:
        """Return the channel to use instead of the mean, or None."""
        powers = block.var(axis=0, dtype=np.float64)  # the variance ignores a DC offset, which is not sound
        loudest = int(powers.argmax())
        if powers[loudest] <= MAX_LOSS * mean.var(dtype=np.float64) or np.ptp(block[:, loudest]) < SILENCE_RANGE:
            return None
        used = self._channel
        keep = used is not None and used < len(powers) and powers[loudest] < LOUDER * powers[used]
        return used if keep else loudest


def require_samples(blocks: Iterator[Waveform], name: str) -> Iterator[Waveform]:
    """Return the blocks unchanged, after checking that there is at least one.

    Raises:
        BadAudio: There is no block.
    """
    first = next(blocks, None)
    if first is None:
        raise BadAudio(f"{name} is empty: a header without samples", code="empty")
    return chain([first], blocks)
