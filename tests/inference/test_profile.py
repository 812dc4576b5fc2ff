"""Profiles as files, and the recognizer that is adapted to one."""

import json
from dataclasses import replace

import numpy as np
import pytest

from affekt import Profile, Recognizer, recognize_files
from affekt.errors import BadConfig, BadOutput
from affekt.inference.class_bias import apply_class_bias
from affekt.inference.profile import StreamShift, check_output
from affekt.inference.row import Row
from tests.conftest import write_tiny_bundle
from tests.sounds import encode_audio, noise, tone

EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
BIAS = dict(zip(EMOTIONS, (0.5, -0.5, 0.25, 0.0, 1.0, -1.25), strict=True))


@pytest.fixture(scope="module")
def adaptable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "adaptable"
    write_tiny_bundle(folder, EMOTIONS, adaptable=True)
    return folder


@pytest.fixture(scope="module")
def recognizer(adaptable):
    return Recognizer.load(adaptable)


def make_profile(recognizer, **changes):
    values = {
        "name": "mine",
        "model": recognizer.model,
        "recordings": 20,
        "clips": 20,
        "seconds": 60.0,
        "expected": dict.fromkeys(EMOTIONS, 1 / 6),
        "diversity": 0.6,
        "strength": 1.0,
        "class_bias": BIAS,
        "streams": {"speech": StreamShift((0.01, 5.0, 0.02), (0.1, -0.1, 0.2))} if recognizer.graph.adaptable else {},
        "clip_hashes": ("0123456789abcdef",),
    }
    return Profile(**{**values, **changes})


def test_a_profile_is_read_as_it_was_written(recognizer, tmp_path):
    profile = make_profile(recognizer, notes=("a note",), skipped={"silence": 2})
    profile.write(tmp_path / "mine.affekt")
    assert Profile.read(tmp_path / "mine.affekt") == profile
    assert Profile.read(tmp_path / "mine.affekt").id == profile.id


def test_the_id_covers_what_determines_predictions_and_nothing_else(recognizer):
    profile = make_profile(recognizer)
    shift = profile.streams["speech"]
    assert replace(profile, recordings=3, notes=("other",)).id == profile.id
    others = [
        replace(profile, class_bias={**BIAS, "angry": 0.4}),
        replace(profile, streams={"speech": replace(shift, offset=(0.01, 5.0, 0.03))}),
        replace(profile, streams={"speech": replace(shift, log_scale=(0.1, -0.1, 0.1))}),
        replace(profile, model="other@00000000"),
    ]
    assert len({profile.id, *(other.id for other in others)}) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is not a profile: expected a file made by `affekt adapt`"),
        ("[]", r"is not a profile"),
        ("{}", r"is not a profile"),
        ('{"kind": "affekt profile"}', r"has schema None; this version of affekt reads schema 1"),
        ('{"kind": "affekt profile", "schema": 1}', r"is not a valid profile \(.*missing required field"),
        ("\xff\xfe", r"is not a profile"),
        ("[" * 100_000, r"is not a profile"),
    ],
)
def test_a_file_that_is_not_a_profile_is_refused(tmp_path, text, message):
    (tmp_path / "mine.affekt").write_text(text, encoding="latin-1")
    with pytest.raises(BadConfig, match=message):
        Profile.read(tmp_path / "mine.affekt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"other": 1}, r"unknown field 'other'"),
        ({"recordings": "20"}, r"Expected `int`, got `str` - at `\$.recordings`"),
        ({"recordings": 0}, r"recordings, clips and seconds cannot be true"),
        ({"recordings": 10**30, "clips": 10**30}, r"recordings, clips and seconds cannot be true"),
        ({"recordings": 21}, r"recordings, clips and seconds cannot be true"),
        ({"seconds": -1.0}, r"recordings, clips and seconds cannot be true"),
        ({"strength": 1.5}, r"its strength or diversity is out of range"),
        ({"class_bias": {**BIAS, "sad": 1e300}}, r"not between -20 and 20"),
        ({"class_bias": {**BIAS, "sad": None}}, r"Expected `float`, got `null`"),
        ({"streams": {"speech": {"offset": [1], "log_scale": [1e9]}}}, r"not between -20 and 20"),
        (
            {"streams": {"speech": {"offset": [1e300], "log_scale": [0]}}},
            r"an offset is not between -1e\+06 and 1e\+06",
        ),
        ({"name": "a\u001b[1m"}, r"its name is empty, .* or has control characters"),
        ({"name": "\u202ea"}, r"its name is empty, .* or has control characters"),
        ({"name": ""}, r"its name is empty"),
        ({"name": "a" * 100_000}, r"longer than 255 characters"),
    ],
)
def test_a_damaged_profile_is_refused_by_what_is_wrong(recognizer, tmp_path, changes, message):
    path = tmp_path / "mine.affekt"
    make_profile(recognizer).write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(BadConfig, match=message):
        Profile.read(path)


def test_the_largest_numbers_of_a_profile_give_probabilities(adaptable):
    recognizer = Recognizer.load(adaptable)
    for sign in (-1, 1):
        shift = StreamShift((sign * 1e6,) * 3, (sign * 20.0,) * 3)
        profile = make_profile(recognizer, streams={"speech": shift}, class_bias={**BIAS, "sad": sign * 20.0})
        assert sum(recognizer.adapt(profile).infer(noise(16000))) == pytest.approx(1)


def test_a_link_to_a_profile_stays_a_link(recognizer, tmp_path):
    link, target = tmp_path / "link.affekt", tmp_path / "target.affekt"
    link.symlink_to(target)
    make_profile(recognizer).write(link)
    make_profile(recognizer, name="other").write(link)
    assert link.is_symlink()
    assert Profile.read(target).name == "other"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/mine.affekt", r"mine\.affekt cannot be written: the folder .*such does not exist"),
        ("x" * 5000, r"cannot be written: File name too long"),
    ],
)
def test_an_impossible_file_is_refused_before_recordings_are_read(tmp_path, name, message):
    with pytest.raises(BadOutput, match=message):
        check_output(tmp_path / name)


def test_a_missing_profile_is_named(tmp_path):
    with pytest.raises(BadConfig, match=r"mine\.affekt not found: expected a profile; make one with `affekt adapt`"):
        Profile.read(tmp_path / "mine.affekt")


def test_only_a_profile_is_replaced(recognizer, tmp_path):
    profile, path = make_profile(recognizer), tmp_path / "speech.wav"
    path.write_bytes(b"a recording")
    with pytest.raises(BadOutput, match=r"speech\.wav exists and is not a profile"):
        profile.write(path)
    assert path.read_bytes() == b"a recording"
    profile.write(tmp_path / "mine.affekt")
    replace(profile, recordings=20, seconds=90.0).write(tmp_path / "mine.affekt")
    assert Profile.read(tmp_path / "mine.affekt").seconds == 90.0
    with pytest.raises(BadOutput, match=r"cannot be written"):
        profile.write(tmp_path / "missing" / "mine.affekt")


def test_the_profile_of_another_model_is_refused_with_the_cure(recognizer, tiny_bundle):
    profile = make_profile(recognizer)
    with pytest.raises(BadConfig, match=r"learned for the model adaptable@\w+, but this is tiny@\w+: learn it again"):
        Recognizer.load(tiny_bundle, profile=profile)


@pytest.mark.parametrize(
    "changes",
    [
        {"class_bias": {"angry": 1.0}},
        {"streams": {"speech": StreamShift((1.0,), (1.0,))}},
        {"streams": {"text": StreamShift((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))}},
    ],
)
def test_a_profile_with_other_emotions_or_features_is_refused(recognizer, changes):
    with pytest.raises(BadConfig, match=r"does not have the emotions and features of adaptable@"):
        recognizer.adapt(make_profile(recognizer, **changes))


def test_a_profile_shifts_features_and_biases_classes_as_the_graph_does(recognizer, adaptable, tmp_path):
    profile, waveform = make_profile(recognizer), noise(16_000)
    profile.write(tmp_path / "mine.affekt")
    adapted = Recognizer.load(adaptable, profile=tmp_path / "mine.affekt")
    inputs = {"waveform": waveform[np.newaxis], "class_bias": np.array(list(BIAS.values()), np.float32)}
    expected = recognizer.graph.run({**inputs, **profile.graph_inputs()}, ["probabilities"])["probabilities"]
    np.testing.assert_allclose(adapted.infer(waveform), expected[0], atol=1e-6)
    assert np.abs(expected[0] - recognizer.infer(waveform)).max() > 0.01
    assert adapted.adapt(None).infer(waveform) == recognizer.infer(waveform)
    assert repr(adapted).endswith(f", adapted to {profile.id})")


def test_class_biases_alone_work_with_a_model_that_cannot_adapt_its_features(tiny_bundle):
    plain = Recognizer.load(tiny_bundle)
    adapted, waveform = plain.adapt(make_profile(plain)), noise(16_000)
    expected = apply_class_bias(np.array([plain.infer(waveform)]), np.array(list(BIAS.values())))[0]
    np.testing.assert_allclose(adapted.infer(waveform), expected)


def test_rows_name_the_profile_only_if_there_is_one(recognizer):
    adapted = recognizer.adapt(make_profile(recognizer))
    label = {"id": adapted.profile.id, "recordings": 20}
    long = np.concatenate([noise(16_000 * 20, seed=1), noise(16_000 * 15, seed=2)])
    rows = [adapted((noise(16_000), 16_000)), adapted((long, 16_000)), adapted.row(b"no audio")]
    assert [row.profile for row in rows] == [label] * 3
    assert all(window.profile == label for window in rows[1].windows)
    assert [Row.read(json.loads(json.dumps(row))) for row in rows] == rows
    assert "profile" not in recognizer((noise(16_000), 16_000))


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for index, name in enumerate("abc"):
        (folder / f"{name}.wav").write_bytes(encode_audio(noise(16_000, seed=index)))
    (folder / "long.wav").write_bytes(encode_audio(tone(35)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_results_files_keep_the_profile_and_resume_only_with_the_same_one(recognizer, clips, tmp_path, suffix):
    output, profile = tmp_path / f"rows.{suffix}", make_profile(recognizer)
    adapted = recognizer.adapt(profile)
    rows = list(recognize_files([clips], output, recognizer=adapted))
    again = list(recognize_files([clips], output, recognizer=adapted))
    assert all(row.resumed for row in again)
    assert again == rows
    other = recognizer.adapt(replace(profile, class_bias=dict.fromkeys(EMOTIONS, 0.0)))
    message = rf"contains rows with the profile {profile.id}, but this run is with the profile mine@"
    with pytest.raises(BadOutput, match=message):
        list(recognize_files([clips], output, recognizer=other))
    with pytest.raises(BadOutput, match=r"but this run is without a profile: choose another results file"):
        list(recognize_files([clips], output, recognizer=recognizer))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_rows_without_a_profile_are_not_continued_with_one(recognizer, clips, tmp_path, suffix):
    output = tmp_path / f"rows.{suffix}"
    list(recognize_files([clips], output, recognizer=recognizer))
    adapted = recognizer.adapt(make_profile(recognizer))
    with pytest.raises(BadOutput, match=r"contains rows without a profile, but this run is with the profile mine@"):
        list(recognize_files([clips], output, recognizer=adapted))


def test_windows_of_an_interrupted_run_are_not_used_with_another_profile(recognizer, clips, tmp_path):
    output = tmp_path / "rows.jsonl"

    def interrupt(window):
        if window.start > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(recognize_files([clips / "long.wav"], output, recognizer=recognizer, on_window=interrupt))
    output.unlink(missing_ok=True)
    adapted = recognizer.adapt(make_profile(recognizer))
    (row,) = recognize_files([clips / "long.wav"], output, recognizer=adapted)
    assert row == adapted(clips / "long.wav")
