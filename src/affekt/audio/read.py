"""From a file, bytes or an array to mono float32 at 16 kHz, a block at a time, so that memory does not grow with length.

soundfile reads what libsndfile knows (WAV, FLAC, OGG, Opus, MP3, AIFF, AU, CAF, ...); PyAV, from the extra `media`, reads
m4a, mp4, webm and their like; soxr resamples.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from affekt.audio.containers import DEMUXERS, HEAD, cut_off, is_media
from affekt.errors import BadAudio
from affekt.extras import need

if TYPE_CHECKING:
    import soundfile

Waveform = NDArray[np.float32]  # (samples,), mono, at SAMPLE_RATE
Source = str | PathLike[str] | bytes | IO[bytes] | NDArray[Any]

SAMPLE_RATE = 16_000  # Hz
SHORTEST = 0.1  # seconds
BLOCK = 1 << 16  # samples read at a time
LOUDEST = 1e12  # full scale is 1; beyond this a spectrum's power overflows float32

# What can be wrong with a source, as `BadAudio.code`, in the rows that `affekt recognize` writes, and in the docs.
CODES = {
    "missing": "there is no such file",
    "unreadable": "the file exists, but cannot be opened",
    "empty": "no bytes, or no samples",
    "not_audio": "not a format that can be read, or not numbers that can be sound",
    "truncated": "damaged, or shorter than its header says",
    "not_finite": "holds NaN, infinite or impossibly large samples",
    "too_short": f"shorter than {SHORTEST} s",
    "folder": "a folder: for the command line, one without audio files below it",
    "missing_extra": "the format needs an extra that is not installed",
}

# By their suffix, files that a folder is searched for.
SNDFILE_SUFFIXES = {".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".ircam", ".mp3", ".nist", ".oga", ".ogg"}
SNDFILE_SUFFIXES |= {".opus", ".paf", ".rf64", ".snd", ".sph", ".voc", ".w64", ".wav", ".wave", ".wve"}
MEDIA_SUFFIXES = {".3gp", ".aac", ".amr", ".avi", ".flv", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp4"}
MEDIA_SUFFIXES |= {".mpeg", ".mpg", ".webm", ".wma", ".wmv"}
SUFFIXES = SNDFILE_SUFFIXES | MEDIA_SUFFIXES

# A header written before the length was known (a pipe, a live recording) says "as much as fits".
UNKNOWN_LENGTH = 0x7FFF_0000
# libsndfile's codes (its src/common.h) for a file that it knows, and whose header or sound is not all there.
DAMAGED = frozenset({3, 63, 65, 71, 89, 90, 101, 104, 105, 115, 127, 167})


def load(source: Source, sample_rate: int | None = None) -> Waveform:
    """The whole source as (samples,) float32, mono, at 16 kHz.

    source: a path, bytes or a binary file object holding an audio file, or an array (samples,) or (samples, channels):
        floats as they are (full scale is 1), integers scaled by their type's range.
    sample_rate: of an array, in Hz; a file brings its own.
    Raises `BadAudio` (see CODES) and `MissingExtra`.
    """
    waveform = np.concatenate([np.zeros(0, np.float32), *blocks(source, sample_rate)])
    check_length(waveform.size, name_of(source))
    return waveform


def check_length(samples: int, name: str) -> None:
    """Raise `BadAudio` if so few samples at 16 kHz are too short to be recognised."""
    if samples < SHORTEST * SAMPLE_RATE:
        raise BadAudio(
            f"{name} lasts {samples / SAMPLE_RATE:.3f} s; at least {SHORTEST} s of sound are needed", code="too_short"
        )


def blocks(source: Source, sample_rate: int | None = None) -> Iterator[Waveform]:
    """The source as consecutive pieces of mono float32 at 16 kHz; arguments and errors as for `load`."""
    name = name_of(source)
    if isinstance(source, np.ndarray):
        rate = _array_rate(source, sample_rate, name)
        yield from _converted(_array_blocks(source, rate), rate, name)
        return
    with _opened(source, name) as stream:
        if sample_rate is not None:
            raise BadAudio(f"{name} brings its own sample rate; sample_rate= is for arrays only", code="not_audio")
        yield from _file_blocks(stream, name)


def name_of(source: Source) -> str:
    """What a source is called in rows and messages; bytes of a path that are no Unicode are written as escapes."""
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
def _opened(source: Any, name: str) -> Iterator[IO[bytes]]:
    """A seekable stream at its beginning. What was opened here is closed here; a stream of the caller's stays open."""
    with ExitStack() as ours:
        if isinstance(source, bytes | bytearray | memoryview):
            stream: IO[bytes] = io.BytesIO(source)
        elif isinstance(source, str | PathLike):
            stream = ours.enter_context(_opened_path(source, name))
        elif hasattr(source, "read") and not isinstance(source, io.TextIOBase):
            stream = source
        else:
            raise BadAudio(
                f"{type(source).__name__} is not audio: expected a path, bytes, a file opened in mode 'rb' or a numpy array",
                code="not_audio",
            )
        try:
            if not (hasattr(stream, "seekable") and stream.seekable()):
                stream = ours.enter_context(_spooled(stream))
            stream.seek(0)
            first = stream.read(1)
        except (OSError, ValueError) as error:
            raise BadAudio(f"{name} cannot be read: {_reason(error)}", code="unreadable") from error
        if not first:
            raise BadAudio(f"{name} is empty (0 bytes)", code="empty")
        yield stream


def _opened_path(path: str | PathLike[str], name: str) -> IO[bytes]:
    if is_folder(path):
        raise BadAudio(
            f"{name} is a folder: expected an audio file, or for the command line a folder that holds some",
            code="folder",
        )
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise BadAudio(f"{name} does not exist", code="missing") from None
    except OSError as error:
        raise BadAudio(f"{name} cannot be opened: {_reason(error)}", code="unreadable") from error
    except ValueError as error:  # a NUL in the path
        raise BadAudio(f"{name!r} is no path: {error}", code="missing") from error


def _spooled(stream: IO[bytes]) -> IO[bytes]:
    """A pipe or a socket as a file that can be sought in, and that does not stay in memory if it is long."""
    copy = tempfile.SpooledTemporaryFile(max_size=1 << 24)  # noqa: SIM115 (the caller closes it)
    shutil.copyfileobj(stream, copy)
    return cast(IO[bytes], copy)


def _file_blocks(stream: IO[bytes], name: str) -> Iterator[Waveform]:
    import soundfile

    stream.seek(0)
    head = stream.read(HEAD)
    if how := cut_off(stream, head):
        raise BadAudio(f"{name} is cut off: {how}", code="truncated")
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
        raise BadAudio(f"{name} is not audio that can be read: {_reason(error)}", code="not_audio") from error
    except (TypeError, ValueError) as error:  # a raw format, known by its suffix only
        raise BadAudio(f"{name} is not audio that can be read: {error}", code="not_audio") from error
    with file:
        _check_header(file, name)
        yield from _converted(_sndfile_blocks(file, name), file.samplerate, name)


def _check_header(file: soundfile.SoundFile, name: str) -> None:
    """Find, in libsndfile's log, a file that is shorter than its header says: libsndfile itself reads what is there."""
    log: str = file.extra_info
    for field, claimed, present in re.findall(r"^\s*([\w ]+?)\s*: (\d+) \(should be (\d+)\)", log, re.MULTILINE):
        container = field.lower() in {"riff", "form", "riff size"} and file.format not in {"W64", "RF64"}
        # A container's size is often off by a padding byte or stale; the sound's own chunk is what counts.
        if not container and int(present) < int(claimed) < UNKNOWN_LENGTH:
            raise BadAudio(
                f"{name} is cut off: its header promises {claimed} bytes of sound, {present} are there",
                code="truncated",
            )
    if re.search(r"^(\*\*\* File seems to be|Seems to be a) truncated", log, re.MULTILINE):
        raise BadAudio(f"{name} is cut off: its header promises more sound than is there", code="truncated")


def _sndfile_blocks(file: soundfile.SoundFile, name: str) -> Iterator[NDArray[np.float32]]:
    import soundfile

    # soundfile would seek to where it is after every block, which a FLAC of unknown length cannot do.
    file.seekable = lambda: False
    expected, read, rate = file.frames, 0, file.samplerate
    try:
        while len(block := file.read(_at_once(rate, file.channels), dtype="float32", always_2d=True)):
            read += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        raise BadAudio(
            f"{name} is damaged or cut off: reading stopped after {read / rate:.2f} s ({_reason(error)})",
            code="truncated",
        ) from error
    # An MP3's header may be off by an encoder's padding: two of its frames are not yet a loss.
    if read + 2 * 1152 < expected < UNKNOWN_LENGTH:
        raise BadAudio(
            f"{name} is cut off: its header promises {expected / rate:.2f} s, {read / rate:.2f} s are there",
            code="truncated",
        )


def _at_once(rate: int, channels: int) -> int:
    """The frames of a block: few where there are many channels, or where each makes many samples at 16 kHz."""
    return max(1, min(BLOCK // channels, 4 * rate))


def _media_blocks(stream: IO[bytes], name: str) -> Iterator[Waveform]:
    av = need("av", extra="media", purpose=f"reading {name}")
    try:
        container = av.open(stream, options={"format_whitelist": DEMUXERS})
    except av.FFmpegError as error:
        raise BadAudio(f"{name} is not audio that can be read: {_reason(error)}", code="not_audio") from error
    with container:
        context = container.streams.audio[0].codec_context if container.streams.audio else None
        if context is None or not context.sample_rate:
            raise BadAudio(f"{name} has no sound track that can be read", code="not_audio")
        rate = int(context.sample_rate)
        yield from _converted(_av_blocks(av, container, rate, name), rate, name)


def _av_blocks(av: Any, container: Any, rate: int, name: str) -> Iterator[NDArray[np.float32]]:
    planes = av.AudioResampler(format="fltp", rate=rate)
    try:
        for frame in container.decode(audio=0):
            yield from (part.to_ndarray().T for part in planes.resample(frame))
        yield from (part.to_ndarray().T for part in planes.resample(None))
    except (av.FFmpegError, ValueError) as error:  # ValueError: the channels change on the way
        raise BadAudio(f"{name} is damaged or cut off: {_reason(error)}", code="truncated") from error


def _array_rate(array: NDArray[Any], sample_rate: int | None, name: str) -> int:
    """The rate of an array, once the array is known to be one that can be sound."""
    if sample_rate is None:
        raise BadAudio(f"{name} comes without its rate: pass sample_rate=, in Hz", code="not_audio")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, int | np.integer) or sample_rate <= 0:
        raise BadAudio(f"sample_rate {sample_rate!r}: expected a positive whole number of Hz", code="not_audio")
    if array.ndim not in (1, 2):
        raise BadAudio(f"{name} has {array.ndim} axes; expected (samples,) or (samples, channels)", code="not_audio")
    if array.size == 0:
        raise BadAudio(f"{name} is empty (0 samples)", code="empty")
    if array.dtype.kind not in "fiu":
        raise BadAudio(f"{name} holds {array.dtype}; expected floats or integers", code="not_audio")
    if array.dtype.itemsize > 4 and array.dtype.kind in "iu":
        raise BadAudio(
            f"{name} holds {array.dtype}, whose full scale no sound has; pass int16, int32 or floats", code="not_audio"
        )
    if array.dtype == np.int32 and 0 < np.abs(array).max() <= 1 << 15:
        raise BadAudio(
            f"{name} holds 16-bit samples in int32, where they are silence; pass int16 or floats", code="not_audio"
        )
    return int(sample_rate)


def _array_blocks(array: NDArray[Any], rate: int) -> Iterator[NDArray[np.float32]]:
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # (channels, samples), as torch's users write it: the longer axis is time
    frames = array.reshape(len(array), -1)
    step = _at_once(rate, frames.shape[1])
    for start in range(0, len(frames), step):
        block = frames[start : start + step]
        if block.dtype.kind == "f":
            with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is found later
                block = block.astype(np.float32)
            yield block
        else:
            info = np.iinfo(block.dtype)
            half = (int(info.max) - int(info.min) + 1) / 2
            yield ((block.astype(np.float64) - (half + int(info.min))) / half).astype(np.float32)


def _converted(parts: Iterator[NDArray[np.float32]], rate: int, name: str) -> Iterator[Waveform]:
    """(samples, channels) at the source's rate -> (samples,) at 16 kHz, checked for what is no sound."""
    import soxr

    resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    read, offset = 0, np.float32(0)
    for part in parts:
        if not (part.min() > -LOUDEST and part.max() < LOUDEST):  # a NaN is neither
            where = read + int(np.argmin((np.abs(part) < LOUDEST).all(axis=1)))
            raise BadAudio(
                f"{name} holds NaN, infinite or impossibly large samples, the first at {where / rate:.3f} s",
                code="not_finite",
            )
        mono = part[:, 0] if part.shape[1] == 1 else part.mean(axis=1)
        if resampler is None:
            yield mono
        else:
            # About its first sample: an offset, to a filter that expects zeros before the beginning, is a click.
            offset = offset if read else mono[0]
            yield resampler.resample_chunk(mono - offset) + offset
        read += len(part)
    if not read:
        raise BadAudio(f"{name} is empty: a header without samples", code="empty")
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True) + offset


def _reason(error: Exception) -> str:
    """What an error of the system's, of libsndfile's or of ffmpeg's says, without the file's name."""
    if getattr(error, "code", None) == 7:  # libsndfile speaks of a missing file where it means a decoder's failure
        return "its decoder finds nothing to decode"
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None)
    return str(reason or error).rstrip(".")


def is_folder(path: str | PathLike[str]) -> bool:
    """As Path.is_dir, which before Python 3.14 raises where a name is too long or its folder shut."""
    return os.path.isdir(path)  # noqa: PTH112


def find_files(folder: Path) -> list[Path]:
    """The audio files below a folder, by their suffix, in order; hidden files and folders are passed over."""
    found: list[Path] = []

    def keep(error: OSError) -> None:  # a folder that cannot be looked into is not passed over: it becomes an error
        found.append(Path(error.filename))

    for root, folders, files in os.walk(folder, onerror=keep):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        audible = (name for name in sorted(files) if Path(name).suffix.lower() in SUFFIXES)
        found.extend(Path(root, name) for name in audible if not name.startswith("."))
    return found
