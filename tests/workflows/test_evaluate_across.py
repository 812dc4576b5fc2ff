"""`evaluate --across`: scores on corpora that a bundle was not trained on, compared with scores computed by hand."""

import json
import shutil
from copy import copy
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from typer.testing import CliRunner

from affekt.bundle.folder import ASSETS, Bundle
from affekt.bundle.training_clips import TrainingClips
from affekt.cli import app
from affekt.corpora.source import Source
from affekt.errors import BadBundle, BadConfig, BadCorpus
from affekt.inference.recognizer import Recognizer
from affekt.reports.across import speech_table
from affekt.reports.card import card
from affekt.utterance import Utterance
from affekt.workflows.draw_recordings import DISJOINT, TRANSDUCTIVE, draw_recordings
from affekt.workflows.evaluate_across import _hash_recipe, evaluate_across, record_across
from affekt.workflows.learn_profile import learn_profile
from tests.conftest import write_tiny_bundle
from tests.corpora.trees import write_noise
from tests.sounds import encode_audio
from tests.synthetic import make_folder

EMOTIONS = ("sad", "fear", "happy", "neutral", "angry")
CLIPS = [
    f"{speaker}/{emotion}/{number}.wav"
    for speaker in ("anna", "ben", "eve")
    for emotion in ("angry", "sad", "surprise")
    for number in range(3)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny bundle that was trained on the corpus `mine`."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_bundle(folder, EMOTIONS, seed=40)
    write_results(folder)
    return folder


def write_results(folder):
    results = {"model": Bundle.open(folder).id, "scores": {}, "data": [{"corpus": "mine", "by": ""}]}
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Three emotions, one of which the model does not have; a silent clip and a damaged one."""
    root = make_folder(tmp_path_factory.mktemp("corpora") / "calls", CLIPS)
    (root / "anna" / "sad" / "silent.wav").write_bytes(encode_audio(np.zeros(16_000)))
    (root / "anna" / "sad" / "damaged.wav").write_bytes(b"RIFF")
    return Source("folder", str(root))


@pytest.fixture(scope="module")
def scores(model, calls):
    return evaluate_across(model, [calls])


def recognize_by_hand(model, source, **settings):
    """Return labels and probabilities of the clips that are scored; a silent clip has None."""
    recognizer = Recognizer.load(model, **settings)
    clips = [u for u in source.read() if u.emotion in EMOTIONS and "damaged" not in u.id]
    rows = [recognizer(utterance.audio).probabilities for utterance in clips]
    return [utterance.emotion for utterance in clips], rows


def test_the_scores_are_those_of_recognizing_each_file(model, calls, scores):
    (entry,) = scores.corpora
    labels, rows = recognize_by_hand(model, calls)
    for outcome, classes in ((entry.as_it_is.own, ("angry", "sad")), (entry.as_it_is.all, EMOTIONS)):
        predicted = [max(classes, key=row.get) if row else "nothing" for row in rows]
        recalls = [
            np.mean([p == e for p, e in zip(predicted, labels, strict=True) if e == name]) for name in ("angry", "sad")
        ]
        assert outcome.UA.value == pytest.approx(np.mean(recalls))
        assert set(outcome.recall) == {"angry", "sad"}
    assert rows.count(None) == entry.as_it_is.refused == 1
    assert sum(entry.as_it_is.answers.values()) == len(rows) - 1
    assert entry.as_it_is.own.UA.value != entry.as_it_is.all.UA.value  # the model confuses them with other classes too


def test_without_refused_clips_ua_is_balanced_accuracy(model, calls):
    source = replace(calls, without=("anna/sad/silent.wav", "anna/sad/damaged.wav"))
    labels, rows = recognize_by_hand(model, source)
    own = [max(("angry", "sad"), key=row.get) for row in rows]
    (entry,) = evaluate_across(model, [source]).corpora
    assert entry.as_it_is.own.UA.value == pytest.approx(balanced_accuracy_score(labels, own))


def test_what_is_not_scored_is_counted(scores):
    (entry,) = scores.corpora
    assert entry.classes == ("sad", "angry")
    assert entry.left_out == {"surprise": 9}
    assert list(entry.unreadable) == ["anna/sad/damaged.wav"]
    assert (entry.speakers, entry.utterances, entry.recognized) == (3, 19, 19)
    assert "valid for these speakers only" in entry.as_it_is.own.intervals


def test_the_manifest_depends_on_what_was_scored(model, calls, scores, tmp_path):
    (entry,) = scores.corpora
    assert len(entry.manifest) == 64
    copy = tmp_path / "calls"
    shutil.copytree(calls.root, copy)
    assert evaluate_across(model, [Source("folder", str(copy))]).corpora[0].manifest == entry.manifest
    write_noise(copy / "anna" / "angry" / "0.wav", seed=5)
    changed = evaluate_across(model, [Source("folder", str(copy))]).corpora[0].manifest
    assert changed != entry.manifest
    fewer = replace(calls, without=("ben/sad/1.wav",))
    assert evaluate_across(model, [fewer]).corpora[0].manifest not in (entry.manifest, changed)


@pytest.fixture
def trained(model, tmp_path):
    """Return a function that makes a copy of the bundle with other training clips."""

    def make(clips):
        shutil.copytree(model, tmp_path / "tiny")
        clips.write(tmp_path / "tiny")
        return tmp_path / "tiny"

    return make


def test_a_corpus_that_was_trained_on_is_refused(model, tmp_path):
    mine = make_folder(tmp_path / "mine", CLIPS)
    with pytest.raises(BadCorpus, match="was trained on mine: --across is for corpora that it was not trained on"):
        evaluate_across(model, [Source("folder", str(mine))])


def test_sounds_that_the_speech_detector_was_trained_on_are_refused(model, bursts, tmp_path):
    shutil.copytree(model, tmp_path / "tiny")
    with (tmp_path / "tiny" / "config.toml").open("a") as stream:
        stream.write('[recipe.detector]\nnot_speech = ["esc10", "emogator/audio/*-03-*"]\n')
    with pytest.raises(BadCorpus, match=r"the speech detector of tiny@\w+ was trained on emogator/audio/\*-03-\*: "):
        evaluate_across(tmp_path / "tiny", [bursts])


def test_clips_that_were_trained_on_are_recognized_by_their_names(trained, calls):
    model = trained(TrainingClips(names=frozenset({"1"})))
    with pytest.raises(
        BadCorpus, match=r"was trained on 9 clips of calls, as their names show: calls/anna/angry/1\.wav"
    ):
        evaluate_across(model, [calls])


def test_clips_that_were_trained_on_are_recognized_by_their_samples(trained, calls):
    model = trained(TrainingClips.of_utterances([u for u in calls.read() if u.id == "eve/sad/2.wav"]))
    with pytest.raises(BadCorpus, match=r"was trained on calls/eve/sad/2\.wav, as its samples show"):
        evaluate_across(model, [calls])


def test_corpora_that_cannot_be_scored_are_refused(model, calls, tmp_path):
    with pytest.raises(BadConfig, match="no corpus is given"):
        evaluate_across(model, [])
    with pytest.raises(BadConfig, match="calls is given twice"):
        evaluate_across(model, [calls, calls])
    other = make_folder(tmp_path / "other", ["anna/sad/1.wav", "anna/bored/1.wav"])
    with pytest.raises(
        BadCorpus, match=r"too few of the emotions of tiny@\w+ \(sad\): expected at least two of sad, fear"
    ):
        evaluate_across(model, [Source("folder", str(other))])


def test_corpora_of_one_name_in_different_folders_are_told_apart(model, tmp_path):
    folders = [make_folder(tmp_path / name / "calls", CLIPS) for name in ("first", "second")]
    entries = evaluate_across(model, [Source("folder", str(folder)) for folder in folders]).corpora
    assert [entry.title for entry in entries] == [str(folder) for folder in folders]
    assert {entry.corpus for entry in entries} == {"calls"}


def test_a_corpus_with_too_few_clips_of_speech_is_scored_without_adaptation(model, tmp_path):
    root = make_folder(
        tmp_path / "quiet", [f"anna/{emotion}/{n}.wav" for emotion in ("angry", "sad") for n in range(3)]
    )
    for number in range(3, 5):
        (root / "anna" / "sad" / f"{number}.wav").write_bytes(encode_audio(np.zeros(16_000)))
    loud = make_folder(tmp_path / "loud", [f"ben/{emotion}/{n}.wav" for emotion in ("angry", "sad") for n in range(4)])
    sources = [Source("folder", str(folder)) for folder in (root, loud)]
    quiet, entry = evaluate_across(model, sources, adapt=8).corpora
    assert quiet.adapted is None
    assert "only 6 clips with speech" in quiet.not_adapted
    assert "| not possible to adapt | - | - |" in speech_table([asdict(quiet)])
    assert entry.adapted
    assert not entry.not_adapted


def test_a_bundle_without_results_is_refused(model, calls, tmp_path):
    shutil.copytree(model, tmp_path / "tiny")
    (tmp_path / "tiny" / "results.json").unlink()
    with pytest.raises(BadBundle, match=r"results\.json"):
        evaluate_across(tmp_path / "tiny", [calls])


@pytest.fixture
def bursts(tmp_path):
    for number, category in enumerate(("03", "05", "24", "24")):
        write_noise(tmp_path / "bursts" / f"{number:06}-{category}-1.wav", seed=number)
    (tmp_path / "bursts" / "000009-03-1.wav").write_bytes(encode_audio(np.zeros(16_000)))
    return Source("emogator", str(tmp_path / "bursts"))


def test_sounds_that_are_not_speech_are_all_recognized(model, bursts):
    (entry,) = evaluate_across(model, [bursts]).corpora
    assert not entry.speech
    assert (entry.recognized, entry.utterances, entry.left_out) == (5, 4, {"other": 1})
    assert entry.as_it_is.refused == 1
    assert sum(entry.as_it_is.answers.values()) == 4


@pytest.fixture
def shipped(tmp_path):
    shutil.copytree(ASSETS / "default", tmp_path / "default", ignore=shutil.ignore_patterns("across.json"))
    return tmp_path / "default"


def as_scores_of(bundle, scores, **changes):
    """Return scores as if they were of another bundle."""
    corpora = tuple(replace(entry, **{"model": bundle.id, **changes}) for entry in scores.corpora)
    recipe = _hash_recipe(bundle)
    return replace(scores, model=bundle.id, emotions=bundle.emotions, recipe=recipe, corpora=corpora)


@pytest.mark.slow
def test_recorded_scores_are_on_the_card_and_in_the_checksums(shipped, scores, model, bursts):
    bundle = Bundle.open(shipped)
    assert "--across CORPUS:FOLDER --record" in card(bundle)
    record_across(as_scores_of(bundle, scores), shipped)
    record_across(as_scores_of(bundle, evaluate_across(model, [bursts])), shipped)
    bundle = Bundle.open(shipped)
    bundle.verify()
    text = bundle.file("README.md").read_text(encoding="utf-8")
    assert text == card(bundle)
    ua = scores.corpora[0].as_it_is.own.UA
    assert f"| calls | - | 3 speakers, 19 utterances, 2 classes | not adapted | {100 * ua.value:.1f} (" in text
    assert (
        "emotions that the model does not have are not scored (surprise 9); 1 recording could not be read; 1 refused"
        in text
    )
    assert "| EmoGator | bursts without words | 5 | 20.0% |" in text
    assert f"manifest {scores.corpora[0].manifest[:12]}" in text


@pytest.mark.slow
def test_scores_of_a_bundle_of_the_same_recipe_are_shown_apart(shipped, scores):
    bundle = Bundle.open(shipped)
    other = as_scores_of(bundle, scores, model="default@00000000", trained_on=("EmoDB",))
    record_across(as_scores_of(bundle, scores), shipped)
    record_across(other, shipped)
    record_across(other, shipped)  # replaces the first
    text = (shipped / "README.md").read_text(encoding="utf-8")
    own, others = text.split("Leave one corpus out")
    assert own.count("| calls | - | 3 speakers, 19") == 1
    assert others.count("| calls | - | EmoDB | 3 speakers, 19") == 1
    with pytest.raises(
        BadConfig, match=r"the scores are of tiny@\w+, which was made with other settings than default@\w+"
    ):
        record_across(scores, shipped)


def test_scores_of_another_bundle_are_not_shown(shipped, scores):
    record_across(as_scores_of(Bundle.open(shipped), scores), shipped)
    content = json.loads((shipped / "across.json").read_text())
    (shipped / "across.json").write_text(json.dumps({**content, "model": "other@12345678"}))
    with pytest.raises(BadBundle, match="has the scores of other@12345678, not of default@"):
        card(Bundle.open(shipped))
    (shipped / "across.json").write_text('{"model": "x", "corpora": [{}]}')
    with pytest.raises(BadBundle, match=r"across\.json"):
        card(Bundle.open(shipped))


def test_the_card_states_what_holds_for_every_recognizer():
    text = card(Bundle.open())
    for phrase in ("Article 5(1)(f)", "Article 50(3)", "August 2026", "macro-F1", "41 %", "not what a person feels"):
        assert phrase in text


def run(*arguments):
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(model, calls, bursts, scores):
    output = run(model, "--across", f"folder:{calls.root}", f"emogator:{bursts.root}")
    own, of_all = (100 * ua.value for ua in (scores.corpora[0].as_it_is.own.UA, scores.corpora[0].as_it_is.all.UA))
    assert f"| not adapted | {own:.1f} (" in output
    assert f") | {of_all:.1f} |" in output  # no interval: all draws are equal
    assert "| refused as no speech |" in output
    assert json.loads(run(model, f"folder:{calls.root}", "--across", "--json")) == json.loads(
        json.dumps(scores.to_json())
    )
    assert "among all classes" not in run(model, "--across", f"folder:{calls.root}", "--emotions", "own")


def test_the_command_records_scores(model, calls, scores, monkeypatch):
    recorded = []
    monkeypatch.setattr("affekt.workflows.evaluate_across.record_across", lambda *arguments: recorded.append(arguments))
    run(model, "--across", f"folder:{calls.root}", "--record", "default")
    assert recorded == [(scores, "default")]
    with pytest.raises(BadConfig, match="nowhere not found"):
        run(model, "--across", f"folder:{calls.root}", "--record", "nowhere")


def test_the_command_restricts_a_corpus_to_a_list_of_clips(model, calls, bursts, tmp_path):
    (tmp_path / "list.txt").write_text("anna/angry/0.wav\nben/sad/0.wav\n")
    output = run(model, "--across", f"folder:{calls.root}", "--only", tmp_path / "list.txt")
    assert "| calls, list.txt | - | 2 speakers, 2 utterances, 2 classes |" in output
    both = (model, "--across", f"folder:{calls.root}", f"emogator:{bursts.root}", "--only")
    assert "| calls, list.txt |" in run(*both, f"calls={tmp_path / 'list.txt'}")
    with pytest.raises(BadConfig, match=r"did you mean 'calls'.*expected CORPUS=FILE"):
        run(*both, f"call={tmp_path / 'list.txt'}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--across", "folder:x", "--emotions", "mine"], "--emotions 'mine': expected own or all"),
        (["--across", "folder:x", "--selection", "last"], "--selection is for runs"),
        (["folder", "x", "--record", "default"], "--emotions, --adapt and --record need --across"),
        (["folder:x", "folder:y", "folder:z"], "to score on several corpora, use --across"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, model):
    with pytest.raises(BadConfig, match=message):
        run(model, *arguments)


class FakeProfile(list):
    """The durations of the recordings that it was learned from."""

    strength = 0.5


@pytest.fixture
def profiles(monkeypatch):
    """Profiles with which the recognizer says happy for everything; the list has one for each call of `learn_profile`."""
    learned = []

    def learn(recordings, *, recognizer, progress):
        assert recognizer
        assert progress is None or callable(progress)
        learned.append(FakeProfile(len(waveform) for waveform, _ in recordings))
        return learned[-1]

    def adapt(recognizer, profile):
        assert profile is learned[-1]
        adapted = copy(recognizer)
        adapted.infer = lambda *_: [float(emotion == "happy") for emotion in EMOTIONS]
        return adapted

    monkeypatch.setattr("affekt.workflows.evaluate_across.learn_profile", learn)
    monkeypatch.setattr(Recognizer, "adapt", adapt, raising=False)
    return learned


def test_the_adapted_scores_are_those_of_an_adapted_recognizer(model, calls):
    source = replace(calls, without=("anna/sad/silent.wav", "anna/sad/damaged.wav"))
    (entry,) = evaluate_across(model, [source], adapt=12).corpora
    _, (draw,) = draw_recordings(source.read(), 12)
    profile = learn_profile([utterance.audio for utterance in draw.recordings], recognizer=Recognizer.load(model))
    labels, rows = recognize_by_hand(model, source, profile=profile)
    assert entry.adapted.strength == profile.strength
    own = [max(("sad", "angry"), key=row.get) for row in rows]
    assert entry.adapted.own.UA.value == pytest.approx(balanced_accuracy_score(labels, own))


def test_the_adapted_model_is_scored_on_the_same_recordings(model, calls, scores, profiles):
    (entry,) = evaluate_across(model, [calls], adapt=10).corpora
    assert replace(entry, adapted=None) == scores.corpora[0]
    assert [len(profile) for profile in profiles] == [10]  # three speakers
    assert (entry.adapted.recordings, entry.adapted.how) == (10, TRANSDUCTIVE)
    assert entry.adapted.answers == {"happy": 18}
    assert entry.adapted.all.UA.value == 0.0
    assert entry.adapted.own.recall["sad"].value == pytest.approx(9 / 10)  # not even the silent clip is happy


def test_with_enough_speakers_two_profiles_score_the_other_half(model, profiles, tmp_path):
    clips = [f"{speaker}/{emotion}/{n}.wav" for speaker in "abcd" for emotion in ("angry", "sad") for n in range(5)]
    source = Source("folder", str(make_folder(tmp_path / "talks", clips)))
    content = evaluate_across(model, [source], adapt=8).to_json()
    assert [len(profile) for profile in profiles] == [8, 8]
    assert content["corpora"][0]["adapted"]["how"] == DISJOINT
    assert "| adapted on 8 unlabeled recordings of other speakers of the same corpus |" in speech_table(
        content["corpora"]
    )


@pytest.mark.usefixtures("profiles")
def test_adaptation_is_stated_in_every_line(model, calls):
    output = run(model, "--across", f"folder:{calls.root}", "--adapt", "9")
    rows = [line for line in output.splitlines() if line.startswith("| calls")]
    assert [row.split(" | ")[3] for row in rows] == ["not adapted", "adapted on 9 unlabeled recordings (transductive)"]


def test_sounds_that_are_not_speech_are_not_adapted_to(model, bursts, profiles):
    assert evaluate_across(model, [bursts], adapt=3).corpora[0].adapted is None
    assert not profiles


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (3, BadConfig, r"--adapt 3: a profile is learned from at least 8 recordings"),
        (500, BadCorpus, r"calls has \d+ recordings, but 500 are to be drawn"),
    ],
)
def test_a_wrong_number_for_adaptation_is_refused_before_a_corpus_is_recognized(
    model, calls, monkeypatch, number, error, message
):
    monkeypatch.setattr(Recognizer, "__call__", lambda *_, **__: pytest.fail("recognized"))
    with pytest.raises(error, match=message):
        evaluate_across(model, [calls], adapt=number)


def utterances(speakers, number):
    return [
        Utterance(f"{speaker}-{n}", "c", None, "sad", speaker=speaker) for speaker in speakers for n in range(number)
    ]


def test_recordings_for_adaptation_are_of_other_speakers():
    everything = utterances("abcde", 10)
    how, draws = draw_recordings(everything, 8)
    assert how == DISJOINT
    speakers = {f"c/{utterance.id}": utterance.speaker for utterance in everything}
    for draw in draws:
        assert len({utterance.id for utterance in draw.recordings}) == 8
        assert not {utterance.speaker for utterance in draw.recordings} & {speakers[key] for key in draw.keys}
    assert sorted(key for draw in draws for key in draw.keys) == sorted(speakers)  # each is scored once
    assert draw_recordings(everything[::-1], 8) == (how, draws)


@pytest.mark.parametrize(
    "everything", [utterances("abc", 10), [*utterances("abcd", 2), *utterances("e", 40)], utterances(["", *"abcd"], 10)]
)
def test_with_few_or_unknown_speakers_the_recordings_are_drawn_from_the_scored_ones(everything):
    how, (draw,) = draw_recordings(everything, 9)
    assert how == TRANSDUCTIVE
    assert len(draw.recordings) == 9
    assert len(draw.keys) == len(everything)


def test_too_few_recordings_to_draw_from_are_refused():
    with pytest.raises(BadCorpus, match="c has 30 recordings, but 31 are to be drawn"):
        draw_recordings(utterances("abc", 10), 31)
