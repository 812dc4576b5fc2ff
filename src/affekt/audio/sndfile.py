"""Decode with libsndfile: WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, CAF and others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from affekt.audio.notes import Reading
from affekt.errors import BadAudio

if TYPE_CHECKING:
    import soundfile

BLOCK = 1 << 16
"""Samples read at a time."""
UNKNOWN_LENGTH = 0x7FFF_0000
"""Lengths of this size or more mean "unknown": a header written before the length was known (a pipe, a live recording)."""
DAMAGED = frozenset({3, 63, 65, 71, 89, 90, 101, 104, 105, 115, 127, 167})
"""Error codes of libsndfile (its src/common.h) for a known format whose header or audio is incomplete."""
UNKNOWN_FORMAT = 1
"""Error code of libsndfile for a file that it does not recognize."""
PADDING = 2 * 1152
"""Samples by which the length in a header may be off: an MP3's encoder adds a delay and padding, up to two frames."""


class UnknownFormat(BadAudio):
    """A file whose format libsndfile does not recognize."""


def open_sound(stream: IO[bytes], name: str) -> soundfile.SoundFile:
    """Open a stream with libsndfile.

    Raises:
        BadAudio: Libsndfile cannot open the stream.
        UnknownFormat: It does not recognize the format.
    """
    import soundfile

    try:
        return soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        if error.code in DAMAGED:
            raise BadAudio(f"{name} is damaged or cut off: {reason_of(error)}", code="truncated") from error
        kind = UnknownFormat if error.code == UNKNOWN_FORMAT else BadAudio
        raise kind(f"{name} is not readable audio: {reason_of(error)}", code="not_audio") from error
    except (TypeError, ValueError) as error:  # a headerless format, recognized by its suffix only
        raise BadAudio(f"{name} is not readable audio: {error}", code="not_audio") from error


def is_unknown(stream: IO[bytes], name: str) -> bool:
    """Return whether libsndfile does not recognize the format of a stream; its position is 0 afterwards."""
    stream.seek(0)
    try:
        open_sound(stream, name).close()
    except UnknownFormat:
        return True
    except BadAudio:
        pass
    finally:
        stream.seek(0)
    return False


def decode(file: soundfile.SoundFile, reading: Reading, frames: int | None = None) -> Iterator[NDArray[np.float32]]:
    """Yield blocks (frames, channels) of an open file.

    Args:
        file: The file, as `open_sound` returns it.
        reading: The reading that the file belongs to.
        frames: The number of frames that exist, if the file's own number is an estimate.

    Raises:
        BadAudio: The audio is damaged or cut off.
    """
    import soundfile

    check_header(file, reading)
    # soundfile would seek to its position after every block, which a FLAC of unknown length cannot do.
    file.seekable = lambda: False
    declared, read, rate = file.frames, 0, file.samplerate
    failure: soundfile.LibsndfileError | None = None
    # No more than the declared frames are read: a decoder may fail at a tag after the last frame.
    while failure is None and (count := min(block_frames(rate, file.channels), declared - read)) > 0:
        block = np.full((count, file.channels), np.nan, np.float32)
        try:
            block = file.read(out=block)
        except soundfile.LibsndfileError as error:
            failure = error
            block = block[: _count_decoded_frames(block)]
        read += len(block)
        if not len(block):
            break
        yield block
    expected = (declared if declared < UNKNOWN_LENGTH else None) if frames is None else frames
    total = read if expected is None else max(read, expected)
    lost = None if expected is None else (total - read) / rate
    if failure is not None:
        reason = f"reading stopped after {read / rate:.2f} s ({reason_of(failure)})"
        reading.report_loss(reason, lost, total / rate, cut=False, cause=failure)
    elif total > read + PADDING:
        declares = f"its header declares {total / rate:.2f} s, but only {read / rate:.2f} s exist"
        reading.report_loss(declares, lost, total / rate)


def sound_duration(file: soundfile.SoundFile, name: str) -> float:
    """Return the duration of an open file in seconds; a file whose header does not state it is decoded."""
    frames = file.frames
    if frames >= UNKNOWN_LENGTH:
        frames = sum(map(len, decode(file, Reading(name, lenient=True))))
    return float(frames / file.samplerate)


def block_frames(rate: int, channels: int) -> int:
    """Return the number of frames to read at a time.

    It is smaller with many channels, and with a low sample rate, since a frame then becomes many samples at 16 kHz.
    """
    return max(1, min(BLOCK // channels, 4 * rate))


def _count_decoded_frames(block: NDArray[np.float32]) -> int:
    """Return the number of frames that a decoder wrote into a block of NaN before it failed."""
    missing = np.isnan(block).any(axis=1)
    return int(missing.argmax()) if missing.any() else len(block)


def check_header(file: soundfile.SoundFile, reading: Reading) -> None:
    """Note or raise that the file is shorter than its header declares, if libsndfile's log says so.

    libsndfile itself reads the part that exists, without an error.
    """
    log: str = file.extra_info
    for field, claimed, present in re.findall(r"^\s*([\w ]+?)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        container = field.lower() in {"riff", "form", "riff size"} and file.format not in {"W64", "RF64"}
        # The container's size is often stale or off by a padding byte; only the audio chunk's size counts.
        if not container and int(present) < int(claimed) < UNKNOWN_LENGTH:
            reason = f"its header declares {claimed} bytes of audio, but only {present} exist"
            seconds = file.frames / file.samplerate
            total = seconds * int(claimed) / int(present) if int(present) else 0.0
            reading.report_loss(reason, total - seconds if total else None, total)
            return
    if re.search(r"^(\*\*\* File seems to be|Seems to be a) truncated", log, re.MULTILINE):
        reading.report_loss("its header declares more audio than exists")


def reason_of(error: Exception) -> str:
    """Return the message of an error of the system, libsndfile or ffmpeg, without the file's name."""
    if getattr(error, "code", None) == 7:  # libsndfile reports "file not found" if a decoder fails
        return "the decoder found no audio data"
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None)
    return str(reason or error).rstrip(".")
