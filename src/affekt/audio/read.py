"""Read a file, bytes or an array as mono float32 at 16 kHz, in blocks, so that memory does not grow with length.

libsndfile reads WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, CAF and others (`affekt.audio.sndfile`); PyAV, from the extra `media`,
reads m4a, mp4, webm, FLAC and Speex in Ogg, AC-3, WavPack, TTA and similar formats (`affekt.audio.media`); soxr resamples
(`affekt.audio.mono`). What an ordinary WAV does not need is imported inside functions, so that recognition starts fast.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from affekt.audio.byte_range import ByteRange
from affekt.audio.containers import HEAD, find_truncation, is_media
from affekt.audio.decoder_messages import silent_decoders
from affekt.audio.folders import MEDIA_SUFFIXES, SUFFIXES, find_files, is_folder
from affekt.audio.mono import SAMPLE_RATE, SILENCE_RANGE, Waveform, check_rate, require_samples, to_mono
from affekt.audio.notes import Notes, Reading
from affekt.audio.parts import divide
from affekt.audio.sndfile import check_header, decode, is_unknown, open_sound, sound_duration
from affekt.audio.sources import unpack
from affekt.audio.streams import AudioSource, name_of, open_source
from affekt.audio.tags import skip_leading_tags
from affekt.errors import AffektError, BadAudio

__all__ = [
    "CODES",
    "MEDIA_SUFFIXES",
    "SAMPLE_RATE",
    "SHORTEST",
    "SUFFIXES",
    "AudioSource",
    "Notes",
    "Waveform",
    "blocks",
    "check_length",
    "describe_error",
    "duration",
    "find_files",
    "is_folder",
    "is_silent",
    "load",
    "name_of",
]

SHORTEST = 0.1
"""Minimum duration of usable audio, in seconds."""
MAX_ERROR_TEXT = 500
"""Characters of an unexpected error's text that a message contains."""

CODES = {
    "missing": "there is no such file",
    "unreadable": "the file exists, but cannot be opened",
    "empty": "no bytes, or no samples",
    "not_audio": "an unsupported format, a sample rate out of range, or an array that cannot be audio",
    "truncated": "damaged, or shorter than its header declares",
    "not_finite": "has NaN, infinite or impossibly large samples",
    "too_short": f"shorter than {SHORTEST} s",
    "too_long": "longer than the limit of a service",
    "folder": "a folder instead of a file; on the command line, a folder without audio files",
    "missing_extra": "the format needs an extra that is not installed",
    "undecodable": "a decoder failed in an undocumented way",
    "timeout": "not read within the time limit",
    "crashed": "two worker processes died while recognizing it (with several jobs or a manifest)",
}
"""The meaning of each `BadAudio.code`: used in the rows of `affekt recognize` and in the docs."""


def load(
    source: AudioSource, sample_rate: float | None = None, *, lenient: bool = False, notes: Notes | None = None
) -> Waveform:
    """Read a whole source as (samples,) float32, mono, at 16 kHz.

    Args:
        source: A path, "-" for standard input, the bytes or a binary file object of an audio file, or an array (samples,)
            or (samples, channels): floats are used as they are (full scale is 1), integers are scaled by the range of their
            type. An array and its rate may also be a pair or a dictionary (`AudioSource`).
        sample_rate: Sample rate of an array, a whole number of Hz; files have their own.
        lenient: Read as much as possible of a file that is damaged or cut off.
        notes: Filled with remarks on the source: missing audio, channels that cancel each other.

    Raises:
        BadAudio: The source cannot be read or is unusable; `code` is one of CODES.
        MissingExtra: The format needs an extra.
    """
    read = blocks(source, sample_rate, lenient=lenient, notes=notes)
    waveform = np.concatenate([np.zeros(0, np.float32), *read])
    check_length(waveform.size, name_of(source))
    return waveform


def check_length(samples: int, name: str) -> None:
    """Raise `BadAudio` if this number of samples at 16 kHz is too short to be recognized."""
    if samples < SHORTEST * SAMPLE_RATE:
        raise BadAudio(
            f"{name} lasts {samples / SAMPLE_RATE:.3f} s; at least {SHORTEST} s of audio are needed", code="too_short"
        )


def is_silent(waveform: Waveform) -> bool:
    """Return whether a waveform, which is not empty, is digital silence."""
    return bool(np.ptp(waveform) < SILENCE_RANGE)


def blocks(
    source: AudioSource,
    sample_rate: float | None = None,
    *,
    lenient: bool = False,
    notes: Notes | None = None,
    separate: bool = False,
    max_seconds: float | None = None,
) -> Generator[Waveform, None, None]:
    """Yield the source as consecutive blocks of mono float32 at 16 kHz; other arguments and errors as for `load`.

    Args:
        separate: Keep the channels separate: blocks are (samples, channels). Their number must not change within a file.
        max_seconds: The longest duration, which is checked while the source is decoded, whatever it declares.
    """
    reading = Reading(name_of(source), lenient, Notes() if notes is None else notes, separate=separate)
    try:
        with silent_decoders():
            seconds = 0.0
            for block in _blocks(source, sample_rate, reading):
                seconds += len(block) / SAMPLE_RATE
                if max_seconds is not None and seconds > max_seconds:
                    raise BadAudio(f"{reading.name} lasts more than {max_seconds:g} s, the limit", code="too_long")
                yield block
    except AffektError:
        raise
    except Exception as error:  # a decoder may raise anything for a damaged file
        raise BadAudio(f"{reading.name} cannot be decoded: {describe_error(error)}", code="undecodable") from error


def describe_error(error: Exception) -> str:
    """Return the type and the text of an unexpected error, on one line of limited length."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return f"{kind}: {text[:MAX_ERROR_TEXT]}" if text else kind


def _blocks(source: AudioSource, sample_rate: float | None, reading: Reading) -> Iterator[Waveform]:
    name = reading.name
    source, sample_rate = unpack(source, sample_rate)
    if isinstance(source, np.ndarray):
        source = np.asarray(source)  # a matrix always has two axes
        from affekt.audio.arrays import array_blocks, array_rate

        rate = array_rate(source, sample_rate, name)
        yield from to_mono(array_blocks(source, rate), rate, reading)
        return
    with _open_body(source, name) as stream:
        if sample_rate is not None:
            raise BadAudio(f"{name} has its own sample rate; sample_rate= is for arrays only", code="not_audio")
        yield from _file_blocks(stream, reading)


@contextmanager
def _open_body(source: Any, name: str) -> Iterator[IO[bytes]]:
    """Yield a source as a seekable stream without the tags at its beginning; raise an error in reading it afterwards."""
    with open_source(source, name) as stream:
        size = stream.seek(0, os.SEEK_END)
        start = skip_leading_tags(stream)
        body = ByteRange(stream, start if start < size else 0, size)  # a tag's size may be wrong
        with body.raise_failures():
            yield cast(IO[bytes], body)


def duration(path: Path, *, complete: bool = False) -> float:
    """Return the duration of a file in seconds: according to its headers, or to its frames where no header states it.

    Args:
        path: The file.
        complete: Raise an error for a file that is much shorter than its header declares.

    Raises:
        BadAudio: The file cannot be read.
        MissingExtra: Its format needs an extra.
    """
    name = name_of(path)
    try:
        with silent_decoders():
            return _duration(path, name, complete)
    except AffektError:
        raise
    except Exception as error:
        raise BadAudio(f"{name} cannot be decoded: {describe_error(error)}", code="undecodable") from error


def _duration(path: Path, name: str, complete: bool) -> float:
    reading = Reading(name, lenient=not complete)
    with _open_body(path, name) as stream:
        if complete:
            _check_truncation(stream, reading)
        seconds, media = 0.0, _is_media(stream, name)
        for part in divide(stream, reading, media=media):
            if media:
                from affekt.audio.media import media_duration, open_media

                with open_media(part.stream, name) as (container, rate):
                    check_rate(rate, name)
                    seconds += media_duration(container, rate, name)
                continue
            with open_sound(part.stream, name) as file:
                check_rate(file.samplerate, name)
                check_header(file, reading)
                seconds += sound_duration(file, name) if part.seconds is None else part.seconds
        return seconds


def _file_blocks(stream: IO[bytes], reading: Reading) -> Iterator[Waveform]:
    _check_truncation(stream, reading)
    decoded = _media_blocks if _is_media(stream, reading.name) else _sndfile_blocks
    seconds = 0.0
    for block in require_samples(decoded(stream, reading), reading.name):
        seconds += len(block) / SAMPLE_RATE
        yield block
    reading.settle(seconds)


def _check_truncation(stream: IO[bytes], reading: Reading) -> None:
    """Note that the container is shorter than it declares, or raise `BadAudio` if more is missing than is tolerated."""
    stream.seek(0)
    if truncation := find_truncation(stream, stream.read(HEAD)):
        reading.expect_loss(truncation.reason, truncation.fraction)


def _is_media(stream: IO[bytes], name: str) -> bool:
    """Return whether PyAV rather than libsndfile reads a stream."""
    stream.seek(0)
    return is_media(stream.read(HEAD)) or (Path(name).suffix.lower() in MEDIA_SUFFIXES and is_unknown(stream, name))


def _sndfile_blocks(stream: IO[bytes], reading: Reading) -> Iterator[Waveform]:
    for part in divide(stream, reading, media=False):
        with open_sound(part.stream, reading.name) as file:
            rate = file.samplerate
            frames = None if part.seconds is None else round(part.seconds * rate)
            yield from to_mono(decode(file, reading, frames), rate, reading)


def _media_blocks(stream: IO[bytes], reading: Reading) -> Iterator[Waveform]:
    from affekt.audio.media import decode_media, open_media

    for part in divide(stream, reading, media=True):
        with open_media(part.stream, reading.name) as (container, rate):
            yield from to_mono(decode_media(container, rate, reading), rate, reading)
