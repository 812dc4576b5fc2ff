"""Files whose headers, tags or joined parts hide a part of their audio are read to their end."""

import struct

import numpy as np
import pytest

from affekt.audio.read import SAMPLE_RATE, Notes, duration, load
from affekt.errors import BadAudio
from tests.sounds import RATE, encode_audio, encode_media, encode_mp3, noise, tone

WAVE = 0.4 * tone(1.5) + 0.2 * noise(3 * RATE // 2)
ID3V2 = b"ID3\x03\x00\x00\x00\x00\x07\x68" + b"TIT2" + bytes(996)
APE = b"APETAGEX" + struct.pack("<IIII", 2000, 132, 1, 0xA0000000) + bytes(8)
APE += bytes(100) + b"APETAGEX" + struct.pack("<IIII", 2000, 132, 1, 0x80000000) + bytes(8)
FLAC_TOTAL = 21
"""Position of the number of samples in a FLAC, after 4 other bits."""


def load_complete(data):
    """Return the waveform of a file that is read without a remark."""
    notes = Notes()
    waveform = load(data, notes=notes)
    assert notes.fields() == {}
    return waveform


def assert_is_wave(waveform, repeats=1):
    assert len(waveform) == repeats * len(WAVE)
    assert np.allclose(waveform, np.tile(WAVE, repeats), atol=2**-14)


def with_total(flac, total):
    total |= (flac[FLAC_TOTAL] & 0xF0) << 32
    return flac[:FLAC_TOTAL] + total.to_bytes(5, "big") + flac[FLAC_TOTAL + 5 :]


@pytest.mark.parametrize("name", ["WAV", "AIFF", "AU", "CAF", "FLAC", "W64"])
@pytest.mark.parametrize("tag", [ID3V2, APE, APE + ID3V2], ids=["id3", "ape", "both"])
def test_tags_before_any_format_are_passed_over(name, tag):
    assert_is_wave(load_complete(tag + encode_audio(WAVE, format=name, subtype="PCM_16")))


@pytest.mark.parametrize("xing", [True, False])
@pytest.mark.parametrize("before", [bytes(5000), b"\xff" * 3000, APE], ids=["zeros", "ones", "ape"])
def test_other_bytes_before_the_first_frame_of_an_mp3_are_passed_over(before, xing):
    mp3 = encode_mp3(WAVE, RATE, xing=xing)
    assert np.array_equal(load_complete(before + mp3), load(mp3))


def test_an_id3_tag_with_a_size_beyond_the_file_hides_no_mp3():
    mp3 = encode_mp3(WAVE, RATE)
    assert len(load_complete(b"ID3\x03\x00\x00\x7f\x7f\x7f\x7f" + bytes(100) + mp3)) == len(load(mp3))


@pytest.mark.parametrize("total", [1, 12_000, len(WAVE) - 1, 0])
@pytest.mark.parametrize(("rate", "subtype", "channels"), [(RATE, "PCM_16", 1), (48_000, "PCM_24", 2)])
def test_a_flac_that_is_longer_than_its_header_declares_is_read_to_its_end(total, rate, subtype, channels, tmp_path):
    samples = tone(1.5, rate, channels)
    flac = with_total(encode_audio(samples, rate, "FLAC", subtype), total)
    assert len(load_complete(flac)) == len(WAVE)
    path = tmp_path / "a.flac"
    path.write_bytes(flac + flac)
    assert duration(path) == 3.0


def test_a_flac_signature_in_metadata_does_not_divide_the_file():
    flac = encode_audio(WAVE, format="FLAC")
    content = bytes(100) + flac[:8] + bytes(100)
    block = b"\x02" + len(content).to_bytes(3, "big") + content  # data of an application
    assert_is_wave(load_complete(flac[:42] + block + flac[42:]))


@pytest.mark.parametrize("size", [0, 0x7FFF_FFFF, 0xFFFF_FFFE])
def test_an_au_of_unknown_size_is_read(size):
    au = encode_audio(WAVE, format="AU", subtype="PCM_16")
    assert_is_wave(load_complete(au[:8] + struct.pack(">I", size) + au[12:]))


def test_a_caf_of_unknown_size_is_read():
    caf = encode_audio(WAVE, format="CAF", subtype="PCM_16")
    position = caf.index(b"data") + 4
    assert_is_wave(load_complete(caf[:position] + struct.pack(">q", -1) + caf[position + 8 :]))


def test_a_bw64_is_read():
    assert_is_wave(load_complete(b"BW64" + encode_audio(WAVE, format="RF64", subtype="PCM_16")[4:]))


def test_joined_wav_files_are_read_to_their_end():
    wav = encode_audio(WAVE)
    other = encode_audio(tone(1.0, 44_100, 2), 44_100, subtype="PCM_24")
    assert_is_wave(load_complete(wav + wav), repeats=2)
    assert len(load_complete(wav + other + wav)) == 2 * len(WAVE) + SAMPLE_RATE
    with pytest.raises(BadAudio, match="cut off"):
        load(wav + wav[:-10_000])


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_joined_mp4_files_are_read_to_their_end(rate):
    mp4 = encode_media(tone(1.0), RATE, "mp4", "aac")
    other = encode_media(tone(0.5, rate), rate, "mp4", "aac")
    assert len(load_complete(mp4 + other)) == len(load(mp4)) + len(load(other))


@pytest.mark.parametrize(("container", "codec"), [("flv", "aac"), ("tta", "tta"), ("au", "pcm_f32be")])
def test_joined_files_of_other_formats_are_read_to_their_end(container, codec):
    media = encode_media(tone(1.0), RATE, container, codec)
    assert len(load_complete(media + media)) == 2 * len(load(media))


def test_a_webm_that_does_not_state_its_duration_is_measured(tmp_path):
    class Pipe:
        data = b""

        def write(self, data):
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    encode_media(tone(1.0, 48_000), 48_000, "webm", "libopus", pipe)
    path = tmp_path / "a.webm"
    path.write_bytes(pipe.data)
    assert duration(path) == pytest.approx(1.0, abs=0.03)
