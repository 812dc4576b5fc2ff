"""Audio with its sample rate: pairs, and the dictionaries and decoders of the library `datasets`."""

from types import SimpleNamespace

import numpy as np
import pytest

from affekt import Recognizer
from affekt.audio.read import load, name_of
from affekt.errors import BadAudio
from tests.sounds import encode_audio, noise, tone

SAMPLES = tone(1.0, 8_000)
EXPECTED = load(SAMPLES, 8_000)


class Decoder:
    """A stand-in for the decoder that version 4 of `datasets` returns for a column of audio."""

    def get_all_samples(self):
        return SimpleNamespace(data=SAMPLES[np.newaxis], sample_rate=8_000)


@pytest.mark.parametrize(
    "source",
    [
        (SAMPLES, 8_000),
        (list(map(float, SAMPLES)), 8_000),
        (SAMPLES[:, np.newaxis], 8_000),
        {"array": SAMPLES, "sampling_rate": 8_000},
        {"path": "clip.wav", "array": SAMPLES, "sampling_rate": 8_000},
        {"path": None, "array": SAMPLES.tolist(), "sampling_rate": 8_000},
        {"bytes": encode_audio(SAMPLES, 8_000, subtype="FLOAT"), "path": None},
        {"bytes": encode_audio(SAMPLES, 8_000, subtype="FLOAT"), "path": "missing.wav"},
        Decoder(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_pairs_and_dictionaries_give_the_samples_of_the_array(source):
    np.testing.assert_array_equal(load(source), EXPECTED)


def test_a_dictionary_with_a_path_alone_is_read_from_the_path(tmp_path):
    path = tmp_path / "clip.wav"
    path.write_bytes(encode_audio(SAMPLES, 8_000, subtype="FLOAT"))
    np.testing.assert_array_equal(load({"bytes": None, "path": str(path)}), EXPECTED)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ((SAMPLES, 8_000), "<array>"),
        (([0.0, 0.5], 8_000), "<array>"),
        ({"array": SAMPLES, "sampling_rate": 8_000, "path": "a/clip.wav"}, "a/clip.wav"),
        ({"array": SAMPLES, "sampling_rate": 8_000, "path": None}, "<array>"),
        ({"bytes": b"RIFF", "path": None}, "<bytes>"),
        ({"bytes": b"RIFF", "path": "clip.wav"}, "clip.wav"),
        (Decoder(), "<array>"),
        ((), "<array>"),
        ({}, "<array>"),
    ],
)
def test_the_name_is_the_path_if_there_is_one(source, name):
    assert name_of(source) == name


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((SAMPLES,), r"a tuple of 1 is not audio: expected the pair \(array, sample_rate\)"),
        ((), r"a tuple of 0 is not audio"),
        ((SAMPLES, 8_000, 1), r"a tuple of 3 is not audio"),
        ((8_000, []), r"the pair is \(sample_rate, array\)"),
        ((8_000, SAMPLES), r"the pair is \(sample_rate, array\): expected \(array, sample_rate\)"),
        ((SAMPLES, None), r"<array> has no sample rate"),
        ((SAMPLES, "fast"), r"sample_rate 'fast'"),
        ((SAMPLES, -1), r"sample_rate -1"),
        (({"array": SAMPLES}, 8_000), r"the first of the pair is a dict: expected an array"),
        ((encode_audio(SAMPLES), 8_000), r"<bytes> has its own sample rate"),
        ((["a", "b"], 8_000), r"has dtype <U1"),
        (([[0.0], [0.0, 1.0]], 8_000), r"list is not an array of samples"),
        ({"array": SAMPLES}, r"the dictionary has no 'sampling_rate'"),
        ({"array": SAMPLES, "sampling_rate": None}, r"the dictionary has no 'sampling_rate'"),
        ({"audio": SAMPLES, "rate": 8_000}, r"has no audio \(its keys: 'audio', 'rate'\): expected"),
        ({}, r"its keys: none"),
        ({"bytes": None, "path": None}, r"the dictionary has no audio"),
        ({"bytes": "text"}, r"the dictionary has no audio"),
        ({"array": "text", "sampling_rate": 8_000}, r"<array> has 0 axes"),
    ],
)
def test_other_pairs_and_dictionaries_are_refused_with_the_reason(source, message):
    with pytest.raises(BadAudio, match=message):
        load(source)


def test_a_rate_beside_the_source_must_agree_with_its_own():
    source = {"array": SAMPLES, "sampling_rate": 8_000}
    np.testing.assert_array_equal(load(source, 8_000), EXPECTED)
    with pytest.raises(BadAudio, match="sample_rate=16000, but the audio comes with the rate 8000"):
        load(source, 16_000)


def test_rows_takes_pairs_and_dictionaries(tiny_bundle):
    recognizer = Recognizer.load(tiny_bundle)
    sources = [
        (noise(16_000), 16_000),
        {"array": noise(16_000), "sampling_rate": 16_000, "path": "a.wav"},
        {"array": noise(16_000)},
        {"bytes": encode_audio(noise(16_000), subtype="FLOAT"), "path": None},
    ]
    rows = list(recognizer.rows(sources))
    assert [(row.file, row.status) for row in rows] == [
        ("<array>", "ok"),
        ("a.wav", "ok"),
        ("<array>", "error"),
        ("<bytes>", "ok"),
    ]
    expected = recognizer(noise(16_000), 16_000).probabilities
    assert rows[0].probabilities == rows[1].probabilities == rows[3].probabilities == expected
    assert recognizer(sources[0]).probabilities == recognizer(sources[1]).probabilities == expected


def test_rows_with_a_single_dictionary_names_the_right_call(tiny_bundle):
    with pytest.raises(TypeError, match="rows expects a list of sources"):
        next(Recognizer.load(tiny_bundle).rows({"array": noise(16_000), "sampling_rate": 16_000}))
