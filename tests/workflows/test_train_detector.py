"""The speech detector of a bundle: which sounds it is trained and scored on, and that the bundle refuses them."""

import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from affekt.bundle.folder import Bundle
from affekt.errors import BadConfig
from affekt.features.generated import MAKERS, generate
from affekt.inference.recognizer import Recognizer
from affekt.training.detection import DetectorConfig
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows import train_detector
from affekt.workflows.evaluate import evaluate
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import train
from tests.conftest import shapes_unchecked
from tests.sounds import noise
from tests.synthetic import environment_set, make_data_root, quick_export

GATE = "\n[features.speech.gate]\n"


def write_sounds(root):
    """Write two kinds of sounds below animals/audio/, and some further speech in spoken/."""
    for kind in ("cat", "dog"):
        (root / "animals" / "audio" / kind).mkdir(parents=True)
        for number in range(5):
            soundfile.write(root / "animals" / "audio" / kind / f"{number}.wav", 0.3 * noise(9600, number), 16_000)
    (root / "spoken").mkdir()
    for number in range(5):
        soundfile.write(root / "spoken" / f"{number}.wav", 0.1 * noise(176_000, number), 16_000)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    root = tmp_path_factory.mktemp("workspace")
    make_data_root(root)
    write_sounds(root)
    with environment_set(root):
        yield root


def test_files_have_the_kind_of_their_folder_and_the_last_fifth_is_held_out(workspace):
    files = train_detector._find(["animals", "spoken/*.wav", str(workspace / "spoken")])
    assert [file.kind for file in files] == ["animals/cat"] * 5 + ["animals/dog"] * 5 + ["spoken"] * 5
    assert [(file.kind, file.path.name) for file in train_detector._held_out(files)] == [
        ("animals/cat", "4.wav"),
        ("animals/dog", "4.wav"),
        ("spoken", "4.wav"),
    ]
    assert train_detector._held_out(files[:4]) == []


def test_long_files_are_cut_into_pieces_and_short_ones_left_out():
    assert [piece.size for piece in train_detector.cut_pieces(noise(176_000))] == [58_667, 58_667, 58_666]
    assert train_detector.cut_pieces(noise(7000)) == []


@pytest.mark.usefixtures("workspace")
def test_a_missing_folder_of_sounds_is_named():
    for pattern in ("plants", "animals/*.mp3"):
        with pytest.raises(BadConfig, match=rf"detector: .*{re.escape(pattern)} has no sound files; expected a folder"):
            train_detector._find([pattern])


def test_a_detector_needs_speech_with_a_time_axis_and_no_text(workspace):
    recipe = load_recipe(str(workspace / "made.toml"), ["detector.generated=5"])
    assert resolve(recipe).recipe.detector == DetectorConfig(generated=5)
    assert "detector" not in resolve(recipe).config()  # it changes no training run
    text = {"speech": recipe.features["speech"], "text": {"name": "glove", "folder": "nowhere"}}
    with pytest.raises(BadConfig, match="needs a text; only a model of audio alone can refuse"):
        resolve(replace(recipe, features=text, model={"name": "mcsan"}))


@pytest.fixture(scope="module")
def bundle(workspace):
    """A bundle that was trained on tones as speech, of two seconds of training in all."""
    recipe = load_recipe(
        str(workspace / "made.toml"),
        [
            "training.epochs=1",
            "probes=[]",
            'detector={not_speech=["animals"], generated=8, copies=1}',
            "features.speech.gate={}",
            "features.speech.blocks=[1]",
            "model.name=vanilla",
        ],
    )
    runs = train(recipe, workspace / "run")
    with shapes_unchecked():
        return make_bundle(recipe, runs, workspace / "bundle")


@pytest.mark.slow
def test_a_bundle_refuses_the_sounds_that_it_was_trained_on(bundle):
    recognizer = Recognizer.load(bundle.folder)
    rows = [recognizer(generate(kind, number), 16_000) for kind in MAKERS for number in range(8)]
    rows = [row for row in rows if row.status != "silence"]
    assert np.mean([row.status == "no_speech" for row in rows]) > 0.6


@pytest.mark.slow
def test_the_results_the_card_and_evaluate_state_what_was_refused(bundle, capsys):
    kinds = bundle.results["detector"]
    assert {"animals/cat", "animals/dog", *(f"generated/{kind}" for kind in MAKERS)} == set(kinds)
    assert (kinds["animals/cat"]["sounds"], kinds["generated/hum"]["sounds"]) == (1, 20)
    threshold = bundle.config["detector"]["threshold"]
    assert Recognizer.load(bundle.folder).graph.speech_threshold == threshold
    text = (bundle.folder / "README.md").read_text(encoding="utf-8")
    hum = kinds["generated/hum"]
    assert f"| generated/hum | no | {hum['refused']} of 20 |" in text
    assert "It does not detect speech" not in text
    (scores,) = bundle.results["scores"].values()
    assert f"it refuses {scores['model']['refused']} of 24;" in text
    from affekt.cli.scores import print_scores
    from affekt.corpora.source import Source

    content = evaluate(bundle.folder, Source.parse("cremad")).to_json()
    assert content["not_speech"] == kinds
    print_scores(content)
    refused = sum(entry["refused"] for entry in kinds.values())
    assert f"refused {refused} of 142 held-out sounds that are not speech" in capsys.readouterr().out


@pytest.mark.slow
def test_fine_tuning_keeps_the_detector_of_a_frozen_encoder(bundle, workspace, monkeypatch):
    from affekt.corpora.source import Source
    from affekt.workflows.finetune import plan_finetuning

    plan, data = plan_finetuning(str(bundle.folder), [Source.parse("cremad")], "mine", ["training.epochs=1"])
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    with shapes_unchecked():
        tuned = make_bundle(plan, train(plan, workspace / "tuned", data=data), workspace / "mine", data=data)
    assert tuned.config["detector"] == bundle.config["detector"]
    assert Bundle.open(workspace / "mine").results["detector"] == {}
