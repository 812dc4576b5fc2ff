"""The recognizer: the fields of its rows, silence, the windows of long audio, errors, and damaged bundles."""

import io
import itertools
import json
import re

import numpy as np
import pytest

from affekt import Recognizer, Row
from affekt.audio.folders import expand_folders
from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import Bundle
from affekt.errors import BadAudio
from affekt.inference.row import AGGREGATION
from affekt.inference.segments import cut_segments
from tests.sounds import encode_audio, noise, tone

KEYS = ["schema", "file", "start", "end", "duration", "status", "emotion", "probabilities", "model", "error"]
EMOTIONS = ["angry", "disgust", "fear", "happy", "neutral", "sad"]


def speechlike(seconds, seed=0):
    """Return noise whose loudness changes every second, so that no two windows are equal."""
    gains = np.random.default_rng(seed).uniform(0.05, 1, int(np.ceil(seconds)))
    return (
        noise(round(seconds * SAMPLE_RATE), seed) * np.repeat(gains, SAMPLE_RATE)[: round(seconds * SAMPLE_RATE)]
    ).astype(np.float32)


# One row


def test_a_row_has_exactly_the_fields_of_the_contract(recognizer, tmp_path):
    path = tmp_path / "tone.wav"
    path.write_bytes(encode_audio(tone(2.5)))
    row = recognizer(path)
    assert list(row) == KEYS
    assert list(row["probabilities"]) == EMOTIONS
    assert {key: type(value) for key, value in row.items()} == {
        "schema": int,
        "file": str,
        "start": float,
        "end": float,
        "duration": float,
        "status": str,
        "emotion": str,
        "probabilities": dict,
        "model": str,
        "error": type(None),
    }
    assert {type(p) for p in row["probabilities"].values()} == {float}
    assert (row["schema"], row["file"], row["status"]) == (1, str(path), "ok")
    assert (row["start"], row["end"], row["duration"]) == (0.0, 2.5, 2.5)


def test_the_emotion_is_the_most_probable_and_the_probabilities_sum_to_one(recognizer):
    rows = [recognizer(speechlike(2, seed), SAMPLE_RATE) for seed in range(10)]
    for row in rows:
        assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert row.probabilities[row.emotion] == max(row.probabilities.values())
    assert len({row.probabilities["sad"] for row in rows}) == 10


def test_a_row_is_json_and_its_fields_are_attributes(recognizer):
    row = recognizer(speechlike(31), SAMPLE_RATE)
    assert json.loads(json.dumps(row)) == row
    for key in KEYS[1:]:
        assert getattr(row, key) == row[key]
    assert row.windows == row["windows"]
    assert all(isinstance(window, Row) for window in row.windows)


def test_the_model_is_the_bundles_name_and_hash(recognizer, tiny_bundle):
    row = recognizer(tone(), SAMPLE_RATE)
    assert re.fullmatch(r"tiny@[0-9a-f]{8}", row.model)
    assert row.model == recognizer.model == Bundle.open(tiny_bundle).id


def test_str_of_a_row_and_repr_of_a_recognizer(recognizer):
    row = recognizer(tone(), SAMPLE_RATE)
    assert re.fullmatch(r"<array>  0.00-1.00 s(  [a-z]+ \d+%){6}", str(row))
    assert str(row).split()[3] == row.emotion
    assert repr(recognizer) == f"Recognizer({recognizer.model}: angry, disgust, fear, happy, neutral, sad)"


def test_every_kind_of_source_gives_the_same_row_except_its_name(recognizer, tmp_path):
    samples = speechlike(3)
    data = encode_audio(samples, subtype="FLOAT")
    path = tmp_path / "speech.wav"
    path.write_bytes(data)
    with path.open("rb") as file:
        rows = [recognizer(source) for source in (path, str(path), data, io.BytesIO(data), file)]
    rows.append(recognizer(samples, SAMPLE_RATE))
    assert [row.pop("file") for row in rows] == [str(path), str(path), "<bytes>", "<stream>", str(path), "<array>"]
    assert all(row == rows[0] for row in rows)


def test_recognition_is_deterministic_with_any_number_of_threads(tiny_bundle):
    rows = [Recognizer.load(tiny_bundle, threads=threads)(speechlike(40), SAMPLE_RATE) for threads in (1, 1, 2)]
    assert rows[0] == rows[1] == rows[2]


# Silence


@pytest.mark.parametrize("value", [0.0, 0.25, -1.0])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_constant_waveform_is_silence(recognizer, value, rate):
    row = recognizer(np.full(2 * rate, value), rate)
    assert list(row) == KEYS
    assert (row.status, row.emotion, row.probabilities, row.error) == ("silence", None, None, None)
    assert (row.start, row.end, row.duration) == (0.0, 2.0, 2.0)
    assert str(row) == "<array>  0.00-2.00 s  silence"


@pytest.mark.parametrize(("name", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", None), ("OGG", "VORBIS")])
def test_silence_is_detected_in_every_format(recognizer, name, subtype):
    assert recognizer(encode_audio(np.zeros(32_000), 16_000, name, subtype)).status == "silence"


def test_one_step_of_16_bit_audio_is_not_silence(recognizer):
    samples = np.zeros(16_000, np.int16)
    samples[8_000] = 1
    assert recognizer(samples, SAMPLE_RATE).status == "ok"


# Windows


def test_a_row_of_exactly_eight_seconds_has_no_windows(recognizer):
    row = recognizer(speechlike(8), SAMPLE_RATE)
    assert list(row) == KEYS
    assert row.windows == []
    assert list(recognizer(np.append(speechlike(8), np.float32(0.1)), SAMPLE_RATE)) == [
        *KEYS,
        "aggregation",
        "windows",
    ]


@pytest.mark.parametrize(("seconds", "rate"), [(30.01, 16_000), (47.3, 44_100), (100, 8_000)])
def test_the_windows_of_a_row_cover_the_file(recognizer, seconds, rate):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate))
    row = recognizer(samples, rate)
    assert row.duration == row.end == pytest.approx(seconds, abs=1e-3)
    assert (row.windows[0].start, row.windows[-1].end) == (0.0, row.end)
    assert [window.end for window in row.windows[:-1]] == [window.start for window in row.windows[1:]]
    for window in row.windows:
        assert list(window) == KEYS
        assert (window.file, window.model) == (row.file, row.model)
        assert 0.2 <= window.duration <= 20
        assert window.duration == pytest.approx(window.end - window.start, abs=1e-9)


def test_a_window_is_recognized_as_if_it_were_alone(recognizer):
    samples = speechlike(42)
    for window in recognizer(samples, SAMPLE_RATE).windows:
        alone = recognizer(samples[round(window.start * SAMPLE_RATE) : round(window.end * SAMPLE_RATE)], SAMPLE_RATE)
        assert window.probabilities == alone.probabilities


def test_probabilities_are_the_mean_over_windows_weighted_by_seconds_of_speech(recognizer):
    samples = speechlike(47.3)
    row = recognizer(samples, SAMPLE_RATE)
    weights = [segment.speech for segment in cut_segments([samples])]
    assert row["aggregation"] == AGGREGATION
    assert len(set(weights)) > 1
    probabilities = np.array([[window.probabilities[emotion] for emotion in EMOTIONS] for window in row.windows])
    mean = np.average(probabilities, axis=0, weights=weights)
    np.testing.assert_allclose([row.probabilities[emotion] for emotion in EMOTIONS], mean, atol=2e-6)
    assert row.emotion == EMOTIONS[int(np.argmax(mean))]


@pytest.mark.parametrize(("pause", "status"), [(0.0, "silence"), (1e-3, "no_speech")])
def test_windows_without_speech_are_rows_and_are_left_out_of_the_mean(recognizer, monkeypatch, pause, status):
    samples = speechlike(40)
    samples[5 * SAMPLE_RATE : 35 * SAMPLE_RATE] = pause * noise(30 * SAMPLE_RATE)
    calls, infer = [], recognizer.infer
    monkeypatch.setattr(
        recognizer, "infer", lambda waveform, text: calls.append(waveform.size) or infer(waveform, text)
    )
    row = recognizer(samples, SAMPLE_RATE)
    statuses = [window.status for window in row.windows]
    assert statuses[0] == statuses[-1] == "ok"
    assert set(statuses[1:-1]) == {status}
    assert len(calls) == 2
    first, last = row.windows[0].probabilities, row.windows[-1].probabilities
    for emotion in EMOTIONS:
        assert row.probabilities[emotion] == pytest.approx((first[emotion] + last[emotion]) / 2, abs=0.02)


def test_a_long_silence_is_silence(recognizer):
    row = recognizer(np.zeros(35 * SAMPLE_RATE, np.int16), SAMPLE_RATE)
    assert (row.status, row.emotion, row.probabilities, row.duration) == ("silence", None, None, 35.0)
    assert {window.status for window in row.windows} == {"silence"}


# Errors


def test_a_call_raises_but_rows_continues_after_an_error(recognizer, tmp_path):
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    good.write_bytes(encode_audio(tone()))
    with pytest.raises(BadAudio, match=r"bad.wav does not exist"):
        recognizer(bad)
    rows = list(recognizer.rows([bad, good, b"", good]))
    assert [row.status for row in rows] == ["error", "ok", "error", "ok"]
    assert [row.file for row in rows] == [str(bad), str(good), "<bytes>", str(good)]
    failed = rows[0]
    assert list(failed) == KEYS
    assert failed.error == {"code": "missing", "message": f"{bad} does not exist"}
    assert (failed.emotion, failed.probabilities, failed.duration) == (None, None, 0.0)
    assert str(failed) == f"{bad}  error missing: {bad} does not exist"


def test_rows_are_computed_lazily(recognizer):
    requested = []
    rows = recognizer.rows(requested.append(n) or encode_audio(tone()) for n in itertools.count())
    next(rows), next(rows)
    assert requested == [0, 1]


@pytest.mark.parametrize("samples", [1, 1599])
def test_too_short_audio_is_refused(recognizer, samples):
    with pytest.raises(BadAudio, match=r"<array> lasts 0\.\d+ s; at least 0.1 s"):
        recognizer(noise(samples), SAMPLE_RATE)


def test_an_error_in_one_window_is_an_error_of_the_whole_file(recognizer):
    samples = speechlike(60)
    samples[50 * SAMPLE_RATE] = np.nan
    with pytest.raises(BadAudio, match=r"<array> has NaN, .* the first at 50.000 s"):
        recognizer(samples, SAMPLE_RATE)


def test_extremely_loud_audio_gives_probabilities(recognizer):
    row = recognizer(noise(16_000) * np.float32(1e11), SAMPLE_RATE)
    assert sum(row.probabilities.values()) == pytest.approx(1, abs=1e-5)


# Files and folders


def test_folders_are_expanded_and_no_file_is_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clips/a.wav", "clips/deep/b.wav", "clips/notes.txt", "empty/notes.txt", "c.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [
        path.as_posix()
        for path in expand_folders(["c.wav", "clips", "./clips/a.wav", "empty", "no.wav", "clips/notes.txt"])
    ]
    assert names == ["c.wav", "clips/a.wav", "clips/deep/b.wav", "empty", "no.wav", "clips/notes.txt"]


def test_a_too_long_file_name_gives_an_error_row(recognizer):
    (row,) = recognizer.rows(expand_folders(["n" * 300 + ".wav"]))
    assert row.error["code"] == "unreadable"


def test_rows_refuses_a_single_path(tiny_bundle):
    with pytest.raises(TypeError, match="rows expects a list of sources"):
        next(Recognizer.load(tiny_bundle).rows("hello.wav"))


@pytest.mark.parametrize("source", [np.zeros(16_000), (np.zeros(16_000), 16_000), io.BytesIO(b"audio"), {"array": []}])
def test_rows_refuses_a_single_source_of_any_kind(recognizer, source):
    with pytest.raises(TypeError, match="rows expects a list of sources"):
        next(recognizer.rows(source))


@pytest.mark.parametrize("seconds", [3, 12, 47])
def test_predictions_are_those_of_the_row_before_rounding(recognizer, seconds):
    samples = speechlike(seconds)
    row = recognizer(samples, SAMPLE_RATE)
    assert bool(row.windows) == (seconds > 8)
    assert recognizer.predict(samples) == pytest.approx(list(row.probabilities.values()), abs=2e-6)


def test_a_long_recording_without_speech_has_no_prediction(recognizer):
    assert recognizer.predict(np.zeros(20 * SAMPLE_RATE, np.float32)) == [0.0] * len(recognizer.emotions)
