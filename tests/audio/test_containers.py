"""Formats that are read by PyAV although libsndfile has, or seems to have, the container: Ogg, AC-3, WavPack and TTA."""

import struct
import sys

import numpy as np
import pytest

from affekt.audio.containers import is_media
from affekt.audio.read import SUFFIXES, find_files, load
from affekt.errors import BadAudio, MissingExtra
from tests.sounds import encode_media, ogg_page, peak_frequency, tone

FORMATS = [("ogg", "flac"), ("ac3", "ac3"), ("eac3", "eac3"), ("wv", "wavpack"), ("tta", "tta")]
LOSSLESS = {"flac", "wavpack", "tta"}


def encode_speex(seconds=1.0, seed=0):
    """Return an Ogg Speex file of narrowband frames with random bits (no encoder is at hand): 20 ms of noise per packet."""
    header = struct.pack("<8s20s13i", b"Speex   ", b"1.2", 1, 80, 8_000, 0, 4, 1, -1, 160, 0, 1, 0, 0, 0)
    comment = struct.pack("<I4sI", 4, b"test", 0)
    generator = np.random.default_rng(seed)
    pages = [ogg_page([header], flags=2), ogg_page([comment], number=1)]
    packets = round(seconds * 50)
    for index in range(packets):
        # The first bit selects narrowband, the next four submode 3, which has 160 bits in all.
        packet = bytes([0b00011000 | int(generator.integers(8))]) + generator.bytes(19)
        flags = 4 if index == packets - 1 else 0
        pages.append(ogg_page([packet], number=2 + index, position=160 * (index + 1), flags=flags))
    return b"".join(pages)


@pytest.mark.parametrize(("container", "codec"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_is_recognized_by_its_content_and_read(container, codec, channels, tmp_path):
    data = encode_media(tone(1.5, 48_000, channels), 48_000, container, codec)
    assert is_media(data[:1024])
    path = tmp_path / "no-suffix"
    path.write_bytes(data)
    for source in (data, path):
        waveform = load(source)
        assert abs(waveform.size - 24_000) < (2 if codec in LOSSLESS else 1_100)
        assert peak_frequency(waveform) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("suffix", [".oga", ".ac3", ".ec3", ".eac3", ".wv", ".tta", ".spx"])
def test_a_file_is_found_in_a_folder_by_its_suffix(suffix, tmp_path):
    (tmp_path / f"a{suffix.upper()}").write_bytes(b"")
    assert suffix in SUFFIXES
    assert find_files(tmp_path) == [tmp_path / f"a{suffix.upper()}"]


def test_speex_is_read():
    pytest.importorskip("av")
    waveform = load(encode_speex(1.0))
    assert waveform.size == pytest.approx(16_000, abs=640)
    assert np.abs(waveform).max() > 0


@pytest.mark.parametrize("name", ["speex", *(codec for _, codec in FORMATS)])
def test_without_the_extra_the_error_names_it(name, monkeypatch, tmp_path):
    encoded = {codec: (container, codec) for container, codec in FORMATS}
    data = encode_speex() if name == "speex" else encode_media(tone(1, 48_000), 48_000, *encoded[name])
    path = tmp_path / "clip"
    path.write_bytes(data)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"reading .*clip needs av: pip install 'affekt\[media\]'"):
        load(path)


@pytest.mark.parametrize(("container", "codec"), [("ogg", "flac"), ("wv", "wavpack"), ("tta", "tta")])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut_off_is_truncated(container, codec, fraction):
    data = encode_media(tone(5, 48_000), 48_000, container, codec)
    with pytest.raises(BadAudio) as info:
        load(data[: int(fraction * len(data))])
    assert info.value.code == "truncated"


def test_a_wavpack_cut_between_two_blocks_is_truncated():
    data = encode_media(tone(5, 48_000), 48_000, "wv", "wavpack")
    with pytest.raises(BadAudio, match=r"its header declares 240000 samples, but only \d+ exist") as info:
        load(data[: data.rfind(b"wvpk")])
    assert info.value.code == "truncated"


def test_a_hostile_tta_header_is_refused_without_much_memory():
    header = b"TTA1" + struct.pack("<HHHIII", 1, 1, 16, 1, 0xFFFF_FFFF, 0)
    with pytest.raises(BadAudio, match="it ends in its table of frames"):
        load(header + bytes(100))
