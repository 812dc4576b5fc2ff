"""Compressed files of many kinds have the length that ffmpeg's decoder gives them."""

import io
from collections import defaultdict

import numpy as np
import pytest

from affekt.audio.read import SAMPLE_RATE, load
from tests.sounds import encode_audio, encode_mp3, noise, tone

ID3V2 = b"ID3\x03\x00\x00\x00\x00\x07\x68" + b"TIT2" + bytes(996)
ID3V1 = b"TAG" + b"a song".ljust(125, b"\0")
APE = b"APETAGEX\xd0\x07\x00\x00" + b"\x2c\x00\x00\x00" + bytes(16) + b"value of a tag".ljust(12, b"\0")
APE += b"APETAGEX\xd0\x07\x00\x00" + b"\x2c\x00\x00\x00" + bytes(4) + b"\x00\x00\x00\x80" + bytes(8)
TAGS = {
    "none": (b"", b""),
    "id3v2": (ID3V2, b""),
    "id3v1": (b"", ID3V1),
    "ape": (b"", APE),
    "all": (ID3V2, APE + ID3V1),
}
RATES = {
    "mp3": (8000, 11025, 16000, 22050, 32000, 44100, 48000),
    "vorbis": (8000, 11025, 16000, 22050, 44100, 48000),
    "opus": (8000, 12000, 16000, 24000, 48000),
    "flac": (8000, 11025, 16000, 22050, 32000, 44100, 48000),
}
KBITS = {8000: (16, 32, 64), 11025: (24, 64), 16000: (32, 64, 128), 22050: (32, 64, 128)}
TOLERANCE = {"mp3": 2 * 1152, "vorbis": 1024, "opus": 1, "flac": 1}
"""Samples at the file's rate, per joined file: an MP3's encoder adds a delay and padding, which decoders may keep. ffmpeg
does not always cut Vorbis's last packet to the length of the stream."""


def make_file(index):
    """Return the format of a file, its parts with their rates, and its bytes."""
    generator = np.random.default_rng(index)
    kind = ("mp3", "mp3", "vorbis", "opus", "flac")[index % 5]
    tags = TAGS[str(generator.choice(list(TAGS)))] if kind in ("mp3", "flac") else (b"", b"")
    parts, rates, joined = [], [], int(generator.choice((1, 1, 2, 3)))
    same = bool(generator.integers(2))
    for number in range(joined):
        rate = rates[0] if number and same else int(generator.choice(RATES[kind]))
        channels = int(generator.choice((1, 2)))
        samples = 0.5 * tone(float(generator.uniform(0.4, 2.0)), rate, channels)
        samples += 0.2 * noise(samples.shape, index).reshape(samples.shape)
        parts.append(encode_part(kind, samples, rate, generator))
        rates.append(rate)
    return kind, rates, parts, tags[0] + b"".join(parts) + tags[1]


def encode_part(kind, samples, rate, generator):
    if kind != "mp3":
        names = {"vorbis": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}
        return encode_audio(samples, rate, *names[kind])
    mode = str(generator.choice(("cbr", "abr", "vbr")))
    kbits = int(generator.choice(KBITS.get(rate, (64, 128, 192))))
    return encode_mp3(samples, rate, mode=mode, kbits=kbits, xing=bool(generator.integers(2)))


def ffmpeg_seconds(data):
    """Return the duration of what ffmpeg decodes, in seconds."""
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(data), mode="r") as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.mark.slow
def test_eighty_files_are_as_long_as_ffmpeg_decodes_them(capsys):
    differences = defaultdict(list)
    for index in range(80):
        kind, rates, parts, data = make_file(index)
        expected = sum(map(ffmpeg_seconds, parts))
        difference = len(load(data)) / SAMPLE_RATE - expected
        tolerance = sum(TOLERANCE[kind] / rate for rate in rates) + len(rates) / SAMPLE_RATE
        assert abs(difference) <= tolerance, f"file {index}: {kind}, {rates} Hz, {difference:+.4f} s"
        differences[kind, len(parts) > 1].append(difference)
    with capsys.disabled():
        for (kind, joined), values in sorted(differences.items()):
            largest = max(map(abs, values))
            print(
                f"\n{kind}{', joined' if joined else ''}: {len(values)} files, at most {1000 * largest:.1f} ms", end=""
            )
