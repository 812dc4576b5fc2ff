"""Training and bundles of models with other streams than speech: audio and text, text alone, and a spectrogram."""

import json
from dataclasses import replace

import numpy as np
import pytest

from affekt.bundle.pipeline import rebuild
from affekt.bundle.text_encoders import load_text_encoders
from affekt.corpora.source import Source
from affekt.errors import BadConfig, BadCorpus
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row
from affekt.inference.transcript import TextSource, Transcript
from affekt.interval import Interval, Word
from affekt.reports.card import card
from affekt.timeline.stream import Stream
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows.embed_files import embed_files
from affekt.workflows.evaluate import evaluate
from affekt.workflows.learn_profile import learn_profile
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.predict import predict_onnx, predict_torch
from affekt.workflows.recognize_files import recognize_files
from affekt.workflows.recognize_manifest import recognize_manifest
from affekt.workflows.train import train
from affekt.workflows.training_data import TrainingData, build_datasets
from affekt.workflows.transcribe_recording import transcribe_recording
from tests.commands import affekt
from tests.conftest import shapes_unchecked
from tests.logs import logged
from tests.synthetic import environment_set, make_cremad

pytestmark = pytest.mark.slow  # its fixtures train and export

RECIPE = """
name = "streams"
labels = "six"
corpora = ["cremad"]
seed = 1

[protocol]
name = "held-out-speakers"
test = ["cremad/1005", "cremad/1010"]

[features.speech]
name = "mfcc"
coefficients = 8

[features.text]
name = "glove"
folder = "words"

[model]
name = "mcsan-small"
dim = 16
heads = 2
feedforward = 16

[training]
epochs = 2
batch_size = 8
threads = 1
"""
CELLS = "{normal=[['sep_conv_3x3',0],['skip_connect',1]],reduce=[['max_pool_3x3',0],['dil_conv_3x3',1]]}"
WORDS = ["don't", "forget", "a", "jacket", "it", "'s", "eleven", "o'clock", "do", "n't"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("streams")
    make_cremad(root)
    generator = np.random.default_rng(0)
    lines = [f"{word} {' '.join(f'{x:.4f}' for x in generator.normal(size=5))}\n" for word in WORDS]
    (root / "words").mkdir()
    (root / "words" / "tiny.txt").write_text("".join(lines))
    (root / "streams.toml").write_text(RECIPE)
    with environment_set(root):
        yield root


def recipe(workspace, *assignments):
    return load_recipe(str(workspace / "streams.toml"), list(assignments))


@pytest.fixture(scope="module")
def run(workspace):
    (run,) = train(recipe(workspace), workspace / "run")
    return run


@pytest.fixture(scope="module")
def bundle(workspace, run):
    with shapes_unchecked():
        return make_bundle(recipe(workspace), [run], workspace / "bundle")


def test_a_batch_has_the_word_index_of_each_token(workspace):
    plan = resolve(recipe(workspace))
    data = TrainingData.read(plan.recipe)
    ((_, split),) = data.folds(plan)
    dataset = build_datasets(plan, plan.build_features(), data, split).train
    batch = dataset.batch([0, 1])
    for utterance_key, word_index in zip(dataset.ids[:2], batch.streams["text"].word_index, strict=True):
        text = data.utterances[utterance_key].text.split()
        assert sorted(set(word_index.tolist()) - {-1}) == list(range(len(text)))
    assert dataset.only("text").batch([0]).streams.keys() == {"text"}


@pytest.mark.slow
def test_a_bundle_with_audio_and_text_predicts_like_torch(workspace, run, bundle):
    utterances = TrainingData.read(recipe(workspace)).select(run.split.subsets["test"])
    predictions = predict_onnx(bundle, utterances)
    np.testing.assert_allclose(
        predict_torch(rebuild(bundle), load_text_encoders(bundle), utterances), predictions, atol=1e-4
    )
    # A bundle's weights are rounded to 16 bits, so its predictions differ slightly from the run's.
    np.testing.assert_allclose(predictions, run.predictions(2)["test"], atol=0.02)
    assert bundle.config["features"]["text"] == {"name": "glove", "folder": "words"}


def test_the_card_of_a_bundle_with_text_names_its_inputs(bundle):
    scores = evaluate(bundle.folder, Source.parse("cremad")).to_json()
    assert scores["utterances"] == 24
    text = bundle.file("README.md").read_text()
    assert text == card(bundle)
    assert "16 kHz waveform of any length from 0.1 s and the transcript as tokens of glove" in text


@pytest.fixture(scope="module")
def recognizer(bundle):
    return Recognizer.load(bundle.folder)


@pytest.fixture
def clip(workspace):
    return next((workspace / "cremad" / "AudioWAV").glob("1005_DFA_ANG*"))


def make_varying_noise(seconds):
    """Return noise whose loudness varies, so that it passes for speech."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=seconds * 16_000).astype(np.float32)
    return noise * np.abs(np.sin(np.arange(noise.size) / 3000)).astype(np.float32)


def test_a_bundle_with_text_recognizes_audio_and_text(bundle, recognizer, clip):
    (utterance,) = [u for u in Source.parse("cremad").read() if u.audio == clip]
    row = recognizer(clip, text=f" {utterance.text}\n")
    expected = predict_onnx(bundle, [utterance])[0]
    np.testing.assert_allclose(list(row.probabilities.values()), expected, atol=1e-6)
    assert (row.text, row["text_by"]) == (utterance.text, "given")
    assert recognizer(clip, text="it 's eleven").probabilities != row.probabilities


def test_without_text_the_error_names_models_that_need_none(recognizer, clip):
    row = recognizer.row(clip)
    assert row.error["code"] == "needs_text"
    assert "needs the words of" in row.error["message"]
    assert "a model that needs no words is default" in row.error["message"]


def test_each_window_has_the_words_whose_middle_is_in_it(recognizer):
    waveform = make_varying_noise(12)
    words = tuple(Word(t + 0.1, t + 0.6, f"w{t}") for t in range(12))
    row = recognizer(
        (waveform, 16_000), text=[Interval(0.0, 6.0, words=words[:6]), Interval(6.0, 12.0, words=words[6:])]
    )
    assert len(row.windows) > 1
    assert " ".join(window.text for window in row.windows) == " ".join(f"w{t}" for t in range(12))
    for window in row.windows:
        assert all(window.start <= (word["start"] + word["end"]) / 2 < window.end for word in window["words"])
    assert Row.read(json.loads(json.dumps(row))) == row
    evenly = recognizer((waveform, 16_000), text=[Interval(0.0, 12.0, text=" ".join(f"w{t}" for t in range(12)))])
    assert [window.text for window in evenly.windows] == [window.text for window in row.windows]
    assert not any("words" in window for window in evenly.windows)  # their times are not known


def test_a_text_without_times_cannot_be_divided(recognizer):
    waveform = make_varying_noise(12)
    with pytest.raises(BadConfig, match=r"has no times, .* give a transcript with times"):
        recognizer((waveform, 16_000), text="a jacket")


def test_a_window_without_words_has_no_emotion_if_the_model_needs_words(recognizer, clip):
    row = recognizer(clip, text=[])
    assert (row.status, row.emotion, row.text) == ("no_words", None, "")


def test_a_model_without_text_keeps_the_words_in_the_row(clip):
    shipped = Recognizer.load()
    row = shipped(clip, text="a jacket")
    assert row.probabilities == shipped(clip).probabilities
    assert row.text == "a jacket"


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_words_are_kept_in_results_files_and_other_words_replace_them(suffix, recognizer, clip, tmp_path):
    output = tmp_path / f"results{suffix}"

    def recognize(text):
        transcript = Transcript("asr:fake", (Interval(0.0, 9.0, words=(Word(0.1, 0.2, text),)),))
        texts = TextSource(transcript.source, lambda _: transcript)
        return list(recognize_files([clip], output, recognizer=recognizer, texts=texts))

    (first,) = recognize("jacket")
    assert first["words"] == [{"start": 0.1, "end": 0.2, "text": "jacket"}]
    (second,) = recognize("jacket")
    assert second.resumed
    assert second == first
    (third,) = recognize_files(
        [clip], output, recognizer=recognizer, texts=TextSource("given", lambda _: Transcript.of("a"), "a")
    )
    assert not third.resumed
    assert third.text == "a"


def test_words_need_one_process(recognizer, clip):
    texts = TextSource("given", lambda _: Transcript.of("a"), "a")
    with pytest.raises(BadConfig, match="2 jobs: recordings with words"):
        next(recognize_files([clip], recognizer=recognizer, texts=texts, jobs=2))


def test_the_words_are_printed_with_their_source(bundle, clip):
    run = affekt("recognize", clip, "--model", bundle.folder, "--text", "a  jacket")
    assert run.stdout.splitlines()[-1] == "  words: a jacket  given"


@pytest.mark.parametrize(
    "use",
    [
        lambda recognizer, _: Stream(recognizer),
        lambda recognizer, clip: list(embed_files([clip], clip.parent / "e.npy", recognizer=recognizer)),
        lambda recognizer, clip: learn_profile([clip], recognizer=recognizer),
        lambda recognizer, clip: recognize_manifest(str(clip), str(clip.parent / "m"), recognizer=recognizer),
    ],
    ids=["stream", "embed", "adapt", "manifest"],
)
def test_what_takes_no_words_refuses_a_model_that_needs_them(use, recognizer, clip):
    with pytest.raises(
        BadConfig, match=r"needs words, which .* cannot take: use a model of audio only, such as default"
    ):
        use(recognizer, clip)


class FakeWhisper:
    """Says at which second each part begins."""

    name = "asr:fake"

    def find_intervals(self, waveform, language):
        assert language == "de"
        seconds = waveform.size / 16_000
        assert seconds <= 28
        return [Interval(0.0, seconds, text="part", words=(Word(0.0, seconds, "part"),))]


def test_a_long_recording_is_transcribed_in_parts():
    waveform = make_varying_noise(61)
    done = []
    transcript = transcribe_recording((waveform, 16_000), FakeWhisper(), language="de", progress=done.append)
    assert transcript.source == "asr:fake"
    assert len(transcript.intervals) >= 3
    starts, ends = zip(*((interval.start, interval.end) for interval in transcript.intervals), strict=True)
    assert starts == (0.0, *ends[:-1])
    assert done == list(ends)
    assert ends[-1] == 61


@pytest.mark.slow
def test_a_model_of_text_alone_needs_no_audio(workspace):
    alone = replace(recipe(workspace, "model.modalities=text"), features={"text": {"name": "glove", "folder": "words"}})
    assert resolve(alone).streams == ("text",)
    (run,) = train(alone, workspace / "alone")
    assert run.predictions(2)["test"].shape == (24, 6)
    with shapes_unchecked():
        bundle = make_bundle(alone, [run], workspace / "alone-bundle")
    assert evaluate(bundle.folder, Source.parse("cremad")).scores.utterances == 24


def test_an_unused_stream_is_logged(workspace):
    with logged() as messages:
        train(recipe(workspace, "model.modalities=speech", "training.epochs=1"), workspace / "speech")
    assert "mcsan-small does not use text with these settings" in messages


def test_streams_that_do_not_fit_the_model_are_refused(workspace):
    with pytest.raises(BadConfig, match=r"no feature provides it: add \[features\.text\]"):
        resolve(replace(recipe(workspace), features={"speech": {"name": "mfcc"}}))
    with pytest.raises(BadConfig, match=r"features\.speaker: mcsan-small has no such stream"):
        resolve(recipe(workspace, "features.speaker.name=mfcc"))
    with pytest.raises(BadConfig, match=r"features\.speech: glove takes text"):
        resolve(recipe(workspace, "features.speech={name='glove', folder='words'}"))
    with pytest.raises(BadConfig, match="no preset 'smal'; did you mean 'small'"):
        resolve(recipe(workspace, "model.name=mcsan-smal"))


def test_utterances_without_text_are_counted_in_the_error(workspace, tmp_path):
    rows = ["id,audio,emotion,speaker,text"]
    for number, clip in enumerate(sorted((workspace / "cremad" / "AudioWAV").glob("*.wav"))[:12]):
        rows.append(
            f"{number},{clip},{'happy' if number % 2 else 'sad'},{number % 4},{'' if number == 3 else 'a jacket'}"
        )
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    words = recipe(
        workspace, f'corpora=["table:{tmp_path / "table.csv"}"]', 'protocol={name="speaker-folds",k=2}', "labels=all"
    )
    with pytest.raises(
        BadCorpus, match=r"1 of \d+ utterances have no glove: .* 3: it has no text; affekt corpus trans"
    ):
        train(words, tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ("encoder.name=mfcc", "features.speech"),
        ("streams.text.name=glove", "features"),
        ("branches.recurrent=runs", "weights_from"),
        ("training.part=train", "subset"),
        ("training.optimisation.clip=1.0", "strategy"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(workspace, setting, name):
    with pytest.raises(BadConfig, match=f"was renamed to '{name}'"):
        recipe(workspace, setting)


@pytest.mark.slow
def test_all_features_of_the_waveform_are_in_the_graph(workspace):
    features = "features={speech={name='mfcc',coefficients=8},spectrogram={name='spectrogram',hop=0.02,bins=16}}"
    both = recipe(
        workspace,
        features,
        "model={name='emotionnas-fusion-small',frozen=false}",
        f"model.spectrogram={{frames=32,shrink=2,input_dim=16,channels=4,nodes=1,cells=1,genotype={CELLS}}}",
        "model.recurrent={frames=4,stride=25,hidden=8,layers=1}",
    )
    assert resolve(both).streams == ("spectrogram", "speech")
    (run,) = train(both, workspace / "both")
    with shapes_unchecked():
        bundle = make_bundle(both, [run], workspace / "both-bundle")
    assert bundle.config["lengths"] == {"spectrogram": 32, "speech": 4}
    assert "The stream spectrogram has 32 frames" in bundle.file("README.md").read_text()
    row = Recognizer.load(bundle.folder)(next((workspace / "cremad" / "AudioWAV").glob("*.wav")))
    assert row.status == "ok"
