"""Files with wrong or missing lengths, tags, several streams or channels that cancel each other are read to their ends."""

import io
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from affekt import Recognizer
from affekt.audio.read import SAMPLE_RATE, Notes, duration, find_files, load
from affekt.errors import BadAudio
from tests.audio.test_lengths import APE, ID3V1, ID3V2
from tests.sounds import encode_audio, encode_media, encode_mp3, noise, peak_frequency, tone


def load_with_notes(source, sample_rate=None, **options):
    notes = Notes()
    return load(source, sample_rate, notes=notes, **options), notes.fields()


# Channels that cancel each other


def antiphase(wave, second=-1.0):
    return np.stack([wave, second * wave], axis=1)


@pytest.mark.parametrize(
    ("name", "subtype"), [("WAV", None), ("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS")]
)
def test_a_file_whose_channels_cancel_is_not_silent(name, subtype):
    waveform, fields = load_with_notes(encode_audio(antiphase(tone(2.0)), format=name, subtype=subtype))
    assert peak_frequency(waveform) == pytest.approx(440, abs=2)
    assert np.abs(waveform[4000:-4000]).max() == pytest.approx(0.5, rel=0.1)
    assert fields["channels"].endswith(
        "of 2 is used for 2.0 s, where the mean of the channels is more than 20 dB softer"
    )


def test_a_media_file_whose_channels_cancel_is_not_silent():
    waveform, fields = load_with_notes(encode_media(antiphase(tone(2.0, 48_000)), 48_000, "mp4", "aac"))
    assert np.std(waveform[4000:-4000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert "channels" in fields


@pytest.mark.parametrize("second", [-1.0, -0.95, -1.05])
def test_the_louder_of_cancelling_channels_is_used(second):
    waveform, fields = load_with_notes(antiphase(tone(1.0), second), SAMPLE_RATE)
    assert fields["channels"].startswith(f"channel {2 if abs(second) > 1 else 1} of 2")
    assert np.abs(waveform).max() == pytest.approx(0.5 * max(1, abs(second)), rel=1e-3)


@pytest.mark.parametrize("second", [-0.7, 0.0, 0.5, 1.0])
def test_channels_that_do_not_cancel_are_averaged_without_a_note(second):
    samples = antiphase(tone(1.0), second)
    waveform, fields = load_with_notes(samples, SAMPLE_RATE)
    np.testing.assert_array_equal(waveform, samples.mean(axis=1))
    assert fields == {}


def test_channels_that_cancel_are_found_beside_a_constant_and_in_a_part_of_a_recording():
    offset = antiphase(0.4 * tone(1.0)) + np.float32(0.3)
    assert "channels" in load_with_notes(offset, SAMPLE_RATE)[1]
    wave = tone(20.0)
    parts = np.concatenate([antiphase(wave, 1.0), antiphase(wave)])
    waveform, fields = load_with_notes(parts, SAMPLE_RATE)
    assert np.std(waveform[-10 * SAMPLE_RATE :]) > 0.3
    assert fields["channels"].startswith("channel 1 of 2 is used for 19.5 s")


# Wrong sizes of a WAV


def with_sizes(data, container, audio):
    position = data.index(b"data") + 4
    data = data[:position] + struct.pack("<I", audio) + data[position + 4 :]
    return data if container is None else data[:4] + struct.pack("<I", container) + data[8:]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
@pytest.mark.parametrize(
    ("container", "audio"),
    [(0, 0), (None, 0), (36, 0), (0, 1_000_000), (None, 1_000_000), (0xFFFFFFFF, 1_000_000), (0x7FFFFFFF, 0)],
)
def test_a_wav_with_wrong_sizes_is_read_to_its_end(container, audio, subtype):
    data = encode_audio(noise(20_000), subtype=subtype)
    waveform, fields = load_with_notes(with_sizes(data, container, audio))
    np.testing.assert_array_equal(waveform, load(data))
    assert fields == {}


def test_an_empty_wav_with_further_chunks_is_empty():
    with pytest.raises(BadAudio, match="a header without samples"):
        load(encode_audio(noise(0)) + b"LIST\x04\x00\x00\x00INFO")


# Truncation


@pytest.mark.parametrize("name", ["WAV", "W64", "RF64", "AIFF", "AU", "CAF", "NIST"])
def test_a_file_that_lacks_a_few_samples_is_read_with_a_note(name):
    waveform, fields = load_with_notes(encode_audio(noise(32_000), format=name)[:-20])
    assert len(waveform) == pytest.approx(32_000 - 10, abs=4)
    assert fields == {"truncated": True, "seconds_lost": pytest.approx(10 / SAMPLE_RATE, abs=4e-4)}


@pytest.mark.parametrize(("seconds", "lost"), [(2, 0.03), (200, 1.5)])
def test_more_than_one_percent_or_one_second_may_not_be_missing(seconds, lost):
    data = encode_audio(np.zeros(seconds * 8000, np.float32), 8000)
    cut = data[: -round(lost * 16_000)]
    with pytest.raises(BadAudio, match=r"cut off: .* --lenient"):
        load(cut)
    waveform, fields = load_with_notes(cut, lenient=True)
    assert len(waveform) / SAMPLE_RATE == pytest.approx(seconds - lost, abs=0.001)
    assert fields == {"truncated": True, "seconds_lost": pytest.approx(lost, abs=0.001)}


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("WAV", None), ("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("CAF", None), ("AIFF", None)],
)
def test_half_a_file_is_read_leniently(name, subtype):
    data = encode_audio(noise(64_000), format=name, subtype=subtype)
    half = data[: len(data) // 2]
    with pytest.raises(BadAudio, match="cut off"):
        load(half)
    waveform, fields = load_with_notes(half, lenient=True)
    assert 0.5 < len(waveform) / SAMPLE_RATE < 2.5
    assert fields["truncated"]


def test_half_a_webm_is_read_leniently():
    data = encode_media(tone(4.0, 48_000), 48_000, "webm", "libopus")
    waveform, fields = load_with_notes(data[: len(data) // 2], lenient=True)
    assert 1 < len(waveform) / SAMPLE_RATE < 3
    assert fields["truncated"]


def test_a_damaged_ogg_page_is_not_skipped_in_silence():
    data = bytearray(encode_audio(noise(80_000), format="OGG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(BadAudio, match=r"its Ogg page at byte .* is incomplete or damaged"):
        load(bytes(data))


def test_a_row_has_notes_only_where_there_is_something_to_remark():
    recognizer = Recognizer.load()
    assert not {"truncated", "seconds_lost", "channels"} & set(recognizer(encode_audio(tone(1.0))))
    row = recognizer(encode_audio(antiphase(tone(1.0)))[:-8])
    assert row["truncated"]
    assert row["seconds_lost"] == pytest.approx(2 / SAMPLE_RATE, abs=1e-4)
    assert row["channels"].startswith("channel ")
    assert len(row.remarks) == 2
    (row,) = recognizer.rows([encode_audio(tone(2.0))[:30_000]], lenient=True)
    assert row.status == "no_speech"  # a tone
    assert row["truncated"]


# MP3, Ogg and FLAC


@pytest.mark.parametrize("mode", ["cbr", "abr", "vbr"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_mp3_without_a_xing_header_is_read_to_its_end(mode, rate, tmp_path):
    quiet_then_loud = np.concatenate([0.001 * tone(3.0, rate), noise(3 * rate)])
    data = encode_mp3(quiet_then_loud, rate, mode=mode, xing=False)
    waveform, fields = load_with_notes(data)
    assert len(waveform) / SAMPLE_RATE == pytest.approx(6.0, abs=0.2)
    assert fields == {}
    path = tmp_path / "it.mp3"
    path.write_bytes(data)
    assert duration(path) == pytest.approx(6.0, abs=0.2)


@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("between", [b"", ID3V1, ID3V2, ID3V1 + ID3V2])
def test_joined_mp3_files_are_read_to_their_end(xing, between):
    first = encode_mp3(tone(2.0, 44_100, 2), 44_100, xing=xing)
    second = encode_mp3(tone(3.0, 16_000, frequency=1000), 16_000, xing=xing)
    waveform = load(first + between + second + ID3V1)
    assert len(waveform) / SAMPLE_RATE == pytest.approx(5.0, abs=0.3)
    assert peak_frequency(waveform[: 2 * SAMPLE_RATE]) == pytest.approx(440, abs=2)
    assert peak_frequency(waveform[-2 * SAMPLE_RATE :]) == pytest.approx(1000, abs=2)


@pytest.mark.parametrize(("name", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")])
def test_joined_files_are_read_to_their_end(name, subtype, tmp_path):
    parts = [
        encode_audio(tone(1.0, rate, channels), rate, name, subtype)
        for rate, channels in ((16_000, 1), (8000, 2), (48_000, 1))
    ]
    data = b"".join(parts)
    np.testing.assert_array_equal(load(data), np.concatenate([load(part) for part in parts]))
    path = tmp_path / "it.audio"
    path.write_bytes(data)
    assert duration(path) == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("tail", [ID3V1, APE, APE + ID3V1, bytes(5000), b"\xff\xf8 and other bytes"])
@pytest.mark.parametrize("head", [b"", ID3V2, ID3V2 + ID3V2])
def test_tags_around_a_flac_are_passed_over(head, tail):
    data = encode_audio(noise(31_000), format="FLAC")
    waveform, fields = load_with_notes(head + data + tail)
    np.testing.assert_array_equal(waveform, load(data))
    assert fields == {}


# Sources


@pytest.mark.parametrize("rate", [1, 999, 768_001, 10**14, 1e14])
def test_sample_rates_out_of_range_are_refused(rate):
    with pytest.raises(BadAudio, match=f"a sample rate of {int(rate)} Hz: expected 1000 to 768000 Hz"):
        load(tone(1.0), rate)


def test_the_sample_rate_of_a_file_is_checked():
    with pytest.raises(BadAudio, match="a sample rate of 1 Hz: expected 1000 to 768000 Hz"):
        load(encode_audio(noise(30_000), 1))


@pytest.mark.parametrize("rate", [16_000.0, np.float64(16_000), np.int32(16_000)])
def test_a_whole_number_of_any_type_is_a_sample_rate(rate):
    np.testing.assert_array_equal(load(tone(1.0), rate), tone(1.0))


@pytest.mark.parametrize(("container", "codec"), [("mp4", "aac"), ("ipod", "aac"), ("webm", "libopus")])
@pytest.mark.parametrize("max_size", [0, 1000])  # in memory, on disk
def test_uploads_and_pipes_of_media_files_are_read(container, codec, max_size):
    data = encode_media(tone(1.0, 48_000), 48_000, container, codec)
    with tempfile.SpooledTemporaryFile(max_size) as upload:
        upload.write(data)
        np.testing.assert_array_equal(load(upload), load(data))
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as pipe:
        os.write(write_end, data)
        os.close(write_end)
        np.testing.assert_array_equal(load(pipe), load(data))


def test_a_stream_of_text_is_refused():
    with tempfile.SpooledTemporaryFile(mode="w+") as upload:
        upload.write("text")
        with pytest.raises(BadAudio, match="returns str instead of bytes"):
            load(upload)


def test_a_hyphen_reads_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encode_audio(noise(8000), subtype="FLOAT"))))
    np.testing.assert_array_equal(load("-"), noise(8000))


@pytest.mark.slow
def test_the_command_reads_standard_input():
    command = [sys.executable, "-m", "affekt", "recognize", "-", "--json"]
    run = subprocess.run(command, input=encode_audio(tone(1.0)), capture_output=True, check=True)
    assert run.stdout.startswith(b'{"schema": 1, "file": "-"')


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_in_a_folder_is_skipped_with_a_note(tmp_path, caplog):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "it.wav").touch()
    assert find_files(tmp_path) == [tmp_path / "it.wav"]
    assert "pipe.wav is skipped: it is a named pipe" in caplog.text


def test_a_folder_without_permission_is_reported_as_such(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadAudio, match="is a folder that cannot be opened: Permission denied") as caught:
        load(tmp_path)
    assert caught.value.code == "unreadable"
