"""Learning a profile from unlabeled recordings, and the commands that use it."""

import io
import json
import shutil
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from affekt import Profile, Recognizer, learn_profile
from affekt.bundle.folder import Bundle
from affekt.cli import main
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadConfig
from affekt.inference.onnx import Graph
from affekt.inference.profile_learning import LearningSettings
from affekt.protocols import Split
from tests.conftest import write_tiny_bundle
from tests.sounds import RATE, babble, encode_audio, noise, tone

EMOTIONS = ("angry", "happy", "sad")
ALWAYS = LearningSettings(
    low_diversity=-2.0, high_diversity=-1.0, feature_shrinkage=0.0, bias_shrinkage=0.0, tolerance=1.0
)
"""Settings under which the diversity of the small model's predictions does not matter."""


@pytest.fixture(scope="module", params=[True, False], ids=["adaptable", "biases only"])
def bundle(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "small"
    write_tiny_bundle(folder, EMOTIONS, adaptable=request.param)
    return folder


@pytest.fixture(scope="module")
def adaptable_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "adaptable"
    write_tiny_bundle(folder, EMOTIONS, adaptable=True)
    return folder


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for index in range(12):
        wave = noise(RATE // 2, seed=index) * (0.2 + 0.06 * index)
        soundfile.write(folder / f"{index:02}.wav", wave, RATE)
    return folder


def features(path):
    wave, _ = soundfile.read(path, dtype="float32")
    return np.array([np.abs(wave).mean(), np.linalg.norm(wave), np.abs(np.diff(wave)).mean()])


def test_the_offset_is_the_mean_and_adapted_predictions_have_the_expected_mean(adaptable_bundle, clips):
    recognizer = Recognizer.load(adaptable_bundle)
    profile = learn_profile([clips], recognizer=recognizer, settings=ALWAYS)
    expected = np.mean([features(path) for path in sorted(clips.iterdir())], axis=0)
    np.testing.assert_allclose(profile.streams["speech"].offset, expected, rtol=1e-4)
    adapted = recognizer.adapt(profile)
    rows = [adapted(path) for path in sorted(clips.iterdir())]
    mean = np.mean([list(row.probabilities.values()) for row in rows], axis=0)
    np.testing.assert_allclose(mean, 1 / 3, atol=1e-3)
    assert (profile.recordings, profile.clips, profile.strength) == (12, 12, 1.0)
    assert len(profile.clip_hashes) == 12


def test_stated_fractions_are_reached_and_the_rest_is_shared_evenly(bundle, clips):
    recognizer = Recognizer.load(bundle)
    profile = learn_profile([clips], recognizer=recognizer, expected={"sad": 0.5}, settings=ALWAYS)
    assert profile.expected == {"angry": 0.25, "happy": 0.25, "sad": 0.5}
    rows = recognizer.adapt(profile).rows(sorted(clips.iterdir()))
    mean = np.mean([list(row.probabilities.values()) for row in rows], axis=0)
    np.testing.assert_allclose(mean, [0.25, 0.25, 0.5], atol=1e-3)


def test_a_model_that_cannot_adapt_features_gets_biases_in_one_pass_and_a_note(tiny_bundle, clips):
    calls = []
    recognizer = Recognizer.load(tiny_bundle)
    profile = learn_profile(
        [clips], recognizer=recognizer, settings=ALWAYS, progress=lambda *arguments: calls.append(arguments)
    )
    assert profile.streams == {}
    assert any(profile.class_bias.values())
    assert "cannot be adapted: the profile has class biases only" in profile.notes[0]
    assert calls == [("learning", done, 12) for done in range(1, 13)]


def test_predictions_of_little_diversity_are_not_adapted_to_and_the_note_says_so(adaptable_bundle, clips):
    recognizer = Recognizer.load(adaptable_bundle)
    profile = learn_profile([clips], recognizer=recognizer)
    assert profile.strength == 0
    assert not any(profile.class_bias.values())
    (note,) = profile.notes
    assert "differ less than equally frequent emotions would make them" in note
    assert "nothing is adapted; if you know how frequent they are, state it with --expected" in note
    wave = noise(RATE)
    np.testing.assert_allclose(recognizer.adapt(profile).infer(wave), recognizer.infer(wave), atol=1e-6)


def test_recordings_without_speech_or_that_cannot_be_read_are_counted_and_not_learned_from(adaptable_bundle, clips):
    recognizer = Recognizer.load(adaptable_bundle)
    expected = learn_profile([clips], recognizer=recognizer, settings=ALWAYS)
    (clips / "silent.wav").write_bytes(encode_audio(np.zeros(RATE, np.float32)))
    (clips / "broken.wav").write_bytes(b"no audio")
    profile = learn_profile([clips], recognizer=recognizer, settings=ALWAYS)
    assert profile.skipped == {"error": 1, "silence": 1}
    assert (profile.id, profile.recordings) == (expected.id, 12)


def test_recordings_without_speech_are_counted_and_not_learned_from(adaptable_bundle, clips, monkeypatch):
    recognizer = Recognizer.load(adaptable_bundle)
    loud = [path for path in sorted(clips.iterdir()) if features(path)[0] > 0.1]
    assert 8 <= len(loud) < 12
    observe = Graph.observe

    def observe_with_detector(graph, inputs):
        outputs = observe(graph, inputs)
        return outputs if np.abs(inputs["waveform"]).mean() > 0.1 else {**outputs, "probabilities": np.zeros((1, 3))}

    expected = learn_profile(loud, recognizer=recognizer, settings=ALWAYS)
    monkeypatch.setattr(Graph, "observe", observe_with_detector)
    profile = learn_profile([clips], recognizer=recognizer, settings=ALWAYS)
    assert profile.skipped == {"no_speech": 12 - len(loud)}
    assert profile.id == expected.id


def test_fewer_than_eight_recordings_are_refused(bundle, clips):
    (clips / "silent.wav").write_bytes(encode_audio(np.zeros(RATE, np.float32)))
    few = [*sorted(clips.iterdir())[:7], clips / "silent.wav"]
    message = r"only 7 clips with speech \(1 silent\) to learn a profile from: expected 8 different recordings or more"
    with pytest.raises(BadConfig, match=message):
        learn_profile(few, recognizer=Recognizer.load(bundle))


def test_copies_of_a_recording_count_once(bundle, clips):
    recognizer = Recognizer.load(bundle)
    expected = learn_profile([clips], recognizer=recognizer, settings=ALWAYS)
    for index in range(5):
        shutil.copy(clips / "03.wav", clips / f"copy{index}.wav")
    profile = learn_profile([clips], recognizer=recognizer, settings=ALWAYS)
    assert profile.skipped == {"duplicate": 5}
    assert (profile.id, profile.recordings, profile.clips) == (expected.id, 12, 12)
    copies = [clips / "03.wav", *sorted(clips.glob("copy*.wav")), *[clips / "00.wav"] * 20, (noise(RATE), RATE)] * 3
    with pytest.raises(BadConfig, match=r"^only 3 clips with speech \(48 repeated\).*expected 8 different recordings"):
        learn_profile([(soundfile.read(p) if isinstance(p, Path) else p) for p in copies[:51]], recognizer=recognizer)


def test_recordings_that_vanish_between_the_passes_are_refused(adaptable_bundle, clips):
    recognizer = Recognizer.load(adaptable_bundle)

    def remove(title, done, total):
        if title == "learning, pass 1 of 2" and done == total:
            shutil.rmtree(clips)

    with pytest.raises(
        BadConfig, match=r"0 clips with speech \(12 could not be read\).*first error: .*00\.wav does not exist"
    ):
        learn_profile([clips], recognizer=recognizer, settings=ALWAYS, progress=remove)


def test_why_nothing_could_be_read_is_said(bundle, clips):
    for path in clips.iterdir():
        path.write_bytes(b"no audio")
    with pytest.raises(BadConfig, match=r"12 could not be read.*\(the first error: .*00\.wav "):
        learn_profile([clips], recognizer=Recognizer.load(bundle))


def test_a_folder_without_audio_is_not_called_a_stream(bundle, clips, tmp_path):
    (tmp_path / "empty").mkdir()
    recognizer = Recognizer.load(bundle)
    with pytest.raises(BadConfig, match=r"1 could not be read.*the first error: .*empty"):
        learn_profile([tmp_path / "empty"], recognizer=recognizer)
    assert learn_profile([tmp_path / "empty", clips], recognizer=recognizer).skipped == {"error": 1}


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(bundle, clips, timeout):
    with pytest.raises(BadConfig, match=r"expected a positive number of seconds"):
        learn_profile([clips], recognizer=Recognizer.load(bundle), timeout=timeout)


@pytest.mark.parametrize("name", ["a\u00a0b", "\u3000", "\U0001f468\u200d\U0001f469", "x\u202e\x1b"])
def test_a_profile_of_any_name_can_be_read_again(bundle, clips, tmp_path, monkeypatch, name):
    path = tmp_path / f"{name}.affekt"
    assert run(monkeypatch, "adapt", clips, "--model", bundle, "--output", path) == 0
    assert Profile.read(path).recordings == 12


@pytest.mark.slow
def test_a_long_recording_contributes_its_windows(bundle):
    wave = np.concatenate([babble(8 * RATE, seed=index) * (0.05 + 0.05 * index) for index in range(12)])
    profile = learn_profile([(wave, RATE)], recognizer=Recognizer.load(bundle), settings=ALWAYS)
    assert profile.recordings == 1
    assert profile.clips >= 8
    assert profile.seconds == pytest.approx(96)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"hapy": 0.5}, r"the model has no emotion 'hapy'.*did you mean.*happy"),
        ({"sad": 1.5}, r"the expected fraction of sad is 1\.5: expected a number from 0 to 1"),
        ({"sad": float("nan")}, r"the expected fraction of sad is nan"),
        ({"sad": 0.7, "happy": 0.7}, r"sum of the expected fractions is 1\.4: expected at most 1"),
        ({"sad": 0.2, "happy": 0.2, "angry": 0.2}, r"sum of the expected fractions is 0\.6: expected 1"),
    ],
)
def test_wrong_expectations_are_refused(bundle, clips, expected, message):
    with pytest.raises(BadConfig, match=message):
        learn_profile([clips], recognizer=Recognizer.load(bundle), expected=expected)


def test_what_can_be_read_only_once_is_refused(bundle):
    for source in ("-", io.BytesIO()):
        with pytest.raises(BadConfig, match=r"can be read only once, but learning a profile needs two passes"):
            learn_profile([source], recognizer=Recognizer.load(bundle))


def test_a_file_that_is_given_twice_is_learned_from_once(bundle, clips):
    recognizer = Recognizer.load(bundle)
    assert learn_profile([clips, *clips.iterdir()], recognizer=recognizer, settings=ALWAYS).recordings == 12
    assert learn_profile([(tone(), RATE), clips], recognizer=recognizer, settings=ALWAYS).recordings == 13


@pytest.mark.slow
def test_the_shipped_model_is_adapted_to_even_sources_and_not_to_one_sided_ones(cremad):
    """Clips of test speakers: six emotions with 8 clips each, and 40 clips of one emotion with 2 of each other one."""
    test = {key.partition("/")[2] for key in Split.load(Bundle.open().file("split.json")).subsets["test"]}
    by_emotion = defaultdict(list)
    for utterance in Source("cremad", str(cremad)).read():
        if utterance.id in test and len(by_emotion[utterance.emotion]) < 40:
            by_emotion[utterance.emotion].append((read_waveform(utterance), RATE))
    recognizer = Recognizer.load()
    even = learn_profile([clip for clips in by_emotion.values() for clip in clips[:8]], recognizer=recognizer)
    assert even.strength > 0.5
    for emotion in recognizer.emotions:
        clips = [clip for name, clips in by_emotion.items() for clip in clips[: 40 if name == emotion else 2]]
        assert learn_profile(clips, recognizer=recognizer).strength < 0.1, emotion


# The commands


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["affekt", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    return exit.value.code


@pytest.mark.slow
def test_adapt_writes_a_profile_that_recognize_uses(bundle, clips, tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.affekt"
    assert run(monkeypatch, "adapt", clips, "--model", bundle, "--output", path, "--expected", "sad=0.5,happy=0.3") == 0
    printed = capsys.readouterr()
    profile = Profile.read(path)
    assert profile.expected == pytest.approx({"angry": 0.2, "happy": 0.3, "sad": 0.5})
    assert printed.out.startswith(f"{path}: {profile.id}, learned from 12 recordings (6 s), for small@")
    assert all(f"note: {note}\n" in printed.err for note in profile.notes)
    assert profile.notes
    assert run(monkeypatch, "recognize", clips / "00.wav", "--model", bundle, "--profile", path, "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert row["profile"] == {"id": profile.id, "recordings": 12}


def test_recognize_adapts_to_its_own_recordings(bundle, clips, monkeypatch, capsys):
    assert run(monkeypatch, "recognize", clips, "--model", bundle, "--adapt", "--json") == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert len(rows) == 12
    (label,) = {json.dumps(row["profile"]) for row in rows}
    assert json.loads(label)["recordings"] == 12
    assert f"adapted: {json.loads(label)['id']}, learned from 12 recordings" in printed.err


@pytest.mark.slow
def test_a_long_recording_adapts_to_itself(bundle, tmp_path, monkeypatch, capsys):
    wave = np.concatenate([babble(8 * RATE, seed=index) * (0.05 + 0.05 * index) for index in range(12)])
    (tmp_path / "long.wav").write_bytes(encode_audio(wave))
    assert run(monkeypatch, "recognize", tmp_path / "long.wav", "--model", bundle, "--adapt", "--json") == 0
    assert json.loads(capsys.readouterr().out)["profile"]["recordings"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recognize", "{clips}", "--adapt", "--profile", "mine.affekt"], "use one or the other"),
        (["recognize", "{clips}", "--expected", "sad=0.5"], "--expected is a setting of --adapt"),
        (["recognize", "{clips}", "--profile", "missing.affekt"], "missing.affekt not found"),
        (["adapt", "{clips}", "--output", "mine.affekt", "--expected", "sad"], "expected EMOTION=FRACTION"),
        (["adapt", "{clips}", "--output", "mine.affekt", "--expected", "sad=0.1,sad=0.2"], "names sad twice"),
        (["adapt", "{clips}/00.wav", "--output", "mine.affekt"], "only 1 clip with speech to learn a profile from"),
        (["adapt", "{clips}", "--output", "no/mine.affekt"], "the folder no does not exist"),
        (["recognize", "{clips}/00.wav", "--adapt", "--output", "rows.txt"], "expected a name ending in .jsonl"),
        (["adapt", "{clips}", "--output", "{clips}/00.wav"], "exists and is not a profile"),
    ],
)
def test_wrong_commands_are_refused(bundle, clips, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code = run(monkeypatch, *(text.format(clips=clips) for text in arguments), "--model", bundle)
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "mine.affekt").exists()
