"""Fine-tuning on your own data, from a folder or a table, and the bundle that it makes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import rebuild
from affekt.bundle.training_clips import TrainingClips
from affekt.cli.train import train as command
from affekt.corpora.source import Source
from affekt.corpora.waveforms import read_waveform
from affekt.errors import BadConfig, BadCorpus, BadOutput
from affekt.evaluation.calibration import average_at_temperature, fit_temperature
from affekt.inference.recognizer import Recognizer
from affekt.reports.card import card
from affekt.runs.folder import Run
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows.evaluate import evaluate
from affekt.workflows.finetune import finetuning_recipe
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import train
from tests.conftest import shapes_unchecked
from tests.logs import logged
from tests.synthetic import environment_set, make_data_root, make_folder, quick_export

pytestmark = pytest.mark.slow  # its fixtures train

SMALL = ["training.threads=1", "training.epochs=2"]
TUNED = [*SMALL, "training.tune=all", "training.strategy.encoder_rate=0.5"]
EMOTIONS = ("angry", "bored", "happy", "sad")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with synthetic data, models and a recipe, and with `calls`: clips of four speakers in a folder corpus."""
    root = tmp_path_factory.mktemp("workspace")
    make_data_root(root)
    people = ("anna", "ben", "cem", "dora")
    make_folder(root / "calls", [f"{p}/{e}/{n}.wav" for p in people for e in EMOTIONS for n in range(2)], seed=1)
    with environment_set(root):
        yield root


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)


@pytest.fixture(scope="module")
def start(workspace):
    """A bundle to start from, trained on the synthetic CREMA-D."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
        recipe = load_recipe(str(workspace / "made.toml"), ["probes=[]", "temperature=fitted", "model.name=vanilla"])
        return make_bundle(recipe, train(recipe, workspace / "start-run"), workspace / "start")


def finetune(start, workspace, settings=SMALL, source="", name="mine"):
    """Fine-tune a bundle; return the recipe, the runs and the new bundle."""
    sources = [Source.parse(source or f"folder:{workspace / 'calls'}")]
    recipe = finetuning_recipe(str(start.folder), sources, name, list(settings))
    folder = workspace / f"run-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    runs = train(recipe, folder)
    return recipe, runs, make_bundle(recipe, runs, workspace / name)


def predict_with_bundle(bundle, utterances):
    pipeline = rebuild(bundle)
    with torch.inference_mode():
        return np.stack(
            [pipeline(torch.from_numpy(read_waveform(utterance))[None])[0].numpy() for utterance in utterances]
        )


# The command


def test_the_command_makes_a_bundle_that_recognizes(start, workspace, capsys):
    output = workspace / "one-command"
    with shapes_unchecked():
        command(SMALL, str(start.folder), [f"folder:{workspace / 'calls'}"], run=workspace / "run-one", output=output)
    output_text = capsys.readouterr().out
    bundle = Bundle.open(output)
    assert bundle.emotions == EMOTIONS
    row = Recognizer.load(output)(workspace / "calls" / "anna" / "bored" / "0.wav")
    assert set(row.probabilities) == set(EMOTIONS)
    assert output_text.splitlines()[-1] == f"{bundle.id} written to {output}; model card: {output / 'README.md'}"
    assert "8 held-out utterances, speaker-independent" in output_text
    text = bundle.file("README.md").read_text(encoding="utf-8")
    assert text == card(bundle)
    assert "On speakers held out from training" in text
    assert "Output: probabilities of angry, bored, happy, sad." in text
    assert f"Fine-tuned from {start.id} on calls" in text
    assert bundle.results["agreement"] < 1e-4
    assert {path.name for path in output.iterdir()} >= {"split.json", "results.json", "LICENSE.whisper"}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("settings", [SMALL, TUNED])
def test_the_command_reads_the_data_and_opens_the_bundle_only_once(start, workspace, tmp_path, monkeypatch, settings):
    opened, read = [], []
    open_bundle, read_source = Bundle.open, Source.read
    monkeypatch.setattr(Bundle, "open", staticmethod(lambda *args: opened.append(args) or open_bundle(*args)))
    monkeypatch.setattr(Source, "read", lambda source: read.append(source) or read_source(source))
    corpus, folder = f"folder:{workspace / 'calls'}", tmp_path / "new"
    command(settings, str(start.folder), [corpus], run=tmp_path / "run", output=folder)
    assert len(read) == 1
    assert opened.count((str(start.folder),)) == 1
    others = {Path(args[0]) for args in opened} - {start.folder}
    assert folder in others
    assert all(path.parent == tmp_path and path.name.startswith(".new.") for path in others - {folder})


@pytest.mark.usefixtures("quick")
def test_the_encoder_can_be_fine_tuned_and_the_bundle_predicts_like_the_run(start, workspace):
    recipe, (run,), bundle = finetune(start, workspace, TUNED, name="tuned")
    before, after = rebuild(start).encoder.state_dict(), rebuild(bundle).encoder.state_dict()
    assert torch.equal(before["embed_positions.weight"], after["embed_positions.weight"])
    assert not torch.equal(before["layers.1.fc1.weight"], after["layers.1.fc1.weight"])
    utterances = {f"calls/{u.id}": u for u in recipe.sources[0].read()}
    predictions = predict_with_bundle(bundle, [utterances[id] for id in run.split.subsets["test"]])
    expected = average_at_temperature([run.predictions(2)["test"]], float(rebuild(bundle).temperature))
    # The run has front-end frames in 16 bits and weights in 32 bits; in the bundle it is the other way round.
    np.testing.assert_allclose(predictions, expected, atol=0.02)
    assert "fine-tuned)" in bundle.file("README.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("quick")
def test_unknown_speakers_are_stated_on_the_card(start, workspace):
    make_folder(workspace / "anybody", [f"{emotion}/{n}.wav" for emotion in ("happy", "content") for n in range(8)])
    _, (run,), bundle = finetune(start, workspace, source=f"folder:{workspace / 'anybody'}", name="unknown")
    assert run.split.verdict == "speakers unknown"
    assert len(run.split.subsets["test"]) == 3
    text = bundle.file("README.md").read_text(encoding="utf-8")
    assert "Not all speakers are known" in text
    assert "random hold-out" in text
    assert "0 speakers" not in text


@pytest.mark.usefixtures("quick")
def test_the_data_can_be_a_table(start, workspace):
    lines = [
        f"calls/{p}/{e}/{n}.wav,{p},{e}" for p in ("anna", "ben", "cem") for e in ("angry", "sad") for n in range(2)
    ]
    (workspace / "rows.csv").write_text("clip,who,feeling\n" + "\n".join(lines).replace(",sad", ",gloomy") + "\n")
    columns = ["audio=clip", "speaker=who", "emotion=feeling"]
    output = workspace / "of-a-table"
    command(
        SMALL,
        str(start.folder),
        [f"table:{workspace / 'rows.csv'}"],
        columns,
        ["gloomy=sad"],
        run=workspace / "run-table",
        output=output,
    )
    bundle = Bundle.open(output)
    assert bundle.emotions == ("angry", "sad")
    assert bundle.config["protocol"]["verdict"] == "speaker-independent"
    assert bundle.config["recipe"]["corpora"][0]["emotions"] == {"gloomy": "sad"}


# The bundle to start from


@pytest.mark.usefixtures("quick")
def test_with_a_learning_rate_of_zero_the_model_stays_the_same(start, workspace):
    emotions = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
    for path in (workspace / "cremad" / "AudioWAV").iterdir():
        speaker, _, letters, _ = path.stem.split("_")
        target = workspace / "same" / speaker / emotions[letters] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    settings = [*SMALL, "training.strategy.learning_rate=0.0"]
    _, _, bundle = finetune(start, workspace, settings, f"folder:{workspace / 'same'}", "still")
    assert float(rebuild(start).temperature) != 1.0  # by which the output layer was divided
    utterances = Source("folder", str(workspace / "same")).read()[:6]
    np.testing.assert_allclose(
        predict_with_bundle(bundle, utterances), predict_with_bundle(start, utterances), atol=1e-3
    )


@pytest.mark.usefixtures("quick")
def test_the_card_has_the_licenses_of_earlier_training_corpora(start, workspace):
    _, _, bundle = finetune(start, workspace)
    data = bundle.results["data"]
    assert [(entry["corpus"], entry["by"]) for entry in data] == [("calls", ""), ("cremad", start.id)]
    text = bundle.file("README.md").read_text(encoding="utf-8")
    assert "Open Database License" in text
    assert f"used by {start.id}, from which this model was fine-tuned" in text
    assert "from Whisper (tiny-whisper: front end" in text


@pytest.mark.usefixtures("quick")
def test_speakers_of_earlier_training_are_not_independent(start, workspace):
    _, (run,), bundle = finetune(start, workspace, source="cremad", name="same-speakers")
    assert run.split.verdict == "NOT speaker-independent"
    assert f"already in the training data of {start.id}" in bundle.file("README.md").read_text(encoding="utf-8")
    settings = [*SMALL, 'protocol={name="held-out-speakers",test=["cremad/1005","cremad/1010"]}', "folds=[]"]
    _, (run,), _ = finetune(start, workspace, settings, "cremad", "new-speakers")
    assert run.split.verdict == "speaker-independent"
    merged = [*SMALL, "labels=six"]
    _, _, again = finetune(start, workspace, merged, f"folder:{make_six(workspace)}", "again")
    scores = evaluate(again.folder, Source("cremad")).to_json()
    assert scores["protocol"].startswith("a corpus that was trained on before fine-tuning: all 72")
    assert not scores["speaker_independent"]


@pytest.mark.usefixtures("quick")
def test_the_card_states_the_split_of_the_data_and_that_test_clips_were_trained_on_before(start, workspace):
    clips = [f"{subset}/{e}/{n}.wav" for subset in ("train", "dev", "test") for e in ("angry", "sad") for n in range(4)]
    root = make_folder(workspace / "split", clips, seed=1)
    _, (run,), bundle = finetune(start, workspace, source=f"folder:{root}", name="given-split")
    assert {subset: len(keys) for subset, keys in run.split.subsets.items()} == {"train": 8, "validation": 8, "test": 8}
    assert "subsets as in the data: train 8, validation 8, test 8" in bundle.file("README.md").read_text(
        encoding="utf-8"
    )
    shutil.copyfile(workspace / "cremad/AudioWAV/1001_DFA_ANG_XX.wav", root / "test/angry/copy.wav")
    _, _, bundle = finetune(start, workspace, source=f"folder:{root}", name="known-clips")
    text = bundle.file("README.md").read_text(encoding="utf-8")
    assert f"On test utterances of which 1 was already in the training data of {start.id}" in text
    assert "NOT speaker-independent" in text
    scores = evaluate(start.folder, Source("folder", str(root))).to_json()
    assert scores["protocol"] == "a corpus with clips that were trained on (1): all 25 utterances"
    assert not scores["speaker_independent"]
    known = TrainingClips.of_bundle(bundle)  # of this training and of the earlier one
    assert len(known.hashes) == 8 + len(start_names := TrainingClips.of_bundle(start).names)
    assert start_names == known.names


def make_six(workspace):
    emotions = ("angry", "disgust", "fear", "happy", "neutral", "sad")
    return make_folder(workspace / "six", [f"{p}/{e}/1.wav" for p in ("anna", "ben", "cem") for e in emotions])


@pytest.mark.usefixtures("quick")
def test_a_fitted_temperature_is_that_of_the_validation_subset(start, workspace):
    run = Run(workspace / "start-run")
    labels, predicted = run.labels("validation"), run.predictions(3)["validation"]
    assert start.config["temperature"] == pytest.approx(fit_temperature(labels, [predicted]), rel=1e-3)
    utterances = {f"cremad/{u.id}": u for u in Source("cremad").read()}
    ids = run.split.subsets["test"][:4]
    expected = average_at_temperature([run.predictions(3)["test"][:4]], start.config["temperature"])
    np.testing.assert_allclose(predict_with_bundle(start, [utterances[id] for id in ids]), expected, atol=0.02)


# Errors and warnings


def test_a_folder_that_is_not_a_bundle_is_never_replaced(start, workspace, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wedding.jpg").write_text("dear")
    for output in (tmp_path / "photos", tmp_path / "photos" / "wedding.jpg"):
        with pytest.raises(BadOutput, match="exists and is not a bundle"):
            command(SMALL, str(start.folder), [f"folder:{workspace / 'calls'}"], run=tmp_path / "run", output=output)
    assert (tmp_path / "photos" / "wedding.jpg").read_text() == "dear"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (["happy/1.wav", "sad/1.wav", "angry/1.wav"], "3 utterances are too few for .*: expected 10 or more"),
        ([f"anna/happy/{n}.wav" for n in range(12)], "all 12 utterances are happy: expected .* two emotions"),
        ([], r"has no utterance of a folder of recordings"),
    ],
)
def test_data_with_too_few_utterances_or_emotions_are_refused(start, tmp_path, clips, message):
    (tmp_path / "data").mkdir()
    make_folder(tmp_path / "data", clips)
    with pytest.raises(BadCorpus, match=message):
        train(
            finetuning_recipe(str(start.folder), [Source("folder", str(tmp_path / "data"))], "x", SMALL),
            tmp_path / "run",
        )


def test_a_file_that_cannot_be_read_is_named_before_training(start, workspace, tmp_path):
    shutil.copytree(workspace / "calls", tmp_path / "calls")
    (tmp_path / "calls" / "ben" / "sad" / "1.wav").write_bytes(b"no sound at all")
    recipe = finetuning_recipe(str(start.folder), [Source("folder", str(tmp_path / "calls"))], "x", SMALL)
    with pytest.raises(BadCorpus, match=r"1 of \d+ utterances have no usable audio: ben/sad/1\.wav"):
        train(recipe, tmp_path / "run")


def test_the_chosen_fold_has_every_emotion_in_training_and_test(tmp_path):
    """Only dora and emil are bored: one of them must be in the training subset and the other in the test subset."""
    people = ("anna", "ben", "cem", "dora", "emil")
    clips = [f"{p}/{e}/{n}.wav" for p in people for e in ("happy", "sad") for n in range(3)]
    clips += [f"{p}/bored/{n}.wav" for p in ("dora", "emil") for n in range(3)]
    make_folder(tmp_path / "data", clips)
    recipe = finetuning_recipe("default", [Source("folder", str(tmp_path / "data"))], "x")
    utterances = recipe.sources[0].read()
    split = resolve(recipe).protocol.folds(utterances)[recipe.folds[0] - 1]
    assert all(any("/bored/" in utterance_key for utterance_key in split.subsets[name]) for name in ("train", "test"))


@pytest.mark.usefixtures("quick")
def test_an_emotion_missing_from_training_or_test_is_reported(start, tmp_path):
    clips = [f"{p}/{e}/{n}.wav" for p in ("anna", "ben", "cem") for e in ("happy", "sad") for n in range(3)]
    make_folder(tmp_path / "data", [*clips, "anna/bored/1.wav"])
    lines = []
    for speaker, name in (("anna", "not-trained"), ("ben", "not-tested")):
        settings = [*SMALL, f'protocol={{name="held-out-speakers",test=["data/{speaker}"]}}', "folds=[]"]
        recipe = finetuning_recipe(str(start.folder), [Source("folder", str(tmp_path / "data"))], name, settings)
        with logged() as messages:
            runs = train(recipe, tmp_path / name)
        lines += messages
    assert sum("is bored, so it cannot be learned" in line for line in lines) == 1
    bundle = make_bundle(recipe, runs, tmp_path / "not-tested-bundle")
    assert "data: the test set has no utterance of bored" in bundle.file("README.md").read_text(encoding="utf-8")


def test_encoders_of_several_seeds_cannot_make_a_bundle(start, workspace, tmp_path):
    recipe = finetuning_recipe(
        str(start.folder), [Source("folder", str(workspace / "calls"))], "x", [*TUNED, "repeats=2"]
    )
    message = "trains an encoder for each seed, and a bundle has only one: set repeats = 1"
    with pytest.raises(BadConfig, match=message):
        train(recipe, tmp_path / "run", one_model=True)
    assert not (tmp_path / "run").exists()
    runs = train(recipe, tmp_path / "run")
    with pytest.raises(BadConfig, match=message):
        make_bundle(recipe, runs, tmp_path / "bundle")


def test_several_folds_are_scored_together_but_cannot_make_a_bundle(start, workspace, tmp_path):
    arguments = ["training.threads=1", "training.epochs=1", "folds=[]"]
    corpus = f"folder:{workspace / 'calls'}"
    with pytest.raises(
        BadConfig, match=r"has 4 folds, and a bundle is made of one: choose a fold, such as folds=\[1\]"
    ):
        command(arguments, str(start.folder), [corpus], run=tmp_path / "run", output=tmp_path / "bundle")
    command(arguments, str(start.folder), [corpus], run=tmp_path / "run")
    scores = evaluate(tmp_path / "run", Source.parse(corpus)).to_json()
    assert scores["utterances"] == 32
    assert [run["fold"] for run in scores["runs"]] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4"]


# Interruptions

COMMAND = [sys.executable, "-W", "error", "-m", "affekt", "train"]


def kill_when(arguments, folder, ready):
    """Run the command until `ready()` is true, kill it, and return its exit status."""
    with subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdout=subprocess.DEVNULL) as process:
        for _ in range(6000):
            if ready() or process.poll() is not None:
                break
            time.sleep(0.005)
        process.kill()
    return process.returncode


def test_a_killed_command_resumes_to_the_same_weights(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path / "cache"))
    arguments = [str(workspace / "made.toml"), "training.epochs=6", "training.augmentation.copies=0", "--run", "run"]

    def stored():
        return len(list((tmp_path / "cache").rglob("*.npy")))

    assert kill_when(arguments, tmp_path, lambda: stored() > 3) == -signal.SIGKILL
    assert 0 < stored() < 72
    first = tmp_path / "run" / "predictions" / "0001.npz"
    assert kill_when(arguments, tmp_path, first.is_file) == -signal.SIGKILL
    assert Run(tmp_path / "run").epochs[-1] < 6
    environ = {**os.environ, "COLUMNS": "80"}
    last = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert "computing" not in last.stdout
    assert all(len(line) <= 100 for line in last.stdout.splitlines() if line.startswith("epoch"))
    (whole,) = train(load_recipe(arguments[0], arguments[1:3]), tmp_path / "whole")
    resumed = Run(tmp_path / "run")
    assert resumed.epochs == whole.epochs
    np.testing.assert_array_equal(resumed.predictions(6)["test"], whole.predictions(6)["test"])
    assert Path(resumed.weights_path(6)).read_bytes() == Path(whole.weights_path(6)).read_bytes()


def test_the_recipe_in_a_bundle_can_be_read(start):
    from affekt.config import decode
    from affekt.training.recipe import Recipe

    config = json.loads(json.dumps(start.config["recipe"]))
    assert decode(Recipe, config, "config.toml").name == "made"


def test_votes_of_several_annotators_are_learned_and_stored_in_the_recipe(tmp_path):
    rows = "".join(f"{n}.wav;happy;s{n % 4}\n{n}.wav;{('sad', 'happy')[n % 2]};s{n % 4}\n" for n in range(12))
    (tmp_path / "calls.csv").write_text("file;emotion;speaker\n" + rows)
    source = Source("table", str(tmp_path / "calls.csv"), annotators="votes", delimiter=";")
    recipe = finetuning_recipe("default", [source], "x")
    assert recipe.training.votes == 1.0
    assert tuple(recipe.sources) == (source,)
    assert {tuple(u.votes.values()) for u in recipe.sources[0].read()} == {(0.5, 0.5), (1.0,)}
    assert finetuning_recipe("default", [source], "x", ["training.votes=0.5"]).training.votes == 0.5
