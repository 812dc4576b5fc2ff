"""Streams of callers that read in small pieces, fail or are not binary."""

import io
import os

import numpy as np
import pytest

from affekt.audio.read import load
from affekt.errors import BadAudio
from tests.sounds import RATE, encode_audio, encode_media, encode_mp3, noise, tone

WAVE = 0.4 * tone(1.0) + 0.2 * noise(RATE)


def encode(kind):
    return {
        "wav": lambda: encode_audio(WAVE),
        "flac": lambda: encode_audio(WAVE, format="FLAC"),
        "ogg": lambda: encode_audio(WAVE, format="OGG", subtype="VORBIS"),
        "mp3": lambda: encode_mp3(WAVE, RATE),
        "mp4": lambda: encode_media(WAVE, RATE, "mp4", "aac"),
    }[kind]()


class Slow(io.BytesIO):
    """A stream that reads fewer bytes than it is asked for, and returns nothing from `seek`."""

    def read(self, count=-1):
        return super().read(min(count, 777) if count > 0 else 777)

    def readinto(self, buffer):
        return super().readinto(memoryview(buffer)[:777])

    def seek(self, *position):
        super().seek(*position)


class Failing(io.BytesIO):
    """A stream that fails beyond a position."""

    failure: Exception = OSError(5, "Input/output error")

    def read(self, count=-1):
        data = super().read(count)
        if self.tell() > len(self.getvalue()) * 0.6:
            raise self.failure
        return data

    def readinto(self, buffer):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


KINDS = ("wav", "flac", "ogg", "mp3", "mp4")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_that_reads_in_small_pieces_is_read_whole(kind):
    data = encode(kind)
    assert np.array_equal(load(Slow(data)), load(data))


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_the_stream_is_neither_the_end_nor_printed(kind, lenient, capfd):
    with pytest.raises(BadAudio, match="cannot be read: Input/output error") as error:
        load(Failing(encode(kind)), lenient=lenient)
    assert error.value.code == "unreadable"
    assert capfd.readouterr() == ("", "")


def test_any_exception_of_a_stream_is_reported(capfd):
    stream = Failing(encode("wav"))
    stream.failure = RuntimeError("connection closed")
    with pytest.raises(BadAudio, match="cannot be read: connection closed"):
        load(stream)
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_prints_no_traceback(capfd):
    data = bytearray(encode("wav"))
    data[4:8] = data[40:44] = b"\xff" * 4
    load(bytes(data))
    mp4 = encode("mp4")
    for position in range(0, len(mp4), len(mp4) // 40):
        damaged = mp4[:position] + b"\xff\xff\xff\xff" + mp4[position + 4 :]
        try:
            load(damaged)
        except BadAudio:
            continue
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_stream_in_non_blocking_mode_is_not_called_empty():
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    with io.FileIO(read_end) as stream, pytest.raises(BadAudio, match="blocking mode") as error:
        load(stream)
    os.close(write_end)
    assert error.value.code == "unreadable"


def test_a_compressed_stream_that_was_cut_off_is_unreadable():
    gzip = pytest.importorskip("gzip")
    data = gzip.compress(encode("wav"))
    with pytest.raises(BadAudio, match="<stream> cannot be read: Compressed file ended"):
        load(gzip.GzipFile(fileobj=io.BytesIO(data[: len(data) // 2])))


def test_an_empty_path_is_missing():
    with pytest.raises(BadAudio, match="the path is empty") as error:
        load("")
    assert error.value.code == "missing"


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_matrix_is_an_array():
    assert np.array_equal(load(np.asmatrix(WAVE), RATE), load(WAVE, RATE))
