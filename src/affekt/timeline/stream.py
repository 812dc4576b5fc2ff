"""Live speech: from chunks of samples, as they arrive, to the segments of a timeline.

A stream gives the same segments as `make_timeline` on the same samples, however they are divided into chunks. In addition, it
reports segments while they grow, and audio that was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from affekt.audio.mono import HIGHEST_RATE, LOWEST_RATE
from affekt.audio.read import SAMPLE_RATE, Waveform
from affekt.errors import BadAudio, BadConfig
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import WITHOUT_EMOTION, Row
from affekt.timeline.hysteresis import DEFAULT_HYSTERESIS, Hysteresis
from affekt.timeline.speech_segments import SpeechSegments
from affekt.timeline.track import DEFAULT_SEGMENTATION, Track
from affekt.timeline.windows import FixedWindows

NAME = "<stream>"
"""The file of the rows."""
MIN_UPDATE = 0.1
"""Smallest number of seconds between provisional events."""
Kind = Literal["segment", "provisional", "gap"]


@dataclass(frozen=True)
class Chunk:
    """Samples with the time at which they were captured, so that lost audio is noticed."""

    samples: NDArray[Any] | bytes
    """As for `Stream.add`."""
    time: float
    """Seconds of the clock of the source at the first sample."""
    is_after_loss: bool = False
    """Whether the source reports that it lost audio before this chunk."""


@dataclass(frozen=True)
class Event:
    """A result of a stream: a segment, a provisional one, or a gap."""

    kind: Kind
    """A complete segment, one that has begun, whose row may still change ("provisional"), or missing audio."""
    start: float
    """Seconds from the start of the stream, with gaps."""
    end: float
    """Seconds; that of a provisional segment is the time up to which it is known."""
    row: Row | None = None
    """The row of the segment; None for a gap."""
    seconds_lost: float | None = None
    """For a gap: how much audio is missing; None if it is unknown. It is negative if the clock was set back."""


@dataclass(frozen=True)
class StreamSettings:
    """The settings of a stream."""

    sample_rate: int = SAMPLE_RATE
    """Hz."""
    channels: int = 1
    """Channels of interleaved samples in bytes. The mean of all channels is recognized."""
    segmentation: SpeechSegments | FixedWindows = DEFAULT_SEGMENTATION
    """How the stream is divided."""
    hysteresis: Hysteresis = DEFAULT_HYSTERESIS
    """The settings of the steady emotion."""
    update: float = 1.0
    """Seconds of audio from one provisional event to the next; 0 for none."""
    tolerance: float = 0.1
    """The time of a chunk minus that of the first one, compared with the duration of the samples between them: a difference
    of at least this many seconds is a gap."""

    def __post_init__(self) -> None:
        if not LOWEST_RATE <= self.sample_rate <= HIGHEST_RATE:
            raise BadConfig(f"sample rate {self.sample_rate}: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        if self.channels < 1:
            raise BadConfig(f"{self.channels} channels: expected 1 or more")
        if not (self.update == 0 or self.update >= MIN_UPDATE):
            raise BadConfig(f"update {self.update:g}: expected at least {MIN_UPDATE} s, or 0 for no provisional events")
        if not self.tolerance > 0:
            raise BadConfig(f"tolerance {self.tolerance:g}: expected more than 0 s")


class Stream:
    """Recognizes live speech. Memory does not grow with its duration.

    >>> stream = Stream(Recognizer.load())
    >>> for chunk in chunks:
    ...     for event in stream.add(chunk):
    ...         print(event.kind, event.row)
    >>> stream.finish()

    Raises:
        BadConfig: A setting is impossible, or the model needs words, which a stream does not have.
    """

    def __init__(self, recognizer: Recognizer, settings: StreamSettings | None = None) -> None:
        recognizer.check_audio_only("a stream")
        self.settings = settings or StreamSettings()
        self._recognizer = recognizer
        self._next_time: float | None = None
        """The time of the source's clock at which the next chunk is expected."""
        self._begin(0.0)

    def _begin(self, start: float) -> None:
        """Begin a part without gaps, which starts at this number of seconds."""
        settings = self.settings
        self._track = Track(self._recognizer, NAME, settings.segmentation, hysteresis=settings.hysteresis)
        self._resampler = _Resampler(settings.sample_rate)
        self._start, self._samples, self._rest = start, 0, b""

    @property
    def seconds(self) -> float:
        """Seconds of the stream so far, with gaps."""
        return self._start + self._samples / SAMPLE_RATE

    def add(self, chunk: NDArray[Any] | bytes | Chunk) -> list[Event]:
        """Add samples, and return the events.

        Args:
            chunk: Any number of samples: floats (full scale is 1) or integers, (samples,) or (samples, channels), or bytes of
                interleaved 16-bit samples, little-endian.

        Raises:
            BadAudio: The samples are not finite, or cannot be audio.
        """
        time, samples = (chunk.time, chunk.samples) if isinstance(chunk, Chunk) else (None, chunk)
        is_after_loss = isinstance(chunk, Chunk) and chunk.is_after_loss
        events = [] if time is None else self._check_time(time, is_after_loss)
        waveform = self._to_mono(samples)
        if self._next_time is not None:
            self._next_time += waveform.size / self.settings.sample_rate
        return events + self._push(self._resampler.add(waveform))

    def finish(self) -> list[Event]:
        """Return the remaining events. The stream can then be used for other speech, whose times continue."""
        events = self._close()
        self._begin(self.seconds)
        return events

    def add_gap(self, seconds: float | None = None) -> list[Event]:
        """Report that audio is missing, for example because a buffer overflowed, and return the events.

        The segment before the gap ends there; nothing is bridged.

        Args:
            seconds: How much is missing, if it is known; times then continue after it.
        """
        events = self._close()
        start = self.seconds
        end = start + max(seconds or 0.0, 0.0)
        self._begin(end)
        return [*events, Event("gap", round(start, 4), round(end, 4), seconds_lost=seconds)]

    def _check_time(self, time: float, is_after_loss: bool) -> list[Event]:
        """Return the gap before a chunk that was captured at this time, if there is one.

        Small differences add up from chunk to chunk, so that many short losses are noticed too.
        """
        difference = 0.0 if self._next_time is None else time - self._next_time
        if self._next_time is None or is_after_loss or abs(difference) >= self.settings.tolerance:
            self._next_time = time
            return self.add_gap(round(difference, 4)) if difference or is_after_loss else []
        return []

    def _close(self) -> list[Event]:
        events = self._push(self._resampler.finish())
        return events + [self._event("segment", row) for row in self._track.finish()]

    def _push(self, waveform: Waveform) -> list[Event]:
        """Add samples at 16 kHz to the track, and return the events: provisional ones at whole multiples of `update`."""
        events, step = list[Event](), round(self.settings.update * SAMPLE_RATE)
        while waveform.size:
            size = min(waveform.size, step - self._samples % step) if step else waveform.size
            events += [self._event("segment", row) for row in self._track.add(waveform[:size])]
            waveform = waveform[size:]
            self._samples += size
            if step and self._samples % step == 0:
                row = self._track.current()
                if row is not None and row.status not in (*WITHOUT_EMOTION, "error"):
                    events.append(self._event("provisional", row))
        return events

    def _event(self, kind: Kind, row: Row) -> Event:
        start, end = (round(self._start + seconds, 4) for seconds in (row.start, row.end))
        row["start"], row["end"] = start, end
        return Event(kind, start, end, row)

    def _to_mono(self, samples: NDArray[Any] | bytes) -> Waveform:
        """Return samples as floats, (samples,)."""
        if isinstance(samples, bytes | bytearray | memoryview):
            samples = self._decode(bytes(samples))
        samples = np.asarray(samples)
        if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
            raise BadAudio(
                f"a chunk of {samples.dtype} of shape {samples.shape}: expected floats or integers, (samples,) or "
                "(samples, channels)",
                code="not_audio",
            )
        scale = 1.0 if samples.dtype.kind == "f" else 1 / (1 << (8 * samples.dtype.itemsize - 1))
        waveform = samples.astype(np.float32) * np.float32(scale)
        if not np.isfinite(waveform).all():
            raise BadAudio("a chunk has samples that are NaN or infinite", code="not_finite")
        return waveform if waveform.ndim == 1 else waveform.mean(axis=1)

    def _decode(self, data: bytes) -> NDArray[np.int16]:
        """Return interleaved 16-bit samples, (samples, channels); an incomplete last one waits for the next chunk."""
        data = self._rest + data
        complete = len(data) - len(data) % (2 * self.settings.channels)
        self._rest = data[complete:]
        return np.frombuffer(data[:complete], "<i2").reshape(-1, self.settings.channels)


class _Resampler:
    """Resamples chunks to 16 kHz."""

    def __init__(self, rate: int) -> None:
        self._stream: Any = None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def add(self, waveform: Waveform) -> Waveform:
        """Return the samples at 16 kHz that a chunk completes."""
        return waveform if self._stream is None else self._stream.resample_chunk(waveform)

    def finish(self) -> Waveform:
        """Return the remaining samples at 16 kHz."""
        empty = np.zeros(0, np.float32)
        return empty if self._stream is None else self._stream.resample_chunk(empty, last=True)


def stream_events(
    recognizer: Recognizer, chunks: Iterable[NDArray[Any] | bytes | Chunk], settings: StreamSettings | None = None
) -> Iterator[Event]:
    """Yield the events of a stream; see `Stream`."""
    stream = Stream(recognizer, settings)
    for chunk in chunks:
        yield from stream.add(chunk)
    yield from stream.finish()


async def stream_events_async(
    recognizer: Recognizer,
    chunks: AsyncIterable[NDArray[Any] | bytes | Chunk],
    settings: StreamSettings | None = None,
) -> AsyncIterator[Event]:
    """Yield the events of a stream whose chunks arrive asynchronously. Recognition runs in another thread."""
    stream = Stream(recognizer, settings)
    async for chunk in chunks:
        for event in await asyncio.to_thread(stream.add, chunk):
            yield event
    for event in await asyncio.to_thread(stream.finish):
        yield event
