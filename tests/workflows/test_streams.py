"""Training and bundles of models with other streams than speech: audio and text, text alone, and a spectrogram."""

from dataclasses import replace

import numpy as np
import pytest

from affekt.bundle.pipeline import rebuild
from affekt.corpora.source import Source
from affekt.errors import BadBundle, BadConfig, BadCorpus
from affekt.inference.recognizer import Recognizer
from affekt.reports.card import card
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows.evaluate import evaluate
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.predict import predict_onnx, predict_torch, text_encoders
from affekt.workflows.train import train
from affekt.workflows.training_data import TrainingData, build_datasets
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
        predict_torch(rebuild(bundle), text_encoders(bundle), utterances), predictions, atol=1e-4
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


def test_the_recognizer_refuses_a_bundle_that_needs_text(bundle):
    with pytest.raises(BadBundle, match=r"needs waveform, text, text_mask, but"):
        Recognizer.load(bundle.folder)


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
