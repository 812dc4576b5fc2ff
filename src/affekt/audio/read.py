"""Read a file, bytes or an array as mono float32 at 16 kHz, in blocks, so that memory does not grow with length.

soundfile reads the formats of libsndfile (WAV, FLAC, OGG, Opus, MP3, AIFF, AU, CAF, ...); PyAV, from the extra `media`,
reads m4a, mp4, webm, FLAC and Speex in Ogg, AC-3, WavPack, TTA and similar formats; soxr resamples.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from affekt.audio.containers import DEMUXERS, HEAD, find_truncation, is_media
from affekt.audio.sources import named_part, unpack
from affekt.errors import BadAudio
from affekt.extras import need

if TYPE_CHECKING:
    import soundfile

Waveform = NDArray[np.float32]
"""(samples,), mono, at SAMPLE_RATE."""
AudioSource = str | PathLike[str] | bytes | IO[bytes] | NDArray[Any] | tuple[NDArray[Any], int] | Mapping[str, Any]
"""A path, the bytes or a binary file object of an audio file, an array, a pair (array, sample_rate), or a dictionary of the
library `datasets`: {"array", "sampling_rate"} or {"bytes", "path"}."""

SAMPLE_RATE = 16_000
"""Hz."""
SHORTEST = 0.1
"""Minimum duration of usable audio, in seconds."""
BLOCK = 1 << 16
"""Samples read at a time."""
SILENCE_RANGE = 2.0**-15
"""One step of 16-bit audio. A waveform whose range of values is smaller is digital silence."""
MAX_AMPLITUDE = 1e12
"""Limit of the absolute value of a sample; full scale is 1. Beyond this the power of a spectrum overflows float32."""

CODES = {
    "missing": "there is no such file",
    "unreadable": "the file exists, but cannot be opened",
    "empty": "no bytes, or no samples",
    "not_audio": "an unsupported format, or an array that cannot be audio",
    "truncated": "damaged, or shorter than its header declares",
    "not_finite": "has NaN, infinite or impossibly large samples",
    "too_short": f"shorter than {SHORTEST} s",
    "folder": "a folder instead of a file; on the command line, a folder without audio files",
    "missing_extra": "the format needs an extra that is not installed",
}
"""The meaning of each `BadAudio.code`: used in the rows of `affekt recognize` and in the docs."""

SNDFILE_SUFFIXES = {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".ircam", ".mp3", ".nist", ".oga", ".ogg"}
SNDFILE_SUFFIXES |= {".opus", ".paf", ".rf64", ".snd", ".sph", ".voc", ".w64", ".wav", ".wave", ".wve"}
MEDIA_SUFFIXES = {".3gp", ".aac", ".amr", ".avi", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4"}
MEDIA_SUFFIXES |= {".mpeg", ".mpg", ".webm", ".wma", ".wmv"}
MEDIA_SUFFIXES |= {".ac3", ".ec3", ".eac3", ".spx", ".tta", ".wv"}
SUFFIXES = SNDFILE_SUFFIXES | MEDIA_SUFFIXES
"""Suffixes by which audio files are recognized in a folder."""

UNKNOWN_LENGTH = 0x7FFF_0000
"""Lengths of this size or more mean "unknown": a header written before the length was known (a pipe, a live recording)."""
DAMAGED = frozenset({3, 63, 65, 71, 89, 90, 101, 104, 105, 115, 127, 167})
"""Error codes of libsndfile (its src/common.h) for a known format whose header or audio is incomplete."""


def load(source: AudioSource, sample_rate: int | None = None) -> Waveform:
    """Read a whole source as (samples,) float32, mono, at 16 kHz.

    Args:
        source: A path, or the bytes or a binary file object of an audio file, or an array (samples,) or (samples, channels):
            floats are used as they are (full scale is 1), integers are scaled by the range of their type. An array and its
            rate may also be a pair or a dictionary (`AudioSource`).
        sample_rate: Sample rate of an array, in Hz; files have their own.

    Raises:
        BadAudio: The source cannot be read or is unusable; `code` is one of CODES.
        MissingExtra: The format needs an extra.
    """
    waveform = np.concatenate([np.zeros(0, np.float32), *blocks(source, sample_rate)])
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


def blocks(source: AudioSource, sample_rate: int | None = None) -> Iterator[Waveform]:
    """Yield the source as consecutive blocks of mono float32 at 16 kHz; arguments and errors as for `load`."""
    name = name_of(source)
    source, sample_rate = unpack(source, sample_rate)
    if isinstance(source, np.ndarray):
        rate = _array_rate(source, sample_rate, name)
        yield from _convert(_array_blocks(source, rate), rate, name)
        return
    with _open(source, name) as stream:
        if sample_rate is not None:
            raise BadAudio(f"{name} has its own sample rate; sample_rate= is for arrays only", code="not_audio")
        yield from _file_blocks(stream, name)


def name_of(source: AudioSource) -> str:
    """Return the name of a source in rows and messages; bytes of a path that are not valid Unicode are escaped."""
    source = named_part(source)
    if isinstance(source, str | PathLike):
        name: Any = os.fspath(source)
    elif isinstance(source, np.ndarray):
        name = "<array>"
    elif isinstance(source, bytes | bytearray | memoryview):
        name = "<bytes>"
    else:
        name = getattr(source, "name", None)
    name = name if isinstance(name, str) else "<stream>"
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def _open(source: Any, name: str) -> Iterator[IO[bytes]]:
    """Yield a seekable stream, at any position. Streams opened here are closed; the caller's stream stays open."""
    with ExitStack() as stack:
        if isinstance(source, bytes | bytearray | memoryview):
            stream: IO[bytes] = io.BytesIO(source)
        elif isinstance(source, str | PathLike):
            stream = stack.enter_context(_open_path(source, name))
        elif hasattr(source, "read") and not isinstance(source, io.TextIOBase):
            stream = source
        else:
            raise BadAudio(
                f"{type(source).__name__} is not audio: expected a path, bytes, a file opened in mode 'rb', a numpy "
                "array with its sample rate or a dictionary of `datasets`",
                code="not_audio",
            )
        try:
            if not (hasattr(stream, "seekable") and stream.seekable()):
                stream = stack.enter_context(_spool(stream))
            stream.seek(0)
            first = stream.read(1)
        except (OSError, ValueError) as error:
            raise BadAudio(f"{name} cannot be read: {_reason(error)}", code="unreadable") from error
        if not first:
            raise BadAudio(f"{name} is empty (0 bytes)", code="empty")
        yield stream


def _open_path(path: str | PathLike[str], name: str) -> IO[bytes]:
    if is_folder(path):
        raise BadAudio(
            f"{name} is a folder: expected an audio file or, on the command line, a folder with audio files",
            code="folder",
        )
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise BadAudio(f"{name} does not exist", code="missing") from None
    except OSError as error:
        raise BadAudio(f"{name} cannot be opened: {_reason(error)}", code="unreadable") from error
    except ValueError as error:  # a NUL in the path
        raise BadAudio(f"{name!r} is not a valid path: {error}", code="missing") from error


def _spool(stream: IO[bytes]) -> IO[bytes]:
    """Copy a pipe or socket to a seekable temporary file, on disk if it is long."""
    copy = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115 (the caller closes it)
    shutil.copyfileobj(stream, copy)
    return cast(IO[bytes], copy)


def _file_blocks(stream: IO[bytes], name: str) -> Iterator[Waveform]:
    import soundfile

    stream.seek(0)
    head = stream.read(HEAD)
    if reason := find_truncation(stream, head):
        raise BadAudio(f"{name} is cut off: {reason}", code="truncated")
    stream.seek(0)
    if is_media(head):
        yield from _media_blocks(stream, name)
        return
    try:
        file = soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        if error.code == 1 and Path(name).suffix.lower() in MEDIA_SUFFIXES:
            stream.seek(0)
            yield from _media_blocks(stream, name)
            return
        if error.code in DAMAGED:
            raise BadAudio(f"{name} is damaged or cut off: {_reason(error)}", code="truncated") from error
        raise BadAudio(f"{name} is not readable audio: {_reason(error)}", code="not_audio") from error
    except (TypeError, ValueError) as error:  # a headerless format, recognized by its suffix only
        raise BadAudio(f"{name} is not readable audio: {error}", code="not_audio") from error
    with file:
        _check_header(file, name)
        yield from _convert(_sndfile_blocks(file, name), file.samplerate, name)


def _check_header(file: soundfile.SoundFile, name: str) -> None:
    """Raise `BadAudio` if libsndfile's log says that the file is shorter than its header declares.

    libsndfile itself reads the part that exists, without an error.
    """
    log: str = file.extra_info
    for field, claimed, present in re.findall(r"^\s*([\w ]+?)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        container = field.lower() in {"riff", "form", "riff size"} and file.format not in {"W64", "RF64"}
        # The container's size is often stale or off by a padding byte; only the audio chunk's size counts.
        if not container and int(present) < int(claimed) < UNKNOWN_LENGTH:
            raise BadAudio(
                f"{name} is cut off: its header declares {claimed} bytes of audio, but only {present} exist",
                code="truncated",
            )
    if re.search(r"^(\*\*\* File seems to be|Seems to be a) truncated", log, re.MULTILINE):
        raise BadAudio(f"{name} is cut off: its header declares more audio than exists", code="truncated")


def _sndfile_blocks(file: soundfile.SoundFile, name: str) -> Iterator[NDArray[np.float32]]:
    import soundfile

    # soundfile would seek to its position after every block, which a FLAC of unknown length cannot do.
    file.seekable = lambda: False
    expected, read, rate = file.frames, 0, file.samplerate
    try:
        while len(block := file.read(_block_frames(rate, file.channels), dtype="float32", always_2d=True)):
            read += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        raise BadAudio(
            f"{name} is damaged or cut off: reading stopped after {read / rate:.2f} s ({_reason(error)})",
            code="truncated",
        ) from error
    # An MP3's header may be off by the encoder's padding: up to two of its frames are tolerated.
    if read + 2 * 1152 < expected < UNKNOWN_LENGTH:
        raise BadAudio(
            f"{name} is cut off: its header declares {expected / rate:.2f} s, but only {read / rate:.2f} s exist",
            code="truncated",
        )


def _block_frames(rate: int, channels: int) -> int:
    """Return the number of frames to read at a time.

    It is smaller with many channels, and with a low sample rate, since a frame then becomes many samples at 16 kHz.
    """
    return max(1, min(BLOCK // channels, 4 * rate))


def _media_blocks(stream: IO[bytes], name: str) -> Iterator[Waveform]:
    av = need("av", extra="media", purpose=f"reading {name}")
    try:
        container = av.open(stream, options={"format_whitelist": DEMUXERS})
    except av.FFmpegError as error:
        raise BadAudio(f"{name} is not readable audio: {_reason(error)}", code="not_audio") from error
    with container:
        context = container.streams.audio[0].codec_context if container.streams.audio else None
        if context is None or not context.sample_rate:
            raise BadAudio(f"{name} has no readable audio track", code="not_audio")
        rate = int(context.sample_rate)
        yield from _convert(_av_blocks(av, container, rate, name), rate, name)


def _av_blocks(av: Any, container: Any, rate: int, name: str) -> Iterator[NDArray[np.float32]]:
    resampler = av.AudioResampler(format="fltp", rate=rate)
    try:
        for frame in container.decode(audio=0):
            yield from (block.to_ndarray().T for block in resampler.resample(frame))
        yield from (block.to_ndarray().T for block in resampler.resample(None))
    except (av.FFmpegError, ValueError) as error:  # ValueError: the number of channels changes
        raise BadAudio(f"{name} is damaged or cut off: {_reason(error)}", code="truncated") from error


def _array_rate(array: NDArray[Any], sample_rate: int | None, name: str) -> int:
    """Return the sample rate of an array, after checking that it can be audio."""
    if sample_rate is None:
        raise BadAudio(f"{name} has no sample rate: pass sample_rate=, in Hz", code="not_audio")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int | np.integer) or sample_rate <= 0:
        raise BadAudio(f"sample_rate {sample_rate!r}: expected a positive whole number of Hz", code="not_audio")
    if array.ndim not in (1, 2):
        raise BadAudio(f"{name} has {array.ndim} axes; expected (samples,) or (samples, channels)", code="not_audio")
    if array.size == 0:
        raise BadAudio(f"{name} is empty (0 samples)", code="empty")
    if array.dtype.kind not in "fiu":
        raise BadAudio(f"{name} has dtype {array.dtype}; expected floats or integers", code="not_audio")
    if array.dtype.itemsize > 4 and array.dtype.kind in "iu":
        raise BadAudio(
            f"{name} has dtype {array.dtype}, but audio has at most 32 bits per integer; pass int16, int32 or floats",
            code="not_audio",
        )
    if array.dtype == np.int32 and 0 < np.abs(array).max() <= 1 << 15:
        raise BadAudio(
            f"{name} has 16-bit values in int32, which would be almost silent; convert them to int16 or floats",
            code="not_audio",
        )
    return int(sample_rate)


def _array_blocks(array: NDArray[Any], rate: int) -> Iterator[NDArray[np.float32]]:
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # (channels, samples), as in torch: the longer axis is time
    frames = array.reshape(len(array), -1)
    step = _block_frames(rate, frames.shape[1])
    for start in range(0, len(frames), step):
        block = frames[start : start + step]
        if block.dtype.kind == "f":
            with np.errstate(over="ignore"):  # values too large for float32 become infinite, which is checked later
                block = block.astype(np.float32)
            yield block
        else:
            info = np.iinfo(block.dtype)
            half = (int(info.max) - int(info.min) + 1) / 2
            yield ((block.astype(np.float64) - (half + int(info.min))) / half).astype(np.float32)


def _convert(source_blocks: Iterator[NDArray[np.float32]], rate: int, name: str) -> Iterator[Waveform]:
    """Convert blocks (samples, channels) at this sample rate to (samples,) at 16 kHz, and check their values."""
    import soxr

    resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    read, offset = 0, np.float32(0)
    for block in source_blocks:
        if not (block.min() > -MAX_AMPLITUDE and block.max() < MAX_AMPLITUDE):  # also false for NaN
            position = read + int(np.argmin((np.abs(block) < MAX_AMPLITUDE).all(axis=1)))
            raise BadAudio(
                f"{name} has NaN, infinite or impossibly large samples, the first at {position / rate:.3f} s",
                code="not_finite",
            )
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        if resampler is None:
            yield mono
        else:
            # Resample relative to the first sample: the filter assumes zeros before it, so a DC offset would cause a click.
            offset = offset if read else mono[0]
            yield resampler.resample_chunk(mono - offset) + offset
        read += len(block)
    if not read:
        raise BadAudio(f"{name} is empty: a header without samples", code="empty")
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True) + offset


def _reason(error: Exception) -> str:
    """Return the message of an error of the system, libsndfile or ffmpeg, without the file's name."""
    if getattr(error, "code", None) == 7:  # libsndfile reports "file not found" if a decoder fails
        return "the decoder found no audio data"
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None)
    return str(reason or error).rstrip(".")


def is_folder(path: str | PathLike[str]) -> bool:
    """Return whether a path is a folder.

    Unlike `Path.is_dir` before Python 3.14, this does not raise if the name is too long or its folder is not accessible.
    """
    return os.path.isdir(path)  # noqa: PTH112


def find_files(folder: Path) -> list[Path]:
    """Return the files below a folder that have a suffix of an audio file, sorted. Hidden files and folders are skipped."""
    paths: list[Path] = []

    def add_inaccessible(error: OSError) -> None:
        # An inaccessible folder is not skipped, so that reading it raises an error.
        paths.append(Path(error.filename))

    for root, folders, files in os.walk(folder, onerror=add_inaccessible):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        audio_names = (name for name in sorted(files) if Path(name).suffix.lower() in SUFFIXES)
        paths.extend(Path(root, name) for name in audio_names if not name.startswith("."))
    return paths
