"""Waveforms for the tests, and audio files of them in memory."""

import io
import struct

import numpy as np
import pytest
import soundfile

RATE = 16_000


def tone(seconds=1.0, rate=RATE, channels=1, frequency=440, amplitude=0.5):
    """Return a sine wave, (samples,) or (samples, channels) with equal channels."""
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return wave.astype(np.float32) if channels == 1 else np.tile(wave.astype(np.float32)[:, None], channels)


def noise(samples, seed=0):
    """Return uniform noise from -0.5 to 0.5."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def babble(samples, seed=0):
    """Return noise whose loudness changes like that of speech without pauses."""
    return (noise(samples, seed) * (0.3 + 0.7 * np.abs(np.sin(2.5 * np.arange(samples) / RATE)))).astype(np.float32)


def encode_audio(samples, rate=RATE, format="WAV", subtype=None):
    """Return the bytes of a file written by libsndfile."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype)
    return stream.getvalue()


def encode_media(samples, rate, container, codec, stream=None):
    """Return the bytes of a file written by PyAV, or write it to a stream; skip the test if its ffmpeg lacks the encoder."""
    av = pytest.importorskip("av")
    try:
        av.codec.Codec(codec, "w")
    except ValueError:
        pytest.skip(f"this ffmpeg has no encoder {codec}")
    planes = np.ascontiguousarray(np.atleast_2d(samples.T), np.float32)
    layout = {1: "mono", 2: "stereo"}[len(planes)]
    output = io.BytesIO() if stream is None else stream
    with av.open(output, "w", format=container) as file:
        track = file.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, planes.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(planes[:, start : start + 1024]), format="fltp", layout=layout
            )
            frame.sample_rate, frame.pts = rate, start
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return output.getvalue() if stream is None else b""


def encode_mp3(samples, rate, *, mode="cbr", kbits=64, xing=True):
    """Return the bytes of an MP3 of constant ("cbr"), average ("abr") or variable ("vbr") bit rate."""
    av = pytest.importorskip("av")
    planes = np.ascontiguousarray(np.atleast_2d(samples.T), np.float32)
    layout = {1: "mono", 2: "stereo"}[len(planes)]
    stream = io.BytesIO()
    options = {"write_xing": str(int(xing)), "id3v2_version": "0"}
    with av.open(stream, "w", format="mp3", options=options) as file:
        track = file.add_stream("libmp3lame", rate=rate, layout=layout, options={"abr": str(int(mode == "abr"))})
        track.codec_context.format = "fltp"
        track.codec_context.bit_rate = 1000 * kbits
        if mode == "vbr":
            track.codec_context.flags |= av.codec.context.Flags.qscale
            track.codec_context.global_quality = 4 * 118  # quality 4, times FF_QP2LAMBDA
        for start in range(0, planes.shape[1], 1152):
            part = np.ascontiguousarray(planes[:, start : start + 1152])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return stream.getvalue()


def peak_frequency(waveform, rate=RATE):
    """Return the frequency at which the spectrum of a waveform is highest, in Hz."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return np.argmax(spectrum) * rate / len(waveform)


def remove_stream_end(ogg):
    """Return an Ogg file as Android records it: the last page neither ends the stream nor trims its last packet."""
    start = ogg.rfind(b"OggS")
    page = bytearray(ogg[start:])
    page[5] &= ~4
    if b"OpusHead" in ogg[:64]:
        (position,) = struct.unpack("<q", page[6:14])
        page[6:14] = struct.pack("<q", -(-position // 960) * 960)  # packets of 20 ms, at 48 kHz
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", _ogg_checksum(page))
    return ogg[:start] + bytes(page)


def _ogg_checksum(page):
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            checksum = (checksum << 1 ^ (0x04C11DB7 if checksum & 0x80000000 else 0)) & 0xFFFFFFFF
    return checksum


def ogg_page(packets, number=0, position=0, flags=0):
    """Return an Ogg page of complete packets (RFC 3533, 6)."""
    segments = b"".join(b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255]) for packet in packets)
    header = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, position, 1, number, 0, len(segments))
    page = bytearray(header + segments + b"".join(packets))
    page[22:26] = struct.pack("<I", _ogg_checksum(page))
    return bytes(page)
