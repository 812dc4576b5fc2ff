"""`evaluate`: scores of runs over folds and seeds, compared with scores computed by hand, and scores on other corpora."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from affekt.cli.scores import print_scores
from affekt.corpora.source import Source
from affekt.errors import BadConfig, BadCorpus
from affekt.evaluation.metrics import ece
from affekt.inference.recognizer import Recognizer
from affekt.runs.selection import RULES, select_epoch
from affekt.training.recipe import load_recipe
from affekt.workflows.evaluate import evaluate
from affekt.workflows.learn_profile import learn_profile
from affekt.workflows.make_bundle import make_bundle
from affekt.workflows.train import train
from tests.logs import logged
from tests.synthetic import ACTORS, make_folder, quick_export

pytestmark = pytest.mark.slow  # its fixtures train

SETTINGS = [
    'protocol={name="speaker-folds",k=3,validation="next"}',
    "training.epochs=5",
    "training.augmentation.copies=0",
    "repeats=2",
    "probes=[]",
]
KEYS = {
    "corpus",
    "classes",
    "utterances",
    "protocol",
    "split_hash",
    "speaker_independent",
    "selection",
    "WA",
    "UA",
    "WF1",
    "recall",
    "ece",
}


@pytest.fixture(scope="module")
def runs(workspace):
    """Runs of three folds, each with two seeds."""
    return train(load_recipe(str(workspace / "made.toml"), SETTINGS), workspace / "runs")


def evaluate_to_json(folder, corpus="cremad", **settings):
    return evaluate(folder, Source.parse(corpus), **settings).to_json()


def predictions_by_seed(runs, rule):
    """Return each seed's labels and probabilities on the test subsets of all folds, at the epochs that a rule selects."""
    seeds = [[run for run in runs if run.config["seed"] == seed] for seed in (1, 2)]
    return [
        (
            np.concatenate([run.labels("test") for run in of_seed]),
            np.concatenate([run.predictions(select_epoch(run, rule))["test"] for run in of_seed]),
        )
        for of_seed in seeds
    ]


@pytest.mark.parametrize("rule", ["last", "validation", "paper"])
def test_scores_are_means_over_the_seeds_with_all_folds_together(workspace, runs, rule):
    scores = evaluate_to_json(workspace / "runs", selection=rule)
    by_seed = predictions_by_seed(runs, rule)

    def check(value, metric):
        each = [metric(labels, probabilities.argmax(axis=1)) for labels, probabilities in by_seed]
        assert value == pytest.approx(np.mean(each))
        return each

    check(scores["WA"]["value"], accuracy_score)
    each = check(scores["UA"]["value"], balanced_accuracy_score)
    check(scores["WF1"]["value"], lambda *both: f1_score(*both, average="weighted"))
    assert scores["over_seeds"]["UA"]["std"] == pytest.approx(np.std(each, ddof=1))
    assert scores["over_seeds"]["UA"]["seeds"] == pytest.approx(each)
    assert scores["ece"] == pytest.approx(np.mean([ece(*of_seed) for of_seed in by_seed]))
    for index, emotion in enumerate(scores["classes"]):
        recalls = [(p.argmax(axis=1) == index)[labels == index].mean() for labels, p in by_seed]
        assert scores["recall"][emotion]["value"] == pytest.approx(np.mean(recalls))
    assert scores["selection"] == RULES[rule]
    assert ("TEST" in scores["selection"]) == (rule == "paper")


def test_a_fold_is_scored_as_the_mean_over_its_seeds(workspace, runs):
    for fold in evaluate_to_json(workspace / "runs")["by_fold"]:
        of_fold = [run for run in runs if run.split.fold == fold["fold"]]
        each = [
            balanced_accuracy_score(run.labels("test"), run.predictions(5)["test"].argmax(axis=1)) for run in of_fold
        ]
        assert fold["UA"] == pytest.approx(np.mean(each))
    single = evaluate_to_json(runs[0].folder)
    assert single["over_seeds"]["UA"]["std"] is None
    assert single["over_seeds"]["UA"]["mean"] == single["UA"]["value"]


def test_the_json_has_the_documented_keys(workspace):
    scores = evaluate_to_json(workspace / "runs")
    assert scores.keys() >= KEYS
    assert json.loads(json.dumps(scores)) == scores
    assert scores["UA"].keys() == {"value", "low", "high"}
    assert scores["UA"]["low"] <= scores["UA"]["value"] <= scores["UA"]["high"]
    assert scores["utterances"] == 72  # each once, although two seeds predicted it
    assert scores["speakers"] == len(ACTORS)
    assert scores["speaker_independent"]
    assert scores["protocol"] == "speaker folds (validation next, k 3), seed 0, 3 folds"
    assert {(run["fold"], run["seed"]) for run in scores["runs"]} == {
        (f"{n} of 3", s) for n in (1, 2, 3) for s in (1, 2)
    }


def test_the_score_under_each_selection_rule(workspace, runs):
    by_rule = evaluate_to_json(workspace / "runs")["by_selection"]
    assert list(by_rule) == ["last", "validation", "validation-wf1", "validation-loss", "paper"]
    for rule, entry in by_rule.items():
        each = [balanced_accuracy_score(labels, p.argmax(axis=1)) for labels, p in predictions_by_seed(runs, rule)]
        assert entry["UA"] == pytest.approx(np.mean(each))
        by_seed = sorted(runs, key=lambda run: run.config["seed"])
        assert entry["epochs"] == [select_epoch(run, rule) for run in by_seed]
    assert set(by_rule["paper"]["epochs"]) <= set(range(1, 6))


def test_printed_scores_state_protocol_rule_and_optimism(workspace, capsys):
    scores = evaluate_to_json(workspace / "runs", selection="paper")
    print_scores(scores)
    output = capsys.readouterr().out
    gain = 100 * (scores["by_selection"]["paper"]["UA"] - scores["by_selection"]["validation"]["UA"])
    assert f"adds {gain:.1f} points over 'validation'" in output
    assert "speaker-independent, 6 scored" in output
    assert "best UA on the TEST set, as some published code does: optimistic" in output
    assert "Mean and standard deviation over 2 seeds, each with all its folds together:" in output
    assert scores["split_hash"] in output
    assert all(len(line) <= 126 for line in output.splitlines())


def test_columns_are_aligned_for_long_emotion_names(workspace, capsys):
    scores = evaluate_to_json(workspace / "runs")
    scores["recall"] = {"unfathomably frustrated": scores["UA"], **scores["recall"]}
    print_scores(scores)
    output = capsys.readouterr().out.partition("Calibration")[0]
    lines = [line for line in output.splitlines() if " to " in line and line.startswith("  ")]
    assert len({line.index("%") for line in lines if "bootstrap" not in line}) == 1


def test_another_corpus_is_scored_with_the_weights_of_the_run(workspace, runs):
    """The test clips, copied to a folder, are another corpus with the same predictions."""
    emotions = {"ANG": "angry", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
    run = runs[0]
    for utterance_key in run.split.subsets["test"]:
        stem = utterance_key.removeprefix("cremad/")
        target = workspace / "elsewhere" / stem[:4] / emotions[stem.split("_")[2]] / f"{stem}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(workspace / "cremad" / "AudioWAV" / f"{stem}.wav", target)
    scores = evaluate_to_json(run.folder, f"folder:{workspace / 'elsewhere'}")
    assert scores["protocol"] == f"a corpus not trained on: all {len(run.split.subsets['test'])} utterances"
    assert scores["UA"]["value"] == pytest.approx(evaluate_to_json(run.folder)["UA"]["value"], abs=0.09)
    assert scores["ece"] == pytest.approx(evaluate_to_json(run.folder)["ece"], abs=0.05)
    assert "by_selection" not in scores  # these scores need the recorded predictions


def test_emotions_that_the_model_lacks_are_left_out_and_logged(workspace, runs):
    make_folder(
        workspace / "more", [f"anna/{emotion}/{n}.wav" for emotion in ("happy", "bored", "sad") for n in range(2)]
    )
    with logged() as messages:
        scores = evaluate(runs[0].folder, Source("folder", str(workspace / "more"))).to_json()
    assert messages[0] == "more: 4 utterances of 1 speaker; 2 of other emotions (bored) left out"
    assert scores["utterances"] == 4
    assert set(scores["recall"]) == {"happy", "sad"}


def test_runs_with_different_settings_are_refused(workspace, runs, tmp_path):
    shutil.copytree(runs[0].folder, tmp_path / "both" / "first")
    other = load_recipe(str(workspace / "made.toml"), [*SETTINGS, "folds=[1]", "repeats=1", "training.epochs=1"])
    train(other, tmp_path / "both" / "second")
    with pytest.raises(BadConfig, match=r"first and .*second are runs with different settings"):
        evaluate_to_json(tmp_path / "both")


def test_a_corpus_without_the_test_utterances_is_refused(runs, tmp_path):
    folder = tmp_path / "cremad" / "AudioWAV"
    folder.mkdir(parents=True)
    stem = runs[0].split.subsets["train"][0].removeprefix("cremad/")
    (folder / f"{stem}.wav").touch()
    with pytest.raises(
        BadCorpus, match=r"24 of the 24 utterances of the test subset are missing from .*, first cremad/1.*; expected"
    ):
        evaluate(runs[0].folder, Source("cremad", str(tmp_path / "cremad")))


def test_a_selection_rule_that_cannot_be_applied_is_refused(workspace, tmp_path):
    recipe = load_recipe(str(workspace / "made.toml"), ["protocol.validation=[]", "training.epochs=1", "probes=[]"])
    (run,) = train(recipe, tmp_path / "run")
    with pytest.raises(BadConfig, match="needs predictions on the validation subset"):
        evaluate_to_json(run.folder, selection="validation")
    assert list(evaluate_to_json(run.folder)["by_selection"]) == ["last", "paper"]
    with pytest.raises(BadConfig, match="is not a run folder"):
        evaluate_to_json("default", selection="last")


def test_an_unfinished_run_can_be_scored(workspace, tmp_path):
    recipe = load_recipe(str(workspace / "made.toml"), ["training.epochs=1", "probes=[]"])
    (run,) = train(recipe, tmp_path / "run")
    run.checkpoint_path.unlink()
    (run.folder / "predictions" / ".0002.temporary.npz").write_bytes(b"half")
    assert evaluate_to_json(run.folder)["utterances"] == 24


def test_seeds_differ_and_folds_test_every_utterance_once(runs):
    assert not torch.equal(
        torch.from_numpy(runs[0].predictions(5)["test"]), torch.from_numpy(runs[1].predictions(5)["test"])
    )
    tested = [utterance_key for run in runs[::2] for utterance_key in run.split.subsets["test"]]
    assert len(tested) == len(set(tested)) == 72


@pytest.fixture
def bundle(workspace, runs, tmp_path, monkeypatch):
    """A bundle of one of the runs, with a small ONNX file."""
    monkeypatch.setattr("affekt.workflows.make_bundle.export_onnx", quick_export)
    recipe = load_recipe(str(workspace / "made.toml"), [*SETTINGS[:-2], "folds=[1]", "probes=[]"])
    return make_bundle(recipe, [runs[0]], tmp_path / "bundle")


def test_scores_with_a_profile_state_what_it_was_learned_from(bundle, tmp_path, capsys):
    corpus = make_folder(tmp_path / "calls", [f"{name}/{n}.wav" for name in ("angry", "sad") for n in range(8)])
    others = make_folder(
        tmp_path / "others", [f"{name}/{n}.wav" for name in ("angry", "sad") for n in range(8)], seed=1
    )
    recognizer, source = Recognizer.load(bundle.folder), Source("folder", str(corpus))

    def adaptation(*folders):
        profile = learn_profile(folders, recognizer=recognizer)
        scores = evaluate(bundle.folder, source, profile=profile).to_json()
        assert scores["profile"] == profile.id
        print_scores(scores)
        assert f"profile    {profile.id}: {scores['adaptation']}" in capsys.readouterr().out
        return scores["adaptation"]

    assert adaptation(corpus) == "adapted on 16 unlabeled recordings (transductive)"
    assert adaptation(others) == "adapted on 16 unlabeled recordings, none of which is scored"
    assert adaptation(others, corpus / "sad") == (
        "adapted on 24 unlabeled recordings (transductive: 8 of the 16 scored utterances are among them)"
    )
    assert "profile" not in evaluate(bundle.folder, source).to_json()


def test_scores_with_a_profile_are_those_of_the_adapted_recognizer(bundle, tmp_path):
    corpus = make_folder(tmp_path / "calls", [f"{name}/{n}.wav" for name in ("angry", "sad") for n in range(8)])
    recognizer = Recognizer.load(bundle.folder)
    profile = replace(
        learn_profile([corpus], recognizer=recognizer),
        class_bias={emotion: 100.0 if emotion == "sad" else 0.0 for emotion in recognizer.emotions},
    )
    scores = evaluate(bundle.folder, Source("folder", str(corpus)), profile=profile).to_json()
    assert scores["recall"]["sad"]["value"] == 1
    assert scores["recall"]["angry"]["value"] == 0


def test_runs_cannot_be_adapted(workspace, bundle, tmp_path):
    corpus = make_folder(tmp_path / "calls", [f"sad/{n}.wav" for n in range(8)])
    profile = learn_profile([corpus], recognizer=Recognizer.load(bundle.folder))
    with pytest.raises(
        BadConfig,
        match=r"is a run folder, but only a bundle can be adapted with a profile: make a bundle of the runs first",
    ):
        evaluate(workspace / "runs", Source.parse("cremad"), profile=profile)
