"""Reading audio: every supported source gives the expected waveform, and everything else an error with a code."""

import io
import os
import struct
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from affekt.audio.read import CODES, SAMPLE_RATE, SHORTEST, blocks, find_files, load, name_of
from affekt.errors import AffektError, BadAudio, MissingExtra
from tests.samples_of_tables import mostly_slow
from tests.sounds import encode_audio, encode_media, noise, peak_frequency, remove_stream_end, tone

# RAW has no header; SD2 has its header in another file.
CONTAINERS = sorted(set(soundfile.available_formats()) - {"RAW", "SD2"})
ENCODINGS = [(name, subtype) for name in CONTAINERS for subtype in soundfile.available_subtypes(name)]
# libsndfile reads these encodings, but cannot write them.
UNWRITTEN = {("AIFF", "DWVW_12"), ("MP3", "MPEG_LAYER_I"), ("MP3", "MPEG_LAYER_II"), ("WAV", "MPEG_LAYER_III")}

# Format, encoding, and the sample rates that it supports.
RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000)
COMMON = [
    ("WAV", "PCM_16", RATES),
    ("WAV", "PCM_24", RATES),
    ("WAV", "PCM_32", RATES),
    ("WAV", "FLOAT", RATES),
    ("FLAC", "PCM_16", RATES),
    ("FLAC", "PCM_24", RATES),
    ("OGG", "VORBIS", RATES),
    ("OGG", "OPUS", (8000, 12000, 16000, 24000, 48000)),
    ("MP3", "MPEG_LAYER_III", RATES),
    ("AIFF", "PCM_16", RATES),
    ("AU", "PCM_16", RATES),
    ("CAF", "PCM_16", RATES),
    ("CAF", "ALAC_16", RATES),
    ("W64", "PCM_16", RATES),
    ("RF64", "PCM_16", RATES),
]
LOSSY = {"VORBIS", "OPUS", "MPEG_LAYER_III"}
# Encodings whose headers or frames show that a file is truncated; the others give a shorter waveform.
TRUNCATION_DETECTED = [(name, subtype) for name, subtype, _ in COMMON]
TRUNCATION_DETECTED += [
    ("NIST", "PCM_16"),
    ("NIST", "ULAW"),
    ("VOC", "PCM_16"),
    ("VOC", "PCM_U8"),
    ("WAV", "IMA_ADPCM"),
]
MEDIA = [("ipod", "aac"), ("mp4", "aac"), ("mp4", "alac"), ("mov", "aac"), ("webm", "libopus"), ("matroska", "aac")]


def encode_at_supported_rate(samples, name, subtype):
    """Return the bytes of a file at the first sample rate that this encoding supports."""
    for rate in (16000, 44100, 8000):
        try:
            return encode_audio(samples, rate, name, subtype)
        except soundfile.LibsndfileError:
            continue
    pytest.skip(f"this libsndfile does not write {name} {subtype}")


class Pipe:
    """A stream that can only be read: it has no `seek` and no `seekable`."""

    def __init__(self, data):
        self.stream = io.BytesIO(data)

    def read(self, size=-1):
        return self.stream.read(size)


# Sources


@pytest.mark.parametrize(("name", "subtype"), [encoding for encoding in ENCODINGS if encoding not in UNWRITTEN])
def test_every_encoding_gives_the_samples_of_soundfile(name, subtype):
    data = encode_at_supported_rate(tone(1.0), name, subtype)
    if subtype.startswith("DWVW"):
        samples, rate = tone(1.0), SAMPLE_RATE  # soundfile.read fails, since it seeks: compare with the input
    else:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    np.testing.assert_allclose(load(data), soxr.resample(samples, rate, SAMPLE_RATE), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "channels"),
    mostly_slow(
        [
            (name, subtype, rate, channels)
            for name, subtype, rates in COMMON
            for rate in rates
            for channels in ((1, 2) if subtype in {"MPEG_LAYER_III", "OPUS"} else (1, 2, 3))
        ],
        5,
    ),
)
def test_any_rate_and_channel_count_gives_the_same_tone(name, subtype, rate, channels):
    waveform = load(encode_audio(tone(1.0, rate, channels), rate, name, subtype))
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert len(waveform) == pytest.approx(SAMPLE_RATE, abs=SAMPLE_RATE / 10 if subtype in LOSSY else 1)
    assert peak_frequency(waveform) == pytest.approx(440, abs=2)
    assert np.abs(waveform[4000:-4000]).max() == pytest.approx(0.5, rel=0.1 if subtype in LOSSY else 0.01)


@pytest.mark.parametrize(
    "kind", ["path", "str", "bytes", "bytearray", "memoryview", "BytesIO", "file", "unbuffered", "pipe"]
)
def test_every_kind_of_source_gives_the_same_samples(kind, tmp_path):
    samples = noise(8000)
    data = encode_audio(samples, subtype="FLOAT")
    path = tmp_path / "noise.wav"
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb", buffering=0) as unbuffered:
        sources = {
            "path": path,
            "str": str(path),
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "BytesIO": io.BytesIO(data),
            "file": file,
            "unbuffered": unbuffered,
            "pipe": Pipe(data),
        }
        np.testing.assert_array_equal(load(sources[kind]), samples)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_read_like_a_file(tmp_path):
    samples, pipe = noise(8000), tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(encode_audio(samples, subtype="FLOAT"),))
    writer.start()
    np.testing.assert_array_equal(load(pipe), samples)
    writer.join()


def test_a_stream_is_read_from_its_beginning_and_stays_open():
    stream = io.BytesIO(encode_audio(noise(8000), subtype="FLOAT"))
    stream.seek(1000)
    np.testing.assert_array_equal(load(stream), noise(8000))
    np.testing.assert_array_equal(load(stream), noise(8000))


def test_integer_arrays_that_would_become_almost_silent_are_refused():
    samples = (tone() * 32767).astype(np.int16)
    with pytest.raises(BadAudio, match="int64, but audio has at most 32 bits per integer; pass int16") as caught:
        load(samples.astype(np.int64), 16_000)
    assert caught.value.code == "not_audio"
    with pytest.raises(BadAudio, match="has 16-bit values in int32"):
        load(samples.astype(np.int32), 16_000)
    assert not load(np.zeros(16_000, np.int32), 16_000).any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "float16", "float64", ">i2", ">f4"])
def test_an_array_of_any_type_is_scaled_by_its_range(dtype):
    samples = tone(0.5)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        array, step = samples.astype(dtype), 1e-3
    else:
        info = np.iinfo(dtype)
        half = (float(info.max) - float(info.min) + 1) / 2
        array, step = np.round(samples * half + (half if dtype.kind == "u" else 0)).astype(dtype), 1 / half
    np.testing.assert_allclose(load(array, SAMPLE_RATE), samples, atol=max(step, 1e-6))


def test_the_longer_axis_of_an_array_is_time():
    stereo = np.stack([tone(0.5), tone(0.5, amplitude=0.1)], axis=1)
    mean = stereo.mean(axis=1)
    np.testing.assert_allclose(load(stereo, SAMPLE_RATE), mean, atol=1e-7)
    np.testing.assert_allclose(load(stereo.T, SAMPLE_RATE), mean, atol=1e-7)
    np.testing.assert_allclose(load(stereo[::2], SAMPLE_RATE // 2), load(stereo[::2].mean(axis=1), SAMPLE_RATE // 2))


def test_an_array_gives_the_same_waveform_as_a_file_of_it():
    samples = noise((30_000, 2))
    np.testing.assert_array_equal(load(samples, 44_100), load(encode_audio(samples, 44_100, subtype="FLOAT")))


# Blocks


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 96000])
def test_resampling_in_blocks_equals_resampling_the_whole(rate):
    samples = noise(20 * rate + 7)
    converted = list(blocks(encode_audio(samples, rate, subtype="FLOAT")))
    assert len(converted) > 3
    whole = soxr.resample(samples - samples[0], rate, SAMPLE_RATE) + samples[0]
    np.testing.assert_allclose(np.concatenate(converted), whole, atol=1e-5)


@pytest.mark.parametrize(("rate", "channels"), [(1000, 1), (8000, 1), (48000, 2), (16000, 500)])
def test_blocks_last_at_most_ten_seconds_at_any_rate_and_channel_count(rate, channels):
    samples = np.zeros((40_000, channels), np.float32)
    assert max(map(len, blocks(samples, rate))) <= 10 * SAMPLE_RATE
    assert max(map(len, blocks(encode_audio(samples[:4000], rate), None))) <= 10 * SAMPLE_RATE


@pytest.mark.slow
def test_memory_does_not_grow_with_length(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 48_000, 1) as file:
        for _ in range(200):
            file.write(tone(1.0, 48_000))
    tracemalloc.start()
    seconds = sum(map(len, blocks(path))) / SAMPLE_RATE
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds == 200
    assert peak < 4_000_000  # the file has 19 MB, the waveform 13 MB


def test_a_constant_stays_constant_at_any_rate():
    assert np.ptp(load(np.full(30_000, 0.25), 44_100)) == 0


# Headers without the length, as a program writes them to a pipe


def replace_bytes(data, at, new):
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF - 36, 0x80000000])
def test_a_wav_of_unknown_length_is_read(length):
    data = encode_audio(noise(8000), subtype="FLOAT")
    data = replace_bytes(data, 4, struct.pack("<I", length))
    data = replace_bytes(data, data.index(b"data") + 4, struct.pack("<I", length))
    np.testing.assert_array_equal(load(data), noise(8000))


def test_an_au_of_unknown_length_is_read():
    np.testing.assert_array_equal(
        load(replace_bytes(encode_audio(noise(8000), format="AU", subtype="FLOAT"), 8, b"\xff" * 4)), noise(8000)
    )


def test_a_flac_of_unknown_length_is_read():
    data = encode_audio(tone(1.0), format="FLAC")
    unknown = replace_bytes(data, 21, bytes([data[21] & 0xF0, 0, 0, 0, 0]))  # STREAMINFO's 36 bits of total samples
    np.testing.assert_array_equal(load(unknown), load(data))


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_without_the_end_of_stream_flag_is_read(subtype):
    data = encode_audio(tone(1.0), format="OGG", subtype=subtype)
    open_ended = remove_stream_end(data)
    assert open_ended != data
    assert len(load(open_ended)) == pytest.approx(SAMPLE_RATE, abs=100)
    assert peak_frequency(load(open_ended)) == pytest.approx(440, abs=2)


# PyAV's formats


@pytest.mark.parametrize(("container", "codec"), [*MEDIA, ("adts", "aac"), ("3gp", "aac"), ("flv", "aac")])
def test_media_files_are_read_with_pyav(container, codec):
    waveform = load(encode_media(tone(1.5, 48_000), 48_000, container, codec))
    assert len(waveform) / SAMPLE_RATE == pytest.approx(1.5, abs=0.1)
    assert peak_frequency(waveform) == pytest.approx(440, abs=2)
    assert np.std(waveform[4000:-4000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_channels_are_averaged_in_every_container():
    stereo = np.stack([tone(1.0, 48_000), np.zeros(48_000, np.float32)], axis=1)
    loudness = [
        np.std(load(data)[4000:-4000])
        for data in (encode_audio(stereo, 48_000), encode_media(stereo, 48_000, "mp4", "aac"))
    ]
    assert loudness[1] == pytest.approx(loudness[0], rel=0.02)


def test_the_format_is_detected_from_the_content_not_from_the_suffix(tmp_path):
    path = tmp_path / "really-an-mp4.wav"
    path.write_bytes(encode_media(tone(1.0, 48_000), 48_000, "mp4", "aac"))
    assert peak_frequency(load(path)) == pytest.approx(440, abs=2)
    path = tmp_path / "really-a-wav.m4a"
    path.write_bytes(encode_audio(noise(8000), subtype="FLOAT"))
    np.testing.assert_array_equal(load(path), noise(8000))


def test_a_video_without_an_audio_track_is_refused():
    av = pytest.importorskip("av")
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as file:
        track = file.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        for _ in range(5):
            file.mux(track.encode(av.VideoFrame(32, 32, "yuv420p")))
        file.mux(track.encode(None))
    with raises_code("not_audio", match="<bytes> has no readable audio track"):
        load(stream.getvalue())


def test_a_playlist_with_an_audio_suffix_opens_no_other_file(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    Path("secret.wav").write_bytes(encode_audio(tone(1.0)))
    Path("song.m4a").write_text("ffconcat version 1.0\nfile secret.wav\n")
    with raises_code("not_audio", match=r"song.m4a is not readable audio"):
        load("song.m4a")


# Errors


class raises_code:  # noqa: N801 (a context manager, like pytest.raises)
    """Expects an `AffektError` with this code and a matching message."""

    def __init__(self, code, match):
        self.code, self.raised = code, pytest.raises(AffektError, match=match)

    def __enter__(self):
        self.info = self.raised.__enter__()

    def __exit__(self, *exception):
        caught = self.raised.__exit__(*exception)
        if caught:
            assert self.info.value.code == self.code, str(self.info.value)
            assert isinstance(self.info.value, MissingExtra if self.code == "missing_extra" else BadAudio)
        return caught


def unusable_source(code, folder):
    """Return a source that gives this error code, and a pattern of the message."""
    path = folder / "it.wav"
    samples = tone(1.0)
    if code == "missing":
        return path, r"it.wav does not exist"
    if code == "unreadable":
        return folder / ("n" * 300 + ".wav"), r"n.wav cannot be opened: .+"
    if code == "empty":
        path.write_bytes(b"")
        return path, r"it.wav is empty \(0 bytes\)"
    if code == "not_audio":
        path.write_text("Dear diary, today I said nothing at all.\n" * 50)
        return path, r"it.wav is not readable audio: .+"
    if code == "truncated":
        path.write_bytes(encode_audio(samples)[:9000])
        return path, r"it.wav is cut off: its header declares 32000 bytes of audio, but only 8956 exist"
    if code == "not_finite":
        samples[8000] = np.nan
        path.write_bytes(encode_audio(samples, subtype="FLOAT"))
        return path, r"it.wav has NaN, infinite or impossibly large samples, the first at 0.500 s"
    if code == "too_short":
        path.write_bytes(encode_audio(samples[:1500]))
        return path, rf"it.wav lasts 0.094 s; at least {SHORTEST} s of audio are needed"
    if code == "folder":
        return folder, r" is a folder: expected an audio file"
    assert code == "missing_extra"
    (folder / "it.m4a").write_bytes(b"\x00\x00\x00\x10ftypM4A \x00\x00\x00\x00\x00\x00\x00\x08moov")
    return folder / "it.m4a", r"reading .*it.m4a needs av: pip install 'affekt\[media\]'"


# Those of tests/audio/test_failures.py, tests/workflows/test_jobs_of_recognition.py and tests/serving/test_recognize.py
ELSEWHERE = {"undecodable", "timeout", "crashed", "too_long"}


@pytest.mark.parametrize("code", sorted(CODES.keys() - ELSEWHERE))
def test_every_code_is_raised_with_its_message(code, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    source, message = unusable_source(code, tmp_path)
    with raises_code(code, match=message):
        load(source)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_unreadable(tmp_path):
    path = tmp_path / "private.wav"
    path.write_bytes(encode_audio(tone()))
    path.chmod(0)
    with raises_code("unreadable", match="private.wav cannot be opened: Permission denied"):
        load(path)


@pytest.mark.parametrize("name", ["WAV", "OGG", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_a_header_without_samples_is_empty(name):
    with raises_code("empty", match="<bytes> is empty: a header without samples"):
        load(encode_audio(tone(0), format=name))


@pytest.mark.parametrize("fraction", [0.3, 0.7, 0.97])
@pytest.mark.parametrize(("name", "subtype"), TRUNCATION_DETECTED)
def test_a_truncated_file_is_refused_and_a_short_one_is_read(name, subtype, fraction, capfd):
    data = encode_audio(tone(3.0), format=name, subtype=subtype)
    short = encode_audio(tone(3.0 * fraction), format=name, subtype=subtype)
    assert len(load(short)) / SAMPLE_RATE == pytest.approx(3.0 * fraction, abs=0.15)
    with raises_code("truncated", match="<bytes> is (damaged or )?cut off: .+"):
        load(data[: int(len(data) * fraction)])
    assert capfd.readouterr().err == ""  # decoders written in C must not print to standard error


@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.97])
@pytest.mark.parametrize(("container", "codec"), MEDIA)
def test_a_truncated_media_file_is_refused(container, codec, fraction):
    data = encode_media(noise(48_000), 48_000, container, codec)
    with raises_code("truncated", match="<bytes> is (damaged or )?cut off: .+"):
        load(data[: int(len(data) * fraction)])


def test_an_unfinished_mp4_is_truncated():
    data = encode_media(tone(1, 48_000), 48_000, "mp4", "aac")
    with raises_code("truncated", match=r"<bytes> is cut off: its table of contents \('moov'\) is missing"):
        load(data[: data.rindex(b"moov") - 4])


@pytest.mark.parametrize("size", [12, 36, 44])
def test_a_file_cut_in_its_header_is_truncated(size):
    with raises_code("truncated", match="<bytes> is (damaged or )?cut off: .+"):
        load(encode_audio(tone())[:size])


@pytest.mark.parametrize(
    "data", [b"\xff\xfb\x90\x00" + bytes(3000), b"ID3\x03\x00\x00\x00\x00\x00\x0a" + b"words " * 99, b"RIFF"]
)
def test_data_that_only_begins_like_audio_is_not_audio(data):
    with raises_code("not_audio", match="<bytes> is not readable audio: (?!.*File does not exist)"):
        load(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_a_single_non_finite_sample_is_detected_in_any_channel(value, rate):
    samples = np.zeros((3 * rate, 2))
    samples[2 * rate, 1] = value
    with raises_code("not_finite", match="<array> has NaN, infinite or impossibly large samples, the first at 2.000 s"):
        load(samples, rate)


def test_infinities_of_opposite_signs_are_detected():
    with raises_code("not_finite", match="the first at 0.000 s"):
        load(np.tile([np.inf, -np.inf], 8000), 16_000)


def test_the_minimum_duration_is_exactly_a_tenth_of_a_second():
    assert len(load(tone(0.1), SAMPLE_RATE)) == 1600
    with raises_code("too_short", match="<array> lasts 0.100 s; at least 0.1 s"):
        load(tone(0.1)[:-1], SAMPLE_RATE)


@pytest.mark.parametrize(
    ("array", "rate", "code", "message"),
    [
        (np.zeros(1600), None, "not_audio", "<array> has no sample rate: pass sample_rate="),
        (np.zeros(1600), 16_000.5, "not_audio", r"sample_rate 16000.5: expected a positive whole number of Hz"),
        (np.zeros(1600), True, "not_audio", "sample_rate True: expected a positive whole number of Hz"),
        (np.zeros(1600), 0, "not_audio", "sample_rate 0: expected a positive whole number of Hz"),
        (
            np.zeros((2, 3, 4)),
            16_000,
            "not_audio",
            r"<array> has 3 axes; expected \(samples,\) or \(samples, channels\)",
        ),
        (np.array(1.0), 16_000, "not_audio", "<array> has 0 axes"),
        (np.zeros(0), 16_000, "empty", r"<array> is empty \(0 samples\)"),
        (np.zeros((0, 2)), 16_000, "empty", r"<array> is empty \(0 samples\)"),
        (np.zeros(1600, bool), 16_000, "not_audio", "<array> has dtype bool; expected floats or integers"),
        (np.zeros(1600, complex), 16_000, "not_audio", "<array> has dtype complex128; expected floats or integers"),
        (np.array(["a"] * 1600), 16_000, "not_audio", "<array> has dtype <U1; expected floats or integers"),
    ],
)
def test_an_array_that_cannot_be_audio_is_refused(array, rate, code, message):
    with raises_code(code, match=message):
        load(array, rate)


@pytest.mark.parametrize("source", [None, 3, [0.1, 0.2], {1, 2}, io.StringIO("words")])
def test_an_unsupported_source_is_refused_with_its_type(source):
    with raises_code(
        "not_audio", match=f"{type(source).__name__} is not audio: expected a path, bytes, a file opened in mode 'rb'"
    ):
        load(source)


def test_a_sample_rate_is_refused_for_a_file():
    with raises_code("not_audio", match="<bytes> has its own sample rate; sample_rate= is for arrays only"):
        load(encode_audio(tone()), 16_000)


def test_a_closed_file_cannot_be_read(tmp_path):
    path = tmp_path / "closed.wav"
    path.write_bytes(encode_audio(tone()))
    with path.open("rb") as file:
        pass
    with raises_code("unreadable", match="closed.wav cannot be read: I/O operation on closed file"):
        load(file)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_a_file_name_that_is_not_unicode_is_read_and_escaped(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    path.write_bytes(encode_audio(noise(8000), subtype="FLOAT"))
    np.testing.assert_array_equal(load(path), noise(8000))
    assert name_of(path).endswith(r"caf\udce9.wav")
    assert name_of(path).encode("utf-8")


# Folders


def test_a_folder_is_searched_recursively_in_sorted_order(tmp_path):
    names = ["b.wav", "a.FLAC", "deep/c.mp3", "deep/er/d.m4a", "another/e.ogg"]
    for name in [*names, "notes.txt", ".hidden.wav", ".git/f.wav", "deep/.er/g.wav", "h.wav.part"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    relative_paths = [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path)]
    assert relative_paths == ["a.FLAC", "b.wav", "another/e.ogg", "deep/c.mp3", "deep/er/d.m4a"]


def test_a_folder_without_audio_gives_no_files(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert find_files(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_without_permission_is_returned_instead_of_skipped(tmp_path):
    (tmp_path / "private").mkdir(mode=0)
    assert find_files(tmp_path) == [tmp_path / "private"]
