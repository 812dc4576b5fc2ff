"""`affekt report`, on runs with made-up predictions for a CREMA-D whose audio files are empty."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from affekt.corpora.source import Source
from affekt.errors import BadConfig
from affekt.reports import sections
from affekt.reports.markdown import to_section
from affekt.reports.results import collect_results
from affekt.runs.folder import Run
from affekt.runs.groups import _read_by_id
from affekt.training.checkpoint import save_state
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe
from affekt.workflows.evaluate import evaluate
from affekt.workflows.training_data import TrainingData

EPOCHS = 3
SPEAKER_FOLDS = ['protocol={name="speaker-folds",k=3,validation=0.2}', "folds=[1,2]"]


def make_data(root):
    """Write twelve speakers in CREMA-D's layout, for AFFEKT_DATA set to `root`."""
    folder = root / "cremad" / "audio"
    folder.mkdir(parents=True)
    for actor in range(1001, 1013):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            for sentence in ("DFA", "ITS", "TSI", "IWL"):
                (folder / f"{actor}_{sentence}_{emotion}_XX.wav").touch()
    _read_by_id.cache_clear()  # another test has a corpus of the same name
    return root


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Return AFFEKT_DATA with twelve speakers in CREMA-D's layout."""
    monkeypatch.setenv("AFFEKT_DATA", str(tmp_path / "data"))
    return make_data(tmp_path / "data")


def page(results):
    return sections.page([to_section(results)])


def make_runs(folder, name="mstr-cremad", settings=(), *, seeds=2, skill=1.5, epochs=EPOCHS):
    """Write run folders of a recipe; the larger `skill`, the more often the predictions are right."""
    recipe = load_recipe(name, [f"training.epochs={EPOCHS}", f"repeats={seeds}", *settings])
    plan = resolve(recipe)
    data = TrainingData.read(recipe)
    for number, split in data.folds(plan):
        index = {name: data.label_index(name) for ids in split.subsets.values() for name in ids}
        for repeat in range(seeds):
            run_folder = folder / f"fold-{number}" / f"seed-{repeat}"
            run = Run.start(run_folder, plan.config(repeat), split, data.labels.emotions, index)
            for epoch in range(1, epochs + 1):
                generator = np.random.default_rng([number, repeat, epoch, int(10 * skill)])
                predictions = {
                    part: softmax(generator.normal(size=(len(ids), 6)) + skill * np.eye(6)[run.labels(part)])
                    for part, ids in split.subsets.items()
                    if part != "train"
                }
                run.record(epoch, predictions, {"loss": 1.0})
    return folder


def softmax(logits):
    exponentials = np.exp(logits)
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], SPEAKER_FOLDS], ids=["paper", "speaker-folds"])
def test_scores_equal_those_of_evaluate(tmp_path, settings):
    folder = make_runs(tmp_path / "runs", settings=settings, seeds=3)
    (row,) = collect_results([folder]).rows
    scores = evaluate(folder, Source("cremad")).to_json()
    assert dataclasses.asdict(row.scores.UA) == scores["UA"]
    assert dataclasses.asdict(row.scores.WA) == scores["WA"]
    assert row.scores.ece == pytest.approx(scores["ece"])
    assert (row.split_hash, row.verdict, row.utterances) == (
        scores["split_hash"],
        scores["verdict"],
        scores["utterances"],
    )
    assert row.speakers == scores["speakers"]
    assert set(row.by_selection) == set(scores["by_selection"])
    for metric in ("UA", "WA", "WF1"):
        assert dataclasses.asdict(getattr(row, metric)) == {**scores["over_seeds"][metric], "seeds": ANY}
        assert list(getattr(row, metric).seeds) == scores["over_seeds"][metric]["seeds"]
        assert scores[metric]["value"] == pytest.approx(getattr(row, metric).mean)
    for rule, spread in row.by_selection.items():
        assert spread.mean == pytest.approx(scores["by_selection"][rule]["UA"])
    assert json.loads(json.dumps(dataclasses.asdict(row.calibration))) == scores["calibration"]
    assert [dataclasses.asdict(fold) for fold in row.folds] == scores["by_fold"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], SPEAKER_FOLDS], ids=["paper", "speaker-folds"])
def test_mean_and_std_are_over_seeds_with_their_folds_together(tmp_path, settings):
    folder = make_runs(tmp_path / "runs", settings=settings, seeds=3)
    (row,) = collect_results([folder]).rows
    by_seed = []
    for seed in range(3):
        runs = [Run(path) for path in sorted(folder.glob(f"fold-*/seed-{seed}"))]
        labels = np.concatenate([run.labels("test") for run in runs])
        predicted = np.concatenate([run.predictions(EPOCHS)["test"].argmax(axis=1) for run in runs])
        by_seed.append((balanced_accuracy_score(labels, predicted), accuracy_score(labels, predicted)))
    for spread, values in zip((row.UA, row.WA), np.array(by_seed).T, strict=True):
        assert spread.seeds == pytest.approx(values)
        assert spread.mean == pytest.approx(values.mean())
        assert spread.std == pytest.approx(values.std(ddof=1))
    assert row.scores.UA.value == pytest.approx(row.UA.mean)
    assert row.scores.UA.low < row.UA.mean < row.scores.UA.high


@pytest.mark.slow
def test_selecting_on_the_test_set_is_optimistic(tmp_path):
    (row,) = collect_results([make_runs(tmp_path / "runs", settings=SPEAKER_FOLDS, skill=0.5)]).rows
    assert list(row.by_selection) == ["last", "validation", "validation-wf1", "validation-loss", "paper"]
    best = row.by_selection["paper"].mean
    assert row.optimism == pytest.approx(min(best - row.by_selection[rule].mean for rule in ("last", "validation")))
    assert row.optimism > 0
    (row,) = collect_results([make_runs(tmp_path / "other")]).rows
    assert list(row.by_selection) == ["last", "paper"]  # the paper's split has no validation subset


def test_the_scores_use_the_recipes_selection_rule(tmp_path):
    (row,) = collect_results(
        [make_runs(tmp_path / "runs", settings=[*SPEAKER_FOLDS, "selection=validation"], skill=0.5)]
    ).rows
    assert row.selection == "validation"
    assert row.UA == row.by_selection["validation"] != row.by_selection["last"]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["last", "validation", "validation-wf1", "validation-loss", "paper"])
def test_the_recipes_selection_rule_has_a_column(tmp_path, rule):
    results = collect_results([make_runs(tmp_path / "runs", settings=[*SPEAKER_FOLDS, f"selection={rule}"], skill=0.5)])
    rules = {"last", "validation", "paper", rule}
    heads = next(line for line in page(results).splitlines() if line.startswith("| runs | last epoch"))
    assert heads.count("|") == 3 + len(rules)  # name, rules, optimism


def test_two_groups_of_runs_are_compared_seed_by_seed(tmp_path):
    good, poor = make_runs(tmp_path / "good", skill=2.0), make_runs(tmp_path / "poor", "vanilla-cremad", skill=1.0)
    results = collect_results([good, poor])
    (pair,) = results.pairs
    assert (pair.first, pair.second) == ("mstr-cremad", "vanilla-cremad")
    assert pair.difference.mean == pytest.approx(results.rows[0].UA.mean - results.rows[1].UA.mean)
    low, high = pair.comparison.interval
    assert 0 < low < pair.difference.mean < high
    assert set(pair.comparison.by_seed) == {0, 1}
    assert pair.corrected_p == pair.comparison.p
    (back,) = collect_results([poor, good]).pairs
    assert back.difference.mean == pytest.approx(-pair.difference.mean)
    assert back.comparison.by_seed[0].p == pair.comparison.by_seed[0].p


def test_equal_predictions_have_no_difference(tmp_path):
    folders = [make_runs(tmp_path / "one"), make_runs(tmp_path / "other", settings=["training.strategy.clip=1.0"])]
    (pair,) = collect_results(folders).pairs
    assert pair.difference.seeds == (0.0, 0.0)
    assert (pair.comparison.interval, pair.comparison.p) == (None, 1.0)
    assert [comparison.p for comparison in pair.comparison.by_seed.values()] == [1.0, 1.0]


def test_runs_on_different_splits_are_not_compared(tmp_path):
    random, apart = make_runs(tmp_path / "random"), make_runs(tmp_path / "apart", settings=SPEAKER_FOLDS)
    results = collect_results([random, apart])
    assert [row.verdict for row in results.rows] == ["NOT speaker-independent", "speaker-independent"]
    assert not results.pairs
    text = page(results)
    assert text.count("\n## CREMA-D") == 2
    assert "Differences of UA:" not in text


@pytest.mark.slow
def test_published_scores_are_listed_for_the_papers_protocol_only(tmp_path):
    random, apart = (make_runs(tmp_path / name, settings=s) for name, s in (("random", []), ("apart", SPEAKER_FOLDS)))
    assert "| 79.9 | 79.7 |" in page(collect_results([random]))
    assert "not directly comparable" in page(collect_results([random]))
    assert "paper's" not in page(collect_results([apart]))


def test_the_page_states_protocol_split_and_intervals(tmp_path, data):
    (data / "cremad" / "REBUILT.md").touch()
    folder = make_runs(tmp_path / "runs")
    text, split = page(collect_results([folder])), Run(folder / "fold-1" / "seed-0").split
    assert "## CREMA-D, rebuilt audio: MSTR's random 80/20, seed 0" in text
    assert (
        f"{len(split.subsets['test'])} utterances of 12 speakers; **NOT speaker-independent**; split {split.hash}"
        in text
    )
    assert "bootstrap over 12 speakers" in text
    assert '"last", last epoch' in text
    assert str(tmp_path) not in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for lines in tables:
        assert len({line.count("|") for line in lines}) == 1


def test_the_page_is_the_golden_one(tmp_path, golden):
    golden("report.md", page(collect_results([make_runs(tmp_path / "runs")])))


def test_one_seed_has_no_std(tmp_path):
    (row,) = collect_results([make_runs(tmp_path / "runs", seeds=1)]).rows
    assert row.UA.std is None
    assert "±" not in page(collect_results([tmp_path / "runs"])).partition("\n## ")[2]


def test_without_the_corpus_speakers_are_unknown(tmp_path, monkeypatch):
    folders = [make_runs(tmp_path / "one"), make_runs(tmp_path / "other", "vanilla-cremad")]
    known = collect_results(folders)
    _read_by_id.cache_clear()
    monkeypatch.delenv("AFFEKT_DATA")
    unknown = collect_results(folders)
    assert unknown.rows[0].UA == known.rows[0].UA
    assert unknown.rows[0].speakers is None
    assert unknown.pairs[0].comparison.resampled == "utterances"
    assert "valid for these speakers only" in unknown.rows[0].scores.intervals
    assert "AFFEKT_DATA" in page(unknown)


def test_speakers_are_unknown_if_the_corpus_lacks_test_utterances(tmp_path, data):
    folder = make_runs(tmp_path / "runs")
    lost = Run(folder / "fold-1" / "seed-0").split.subsets["test"][0]
    (data / f"cremad/audio/{lost.partition('/')[2]}.wav").unlink()
    _read_by_id.cache_clear()
    (row,) = collect_results([folder]).rows
    assert row.speakers_unknown == f"this copy of CREMA-D lacks 1 of {row.utterances} test utterances, first {lost}"
    assert row.speakers is None


def test_weights_are_counted_without_reading_them(tmp_path):
    folder = make_runs(tmp_path / "runs", seeds=1)
    weights = {"a.weight": torch.zeros(3, 5), "a.bias": torch.zeros(5), "scale": torch.zeros(())}
    assert collect_results([folder]).rows[0].weights is None
    save_state(weights, Run(folder / "fold-1" / "seed-0").weights_path(EPOCHS))
    assert collect_results([folder]).rows[0].weights == 21


def test_unfinished_repeated_and_missing_runs_are_refused(tmp_path):
    with pytest.raises(BadConfig, match=r"contains no run"):
        collect_results([tmp_path / "nothing"])
    unfinished = make_runs(tmp_path / "started", epochs=2)
    with pytest.raises(BadConfig, match=r"seed-0 is unfinished, after epoch 2 of 3"):
        collect_results([unfinished])
    whole = make_runs(tmp_path / "whole", settings=SPEAKER_FOLDS)
    with pytest.raises(BadConfig, match=r"seed 0 of mstr-cremad occurs twice: .*whole.*whole"):
        collect_results([whole, whole])
    with pytest.raises(BadConfig, match=r"seed 1 has 1 folds, but seed 0 has 2"):
        collect_results([whole / "fold-1", whole / "fold-2" / "seed-0"])


def test_a_run_that_stopped_early_is_finished(tmp_path):
    folder = make_runs(
        tmp_path / "runs", settings=[*SPEAKER_FOLDS, "training.patience=1"], skill=0.0, epochs=2, seeds=1
    )
    for path in folder.glob("fold-*/seed-0"):
        run = Run(path)
        run.record(1, {part: np.eye(6, dtype=np.float32)[run.labels(part)] for part in ("validation", "test")}, {})
    (row,) = collect_results([folder]).rows
    assert row.by_selection["validation"].mean == 1.0


@pytest.mark.slow
def test_the_command_writes_page_and_json_without_torch(tmp_path):
    folder = make_runs(tmp_path / "runs")
    code = (
        "import sys; sys.argv[0] = 'affekt'\nfrom affekt.cli import app\n"
        "try: app()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    words = ["report", str(folder), "--output", str(tmp_path / "results.md"), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    results = collect_results([folder])
    assert row["UA"]["mean"] == results.rows[0].UA.mean
    assert Path(tmp_path / "results.md").read_text(encoding="utf-8") == page(results)
