"""Decoders that fail in unexpected ways, hang, or write to standard error; and special files in folders."""

import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from affekt.audio import media, read, time_limit
from affekt.audio.read import CODES, blocks, find_files, load
from affekt.audio.time_limit import limited_blocks
from affekt.errors import BadAudio
from tests.sounds import encode_audio, encode_media, noise, peak_frequency, tone

# What a decoder may raise


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RecursionError("too deep"),
        UnicodeDecodeError("utf-8", b"\xb8", 0, 1, "invalid start byte"),
        OSError(22, "Invalid argument"),
        SystemError("NULL result without error"),
        AssertionError("this\nshould not happen"),
        ZeroDivisionError("division by zero"),
        OverflowError("x" * 10_000),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("blocks_before", [0, 1])
def test_whatever_a_decoder_raises_is_bad_audio(monkeypatch, error, blocks_before):
    def fail(*_):
        yield from [np.zeros(1600, np.float32)] * blocks_before
        raise error

    monkeypatch.setattr(read, "_file_blocks", fail)
    with pytest.raises(BadAudio, match=f"<bytes> cannot be decoded: {type(error).__name__}") as raised:
        load(b"audio")
    assert raised.value.code == "undecodable"
    assert raised.value.code in CODES
    assert raised.value.__cause__ is error
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_ctrl_c_is_not_taken_for_an_error_of_the_decoder(monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt("pressed")
        yield

    monkeypatch.setattr(read, "_file_blocks", fail)
    with pytest.raises(KeyboardInterrupt, match="pressed"):
        load(b"audio")


def test_a_tag_in_another_encoding_does_not_prevent_reading():
    data = encode_media(tone(1, 48_000), 48_000, "ipod", "aac")
    start = data.index(b"Lavf")
    damaged = data[:start] + b"\xb8\xc6\xff\xfe" + data[start + 4 :]
    np.testing.assert_array_equal(load(damaged), load(data))


# Time limit


def test_limited_blocks_are_the_blocks_of_the_source():
    data = encode_audio(noise(200_000), rate=22_050)
    limited, unlimited = list(limited_blocks(data, timeout=60)), list(blocks(data))
    assert len(limited) == len(unlimited) > 2
    for block, expected in zip(limited, unlimited, strict=True):
        np.testing.assert_array_equal(block, expected)


@pytest.fixture
def abandoned(monkeypatch):
    """Return the list of abandoned decoders, which is empty at first."""
    monkeypatch.setattr(time_limit, "_abandoned", [])
    return time_limit._abandoned


@pytest.mark.parametrize("blocks_before", [0, 2])
def test_a_decoder_that_hangs_is_abandoned_at_the_limit(monkeypatch, abandoned, blocks_before):
    end = threading.Event()

    def hang(*_):
        yield from [np.zeros(1600, np.float32)] * blocks_before
        end.wait()

    monkeypatch.setattr(read, "_file_blocks", hang)
    start, received = time.monotonic(), []
    with pytest.raises(
        BadAudio, match=r"<bytes> was not read within the time limit of 0\.2 s; raise the limit"
    ) as raised:
        received.extend(limited_blocks(b"audio", timeout=0.2))
    assert raised.value.code == "timeout"
    assert 0.2 <= time.monotonic() - start < 5
    assert time_limit.decoders_are_abandoned()
    end.set()
    (thread,) = abandoned
    thread.join(5)
    assert not time_limit.decoders_are_abandoned()


def test_a_source_without_end_is_given_up_at_the_limit(monkeypatch, abandoned):
    def repeat(*_):
        while True:
            yield np.zeros(1600, np.float32)

    monkeypatch.setattr(read, "_file_blocks", repeat)
    with pytest.raises(BadAudio, match="time limit"):
        for _ in limited_blocks(b"audio", timeout=0.2, with_consumer=True):
            pass
    for thread in abandoned:
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.usefixtures("abandoned")
@pytest.mark.parametrize("with_consumer", [False, True])
def test_the_time_of_the_consumer_counts_only_if_asked(with_consumer):
    limited = limited_blocks(encode_audio(noise(200_000)), timeout=0.3, with_consumer=with_consumer)
    next(limited)
    time.sleep(0.4)
    if with_consumer:
        with pytest.raises(BadAudio, match="time limit"):
            next(limited)
    else:
        assert len(list(limited)) >= 2


def test_a_reader_that_stops_early_ends_the_thread(abandoned):
    before = threading.active_count()
    for _ in range(3):
        start = time.monotonic()
        next(limited_blocks(encode_audio(noise(1_000_000)), timeout=60))
        assert time.monotonic() - start < 0.15
    assert threading.active_count() == before
    assert not abandoned


def test_an_error_of_the_decoder_reaches_the_reader():
    with pytest.raises(BadAudio, match="<bytes> is not readable audio") as raised:
        list(limited_blocks(b"no audio", timeout=60))
    assert raised.value.code == "not_audio"


# Standard error

NOISY = """
import ctypes, os, sys
from affekt.audio import decoder_messages, read
if sys.argv[1] == "separate":
    decoder_messages.separate_streams()
def decode(*_):
    os.write(2, b"from a C library\\n")
    ctypes.CDLL(None).printf(b"in a buffer of C\\n")
    os.write(1, b"on standard output\\n")
    print("row")
    print("from Python", file=sys.stderr)
    yield from ()
read._file_blocks = decode
list(read.blocks(b"audio"))
os.write(2, b"afterwards\\n")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "expected"),
    [("separate", ["from Python", "afterwards"]), ("library", ["from a C library", "from Python", "afterwards"])],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the C library has another name there")
def test_messages_of_decoders_are_discarded_on_the_command_line_only(mode, expected):
    run = subprocess.run([sys.executable, "-c", NOISY, mode], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines() == expected
    assert (run.stdout == "row\n") == (mode == "separate")


# Sources that are no ordinary files


@pytest.mark.parametrize(
    ("container", "codec"), [("ipod", "aac"), ("mp4", "aac"), ("webm", "libopus"), ("matroska", "aac"), ("3gp", "aac")]
)
def test_media_are_read_from_uploads_and_pipes(container, codec):
    data = encode_media(tone(1, 48_000), 48_000, container, codec)
    expected = load(data)
    for max_size in (0, 1_000_000):  # on disk and in memory
        with tempfile.SpooledTemporaryFile(max_size=max_size) as upload:
            upload.write(data)
            np.testing.assert_array_equal(load(upload), expected)
    with tempfile.TemporaryFile() as upload:
        upload.write(data)
        np.testing.assert_array_equal(load(upload), expected)
    reading, writing = os.pipe()
    thread = threading.Thread(target=_write_all, args=(writing, data))
    thread.start()
    with os.fdopen(reading, "rb") as pipe:
        np.testing.assert_array_equal(load(pipe), expected)
    thread.join()


def _write_all(descriptor, data):
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_sockets_and_devices_in_a_folder_are_skipped_with_a_note(tmp_path, caplog, monkeypatch):
    (tmp_path / "a.wav").write_bytes(encode_audio(tone()))
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "pipe.wav")
    (tmp_path / "device.wav").symlink_to(os.devnull)
    (tmp_path / "broken.wav").symlink_to(tmp_path / "nothing")
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        assert find_files(Path()) == [Path("a.wav"), Path("broken.wav")]
    assert [record.getMessage() for record in caplog.records] == [
        "device.wav is skipped: it is not a regular file",
        "link.wav is skipped: it is a named pipe",
        "pipe.wav is skipped: it is a named pipe",
        "socket.wav is skipped: it is not a regular file",
    ]


def test_a_folder_without_permission_is_said_to_be_that(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # root may open every folder
    assert find_files(tmp_path) == [tmp_path]
    with pytest.raises(BadAudio, match="is a folder that cannot be opened: Permission denied") as raised:
        load(tmp_path)
    assert raised.value.code == "unreadable"


# More than seven channels, which PyAV's planar frames cannot hand over


@pytest.mark.parametrize(
    ("container", "codec", "layout", "channels"),
    [
        ("matroska", "pcm_f32le", "7.0", 7),
        ("ipod", "aac", "7.1", 8),
        ("webm", "libopus", "7.1", 8),
        ("matroska", "pcm_f32le", "hexadecagonal", 16),
    ],
)
def test_media_with_many_channels_are_read(container, codec, layout, channels):
    data = encode_channels(tone(1, 48_000), container, codec, layout, channels)
    waveform = load(data)
    assert abs(len(waveform) - 16_000) < 100
    assert abs(peak_frequency(waveform) - 440) < 2
    assert 0.2 < np.abs(waveform[4000:8000]).max() < 0.7


def encode_channels(samples, container, codec, layout, channels):
    """Return the bytes of a file with the same samples in each channel."""
    av = pytest.importorskip("av")
    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track = file.add_stream(codec, rate=48_000, layout=layout)
        for start in range(0, len(samples), 1024):
            block = np.repeat(samples[start : start + 1024], channels)[np.newaxis]
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.sample_rate, frame.pts = 48_000, start
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return stream.getvalue()


def test_a_number_of_channels_that_changes_does_not_stop_lenient_reading(monkeypatch):
    pieces = [np.ones((1600, channels), np.float32) * 0.5 for channels in (1, 1, 3, 2)]
    monkeypatch.setattr(media, "_decode_packets", lambda *_: iter(pieces))
    blocks_read = list(media.decode_media(None, 16_000, None))
    assert [block.shape for block in blocks_read] == [(3200, 1), (1600, 3), (1600, 2)]
