"""Which emotion a row has: thresholds, subsets of emotions, sets with a promised error rate; and unfamiliar recordings."""

import math

import numpy as np
import pytest

from affekt import Recognizer
from affekt.bundle.folder import FAMILIARITY, PREDICTIONS, Bundle
from affekt.bundle.predictions import LabeledPredictions
from affekt.errors import BadBundle, BadConfig, BadOutput
from affekt.inference.decision import Decision, decide, normalize
from affekt.inference.familiarity import Familiarity, fit_corpus
from affekt.inference.profile import Profile
from affekt.inference.results_file import ResultsFile
from affekt.inference.row import Row, make_row
from affekt.workflows.recognize_files import recognize_files
from tests.conftest import write_tiny_bundle
from tests.sounds import encode_audio, noise

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
PROBABILITIES = {"angry": 0.5, "happy": 0.3, "sad": 0.2}
SETTINGS = {"threshold": 0.6, "emotions": ["angry", "happy"], "error_rate": 0.1, "min_probability": 0.25}
SPEECH = noise(3 * 16_000)


def predictions(model, profile=""):
    """Return predictions of labeled clips whose true emotions have the probabilities 0.01, 0.02, ... 0.99."""
    true = np.arange(1, 100) / 100
    labels = np.arange(99) % len(EMOTIONS)
    probabilities = np.repeat((1 - true)[:, None] / (len(EMOTIONS) - 1), len(EMOTIONS), axis=1)
    probabilities[np.arange(99), labels] = true
    keys = tuple(f"own/{index}" for index in range(99))
    return LabeledPredictions(model, EMOTIONS, keys, keys, labels, probabilities, profile)


@pytest.mark.parametrize(("threshold", "status", "emotion"), [(0.5, "ok", "angry"), (0.51, "unknown", None)])
def test_below_the_threshold_no_emotion_is_named_and_the_probabilities_stay(threshold, status, emotion):
    row = make_row("a", "m", probabilities=PROBABILITIES, applied={"decision": {"threshold": threshold}})
    assert (row.status, row.emotion, row.probabilities) == (status, emotion, PROBABILITIES)
    assert Row.read(row) == row


def test_the_set_has_the_probable_emotions_and_always_the_most_probable_one():
    assert decide(PROBABILITIES, {"min_probability": 0.3})["emotion_set"] == ["angry", "happy"]
    assert decide(PROBABILITIES, {"min_probability": 0.9})["emotion_set"] == ["angry"]
    assert "emotion_set" not in decide(PROBABILITIES, {})


def test_probabilities_of_a_subset_are_normalized():
    assert normalize(PROBABILITIES, ["angry", "sad"]) == pytest.approx({"angry": 5 / 7, "sad": 2 / 7})
    assert normalize(dict.fromkeys(PROBABILITIES, 0.0), ["angry", "sad"]) == {"angry": 0.5, "sad": 0.5}


@pytest.mark.parametrize(
    ("decision", "reason"),
    [
        ({"emotions": ("angry", "hapy")}, "no emotion 'hapy'; did you mean 'happy'"),
        ({"emotions": ("angry",)}, "at least two"),
        ({"emotions": ("angry", "angry")}, "at least two different"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"threshold": math.nan}, "threshold = nan"),
        ({"error_rate": 0.0}, "error_rate = 0.0"),
        ({"error_rate": 1.0}, "error_rate = 1.0"),
        ({"calibration": "mine.json"}, "--error-rate 0.1"),
    ],
)
def test_invalid_settings_are_refused(tiny_bundle, decision, reason):
    with pytest.raises(BadConfig, match=reason):
        Recognizer.load(tiny_bundle, **decision)


def test_a_recognizer_decides_alike_for_clips_windows_and_whole_recordings(tiny_bundle):
    plain, chosen = (Recognizer.load(tiny_bundle, **options) for options in ({}, {"emotions": ("happy", "angry")}))
    assert chosen.emotions == ("angry", "happy")
    row, expected = chosen((SPEECH, 16_000)), normalize(plain((SPEECH, 16_000)).probabilities, ("angry", "happy"))
    assert row.probabilities == pytest.approx(expected, abs=1e-4)
    assert row.decision == {"emotions": ["happy", "angry"]}
    assert chosen.predict(SPEECH) == plain.predict(SPEECH)  # scores are over all emotions
    speech = np.concatenate([np.concatenate([noise(32_000, seed), 1e-4 * noise(8_000)]) for seed in range(5)])
    long = Recognizer.load(tiny_bundle, threshold=1.0)((speech, 16_000))
    assert len(long.windows) > 1
    assert {part.status for part in (long, *long.windows)} == {"unknown"}
    assert all(part.decision == {"threshold": 1.0} for part in (long, *long.windows))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_results_files_keep_decisions_and_refuse_others(tmp_path, suffix):
    applied = {"decision": SETTINGS}
    rows = [make_row("a", "m", probabilities=PROBABILITIES, applied=applied), make_row("b", "m", applied=applied)]
    rows[0]["unfamiliar"] = 1.25
    rows.append(Row({**rows[0], "file": "c", "aggregation": "mean", "windows": [Row({**rows[0], "file": "c"})]}))
    path = tmp_path / f"results{suffix}"
    with ResultsFile(path, "m", applied) as results:
        for row in rows:
            results.append(row)
    with ResultsFile(path, "m", applied) as results:
        assert list(results.done.values()) == rows
    with pytest.raises(BadOutput, match=r"threshold 0.6, emotions angry, happy, .* but this run is without a profile:"):
        ResultsFile(path, "m")


@pytest.mark.parametrize(
    "damage",
    [
        {"emotion_set": ["angry", "bored"]},
        {"status": "ok", "emotion": None},
        {"status": "unknown", "emotion": "angry"},
        {"status": "unknown", "emotion": None, "probabilities": None},
        {"unfamiliar": "far"},
        {"decision": {"threshold": "high"}},
        {"decision": 3},
    ],
)
def test_inconsistent_rows_are_refused(damage):
    row = make_row("a", "m", probabilities=PROBABILITIES, applied={"decision": SETTINGS})
    with pytest.raises(ValueError, match=r"row of schema|not a subset|could not convert"):
        Row.read({**row, **damage})


def test_worker_processes_decide_as_this_one(tmp_path, tiny_bundle):
    for number in range(2):
        (tmp_path / f"{number}.wav").write_bytes(encode_audio(noise(32_000, number)))
    recognizer = Recognizer.load(tiny_bundle, threshold=0.4, emotions=("angry", "sad", "fear"))
    alone, together = (list(recognize_files([tmp_path], recognizer=recognizer, jobs=jobs)) for jobs in (1, 2))
    assert alone == together
    assert alone[0].decision == {"threshold": 0.4, "emotions": ["angry", "sad", "fear"]}


def test_an_error_rate_needs_a_calibration_of_the_same_model_and_profile(tmp_path):
    write_tiny_bundle(tmp_path / "tiny", EMOTIONS)
    bundle = Bundle.open(tmp_path / "tiny")
    with pytest.raises(BadConfig, match=r"no predictions.json.*affekt calibrate"):
        Recognizer.load(bundle.folder, error_rate=0.1)
    predictions(bundle.id).write(bundle.folder / PREDICTIONS)
    row = Recognizer.load(bundle.folder, error_rate=0.1)((SPEECH, 16_000))
    assert row.decision == {"error_rate": 0.1, "min_probability": 0.1}  # the 10th of 99 probabilities
    assert row.emotion_set == [name for name, p in row.top() if p >= 0.1]
    with pytest.raises(BadConfig, match="needs at least 999 calibration clips, but there are 99"):
        Recognizer.load(bundle.folder, error_rate=0.001)
    bias = dict.fromkeys(EMOTIONS, 0.0)
    profile = Profile("mine", bundle.id, 8, 8, 20.0, dict.fromkeys(EMOTIONS, 1 / 6), 0.5, 1.0, bias)
    with pytest.raises(BadConfig, match=r"without a profile, but this is .* with the profile mine@.*calibrate"):
        Recognizer.load(bundle.folder, error_rate=0.1, profile=profile)
    predictions(bundle.id, profile.id).write(tmp_path / "mine.json")
    options = {"error_rate": 0.1, "calibration": tmp_path / "mine.json"}
    assert Recognizer.load(bundle.folder, profile=profile, **options).decision.min_probability == 0.1
    predictions("other@1").write(bundle.folder / PREDICTIONS)
    with pytest.raises(BadBundle, match="predictions of other@1"):
        Recognizer.load(bundle.folder, error_rate=0.1)


def test_predictions_are_read_back_and_damaged_ones_refused(tmp_path):
    path = tmp_path / PREDICTIONS
    predictions("m@1").write(path)
    read = LabeledPredictions.read(path)
    assert (read.utterances, read.emotions, read.model) == (predictions("m@1").utterances, EMOTIONS, "m@1")
    np.testing.assert_allclose(read.probabilities, predictions("m@1").probabilities, atol=1e-6)
    for damaged in (path.read_text().replace('"own/3", 3', '"own/3", 7'), path.read_text().replace("0.04", "-1"), "{}"):
        path.write_text(damaged)
        with pytest.raises(BadBundle, match="does not contain predictions"):
            LabeledPredictions.read(path)


def test_a_recording_unlike_the_training_data_has_a_note(tmp_path):
    write_tiny_bundle(tmp_path / "tiny", EMOTIONS, adaptable=True)
    plain = Recognizer.load(tmp_path / "tiny")
    assert plain.familiarity is None
    waveforms = [(0.5 + index / 100) * noise(32_000, index) for index in range(40)]
    statistics = np.array([plain.graph.recognize({"waveform": wave[None]})[1][0] for wave in waveforms])
    corpora = fit_corpus(statistics, [f"speaker {index % 8}" for index in range(40)])[None]
    np.save(tmp_path / "tiny" / FAMILIARITY, corpora)
    recognizer = Recognizer.load(tmp_path / "tiny")
    near, far = (recognizer((wave, 16_000)) for wave in (waveforms[20], 0.01 * noise(32_000)))
    assert "unfamiliar" not in near
    assert far["unfamiliar"] > 1
    assert far.remarks == [f"unlike the training data ({far['unfamiliar']:.1f} times the usual distance)"]
    assert near.probabilities == plain((waveforms[20], 16_000)).probabilities
    long = recognizer((0.01 * np.concatenate([noise(48_000, 1), np.zeros(9_000, np.float32)] * 4), 16_000))
    assert len(long.windows) > 1
    assert long["unfamiliar"] == pytest.approx(far["unfamiliar"], rel=0.2)
    np.save(tmp_path / "tiny" / FAMILIARITY, corpora[:, :, :5])
    with pytest.raises(BadBundle, match=r"expected finite 32-bit numbers, \(corpora, 2, 6\)"):
        Recognizer.load(tmp_path / "tiny")


def test_scales_leave_one_clip_in_a_hundred_outside():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 30))
    speakers = [f"{index % 50}" for index in range(2000)]
    familiarity = Familiarity(fit_corpus(values[:2000], speakers)[None])
    far = np.array([familiarity.distance(row) > 1 for row in values[2000:]])
    assert 0.003 < far.mean() < 0.02
    assert familiarity.distance(values[0] + 10) > 3


def test_a_decision_of_nothing_is_no_field():
    assert Decision().row_field() is None
    assert Decision(threshold=0.5).row_field() == {"threshold": 0.5}
