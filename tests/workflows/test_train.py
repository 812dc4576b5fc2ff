"""Training and make_bundle on a small synthetic corpus with a tiny Whisper: runs, resuming, the bundle, its scores."""

import json

import numpy as np
import pytest
import torch

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import rebuild
from affekt.bundle.predictions import LabeledPredictions
from affekt.corpora import corpora
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadBundle, BadConfig, BadCorpus
from affekt.features.store import FeatureStore
from affekt.inference.onnx import Graph
from affekt.inference.recognizer import Recognizer
from affekt.reports.card import card
from affekt.runs.folder import Run
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows.evaluate import evaluate
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import train
from affekt.workflows.training_data import TrainingData
from tests.conftest import shapes_unchecked
from tests.logs import logged
from tests.synthetic import make_cremad, quick_export

pytestmark = pytest.mark.slow  # its fixtures train and export


@pytest.fixture(scope="module")
def messages():
    """The messages that the training of `run` logs."""
    with logged() as messages:
        yield messages


@pytest.fixture(scope="module")
def run(workspace, messages):  # noqa: ARG001 (starts logging)
    (run,) = train(load_recipe(str(workspace / "made.toml")), workspace / "run")
    return run


@pytest.fixture(scope="module")
def bundle(workspace, run):
    with shapes_unchecked():
        return make_bundle(load_recipe(str(workspace / "made.toml")), [run], workspace / "bundle")


def test_a_run_folder_contains_what_scores_are_computed_from(run, messages):
    assert Run(run.folder).epochs == [1, 2, 3]
    assert set(run.predictions(3)) == {"test", "validation"}
    assert run.predictions(3)["test"].shape == (24, 6)
    np.testing.assert_allclose(run.predictions(3)["test"].sum(axis=1), 1, atol=1e-5)
    assert run.split.speaker_independent
    assert not {id.split("_")[0] for id in run.split.subsets["train"]} & {"cremad/1005", "cremad/1010", "cremad/1002"}
    assert run.config["training"]["epochs"] == 3
    assert any("speaker-independent" in line and run.split.hash in line for line in messages)


def test_training_a_finished_run_again_computes_nothing(workspace, run):
    before = (run.folder / "log.jsonl").read_text()
    with logged() as messages:
        train(load_recipe(str(workspace / "made.toml")), run.folder)
    assert any("after epoch 3 of 3" in line for line in messages)
    assert not any("computing" in line for line in messages)
    assert (run.folder / "log.jsonl").read_text() == before


def test_training_is_bit_identical(workspace, run):
    (again,) = train(load_recipe(str(workspace / "made.toml")), workspace / "again")
    np.testing.assert_array_equal(run.predictions(3)["test"], again.predictions(3)["test"])
    (other,) = train(load_recipe(str(workspace / "made.toml"), ["seed=2"]), workspace / "other")
    assert (run.predictions(3)["test"] != other.predictions(3)["test"]).any()


@pytest.mark.slow
def test_the_onnx_file_equals_torch_at_any_length(bundle):
    pipeline, recognizer = rebuild(bundle), Recognizer.load(bundle.folder)
    generator = np.random.default_rng(0)
    for samples in (1600, 1700, 5000, 16_000, 40_000, 100_003, 480_000):
        waveform = generator.normal(size=samples).astype(np.float32)
        with torch.inference_mode():
            expected = pipeline(torch.from_numpy(waveform)[None])[0].numpy()
        np.testing.assert_allclose(recognizer.infer(waveform), expected, atol=1e-4)


def test_the_stored_weights_are_the_rounded_ones_that_were_scored(bundle):
    stored = [tensor for tensor in rebuild(bundle).state_dict().values() if tensor.is_floating_point()]
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in stored)


def test_a_bundle_has_the_statistics_of_its_training_utterances(bundle, workspace, run):
    plan = resolve(load_recipe(str(workspace / "made.toml")))
    training = TrainingData.read(plan.recipe).select(run.split.subsets["train"])
    pipeline = rebuild(bundle)
    with torch.inference_mode():
        outputs = [pipeline.outputs(torch.from_numpy(read_waveform(utterance))[None]) for utterance in training]
    for name in ("speech_mean", "speech_log_std"):
        deviations = torch.cat([output[name] for output in outputs])
        assert deviations.mean(dim=0).abs().max() < 0.01
        assert deviations.abs().max() > 0.05


def test_a_bundle_has_its_test_predictions_and_knows_its_training_data(bundle, workspace, run):
    predictions = LabeledPredictions.of_bundle(bundle)
    assert predictions.utterances == run.split.subsets["test"]
    scores = bundle.results["scores"]["cremad"]["model"]
    accuracy = (predictions.probabilities.argmax(axis=1) == predictions.labels).mean()
    assert accuracy == pytest.approx(scores["WA"]["value"])
    recognizer = Recognizer.load(bundle.folder, error_rate=0.2)
    utterances = {f"cremad/{u.id}": u for u in corpora["cremad"].read(workspace / "cremad")}
    row = recognizer(utterances[run.split.subsets["train"][0]].audio)
    assert row.emotion in row.emotion_set
    assert "unfamiliar" not in row
    assert recognizer((np.sin(np.arange(32_000, dtype=np.float32)), 16_000))["unfamiliar"] > 1


def test_an_interrupted_bundle_is_not_written(bundle, workspace, run, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("affekt.workflows.make_bundle.record_confidence", killed)
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", lambda *_, **__: None)
    recipe = load_recipe(str(workspace / "made.toml"), ["name=other"])
    for folder in (bundle.folder, workspace / "new-bundle"):
        with pytest.raises(KeyboardInterrupt):
            make_bundle(recipe, [run], folder)
    assert Bundle.open(bundle.folder).id == bundle.id
    assert not (workspace / "new-bundle").exists()


def test_making_a_bundle_leaves_the_plans_features_unrounded(workspace, run, tmp_path, monkeypatch):
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    plan = resolve(load_recipe(str(workspace / "made.toml"), ["probes=[]"]))
    weights = plan.frozen_features["speech"].state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    make_bundle(plan, [run], tmp_path / "bundle")
    assert any(not torch.equal(tensor, tensor.half()) for tensor in before.values() if tensor.is_floating_point())
    assert all(torch.equal(weights[name], tensor) for name, tensor in before.items())


def test_each_test_utterance_is_predicted_with_the_onnx_file_once(workspace, run, tmp_path, monkeypatch):
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    call, num_calls = Graph.__call__, []
    monkeypatch.setattr(Graph, "__call__", lambda graph, inputs: num_calls.append(1) or call(graph, inputs))
    make_bundle(load_recipe(str(workspace / "made.toml"), ["probes=[]"]), [run], tmp_path / "bundle")
    # The ONNX file is loaded to predict, for statistics, and to be compared with torch, and each time run on a known input.
    assert len(num_calls) == 3 + len(run.split.subsets["test"])


def test_members_are_trained_with_consecutive_seeds_and_averaged(workspace, run, monkeypatch):
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    recipe = load_recipe(str(workspace / "made.toml"), ["repeats=2", "probes=[]"])
    runs = train(recipe, workspace / "members")
    assert [member.config["seed"] for member in runs] == [1, 2]
    np.testing.assert_array_equal(runs[0].predictions(3)["test"], run.predictions(3)["test"])
    bundle = make_bundle(recipe, runs, workspace / "members-bundle")
    mean = np.mean([member.predictions(3)["test"] for member in runs], axis=0)
    np.testing.assert_allclose(
        predict_with_bundle(bundle, runs[0].split.subsets["test"][:5], workspace), mean[:5], atol=0.02
    )


def predict_with_bundle(bundle, ids, workspace):
    """Return the probabilities of a bundle's network for utterances of the synthetic corpus, (utterances, emotions)."""
    utterances = {f"cremad/{u.id}": u for u in corpora["cremad"].read(workspace / "cremad")}
    pipeline = rebuild(bundle)
    with torch.inference_mode():
        return np.stack([pipeline(torch.from_numpy(read_waveform(utterances[id]))[None])[0].numpy() for id in ids])


def test_the_bundle_predicts_like_the_run(bundle, run, workspace):
    recognizer = Recognizer.load(bundle.folder)
    utterances = {f"cremad/{u.id}": u for u in corpora["cremad"].read(workspace / "cremad")}
    for index, id in enumerate(run.split.subsets["test"][:5]):
        row = recognizer(utterances[id].audio)
        # The run's features are kept in 16 bits, its weights in 32; the bundle's the other way round.
        np.testing.assert_allclose(list(row.probabilities.values()), run.predictions(3)["test"][index], atol=0.02)


def test_the_card_is_written_from_config_and_results(bundle):
    text = (bundle.folder / "README.md").read_text()
    assert text == card(bundle)
    scores = bundle.results["scores"]["cremad"]
    assert f"{100 * scores['model']['UA']['value']:.1f}" in text
    assert set(scores["probes"]) == {"log-mel", "block 2"}
    assert bundle.id in text
    assert bundle.results["agreement"] < 1e-4
    assert scores["speakers"] == 2
    assert "OpenAI" in (bundle.folder / "LICENSE.whisper").read_text()


def test_a_bundle_is_scored_on_its_held_out_speakers(bundle, workspace):
    scores = evaluate(bundle.folder, Source("cremad", str(workspace / "cremad"))).to_json()
    assert scores["utterances"] == 24
    assert scores["speaker_independent"]
    assert scores["UA"] == bundle.results["scores"]["cremad"]["model"]["UA"]
    assert json.loads(json.dumps(scores)) == scores


def test_a_bundle_whose_files_do_not_fit_together_is_refused(bundle, tmp_path):
    for path in bundle.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    Bundle.open(tmp_path).verify()
    (tmp_path / "SHA256SUMS").unlink()
    config = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(config.replace("dim = 16", "dim = 32"))
    with pytest.raises(BadBundle, match=r"do not fit together"):
        rebuild(Bundle.open(tmp_path))
    assert Bundle.open(tmp_path).id != bundle.id
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BadBundle, match=r"has no model\.safetensors; make it again"):
        rebuild(Bundle.open(tmp_path))


@pytest.mark.usefixtures("run")
def test_a_feature_store_is_identified_by_what_its_features_depend_on(workspace):
    stores = list((workspace / "cache" / "features").iterdir())
    described = [json.loads((folder / "description.json").read_text()) for folder in stores]
    whisper = [entry for entry in described if entry["feature"] == "whisper"]
    assert {entry.get("copy", {}).get("number") for entry in whisper} == {None, 0}
    assert not list((workspace / "cache").rglob(".*.npy"))  # no half-written file is left
    store = FeatureStore("whisper", whisper[0], workspace / "cache")
    assert store.folder in stores
    assert FeatureStore("whisper", {**whisper[0], "weights": "other"}, workspace / "cache").folder not in stores


def test_a_corpus_with_a_broken_file_is_refused_with_the_files_name(workspace, tmp_path, monkeypatch):
    make_cremad(tmp_path)
    broken = tmp_path / "cremad" / "AudioWAV" / "1003_ITS_SAD_XX.wav"
    broken.write_bytes(broken.read_bytes()[:1000])
    monkeypatch.setenv("AFFEKT_DATA", str(tmp_path))
    with pytest.raises(BadCorpus, match=r"1 of 72 utterances have no usable audio: 1003_ITS_SAD_XX .* is cut off"):
        train(load_recipe(str(workspace / "made.toml")), tmp_path / "run")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("features.speech.spann=3", "unknown key 'spann'; did you mean 'span'"),
        ("features.speech.name=wisper", "no feature 'wisper'; did you mean 'whisper'"),
        ('corpora=["cremadd"]', "no corpus 'cremadd'; did you mean 'cremad'"),
        ("training.epochs=0", "expected at least 1 epoch"),
        ("training.augmentation.copy_probability=7.0", "copy_probability = 7.0"),
        ("model.heads=5", "heads = 5 does not divide dim = 16"),
        ("repeats=0", "expected at least 1"),
        ("protocol.name=loso", "no protocol 'loso'"),
        ("protocol.tset=[]", "unknown key 'tset'; did you mean 'test'"),
        ('start="default"', r"needs either \[features\] and \[model\], or start"),
        ('selection="validation" # ', "needs a validation subset"),
        ("training.patience=2 # ", "needs a validation subset"),
        ("labels=sixx", "no label set 'sixx'"),
        ('probes=[{name="x",strength=1.0,blocks=[7]}]', r"needs blocks \[7\]"),
        ('probes=[{name="x",strength=1.0,bloks=[1]}]', "unknown key 'bloks'; did you mean 'blocks'"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_computed(workspace, setting, message):
    settings = [setting, "protocol.validation=[]"] if "#" in setting else [setting]
    with pytest.raises(BadConfig, match=message):
        resolve(load_recipe(str(workspace / "made.toml"), settings))


def test_many_utterances_need_few_open_files(workspace, run):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    try:
        (again,) = train(load_recipe(str(workspace / "made.toml")), workspace / "few")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    np.testing.assert_array_equal(run.predictions(3)["test"], again.predictions(3)["test"])


def test_unset_environment_variables_are_named(workspace, monkeypatch, tmp_path):
    recipe = load_recipe(str(workspace / "made.toml"))
    monkeypatch.delenv("AFFEKT_DATA")
    with pytest.raises(BadCorpus, match="AFFEKT_DATA, which is not set"):
        train(recipe, tmp_path / "run")
    monkeypatch.delenv("AFFEKT_MODELS")
    with pytest.raises(BadConfig, match="AFFEKT_MODELS, which is not set"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
