"""`affekt compare`, on runs with made-up predictions."""

import csv
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from affekt.cli import app
from affekt.errors import BadConfig
from affekt.evaluation.significance import holm
from affekt.reports.compare import compare_runs, grids
from affekt.reports.formats import to_csv, to_latex, to_markdown
from affekt.reports.results import collect_results
from affekt.runs.groups import describe_differences, group_runs
from tests.reports.test_results import SPEAKER_FOLDS, data, make_runs  # noqa: F401 (a fixture that every test uses)

pytestmark = pytest.mark.slow  # its fixtures make runs


def invoke(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


@pytest.fixture
def folders(tmp_path):
    """Return the run folders of a good model, a poor one and one that is as good as the poor one."""
    return [
        make_runs(tmp_path / "good", settings=SPEAKER_FOLDS, skill=2.0),
        make_runs(tmp_path / "poor", "vanilla-cremad", SPEAKER_FOLDS, skill=0.7),
        make_runs(tmp_path / "alike", settings=[*SPEAKER_FOLDS, "model.scales=2"], skill=0.6),
    ]


def test_what_is_shown_is_said_and_corrected_for_the_number_of_comparisons(folders):
    result = compare_runs(folders)
    by_pair = {(pair.first, pair.second): pair for pair in result.results.pairs}
    assert list(by_pair) == [("good", "vanilla-cremad"), ("good", "alike"), ("vanilla-cremad", "alike")]
    assert [pair.corrected_p for pair in by_pair.values()] == holm([pair.comparison.p for pair in by_pair.values()])
    shown, _, open_ = result.conclusions
    assert shown.startswith("Shown: good is better than vanilla-cremad on this test set, good minus vanilla-cremad +")
    assert "after Holm's correction over 3 comparisons" in shown
    assert open_.startswith("Not shown which of vanilla-cremad and alike is better")
    assert "these 8 speakers only" in open_
    assert len(result.protocol_lines) == 1
    assert "6 classes (angry, disgust" in result.protocol_lines[0]


def test_with_a_reference_only_it_is_compared(folders):
    pairs = compare_runs(folders, against=[folders[1]]).results.pairs
    assert [(pair.first, pair.second) for pair in pairs] == [("good", "vanilla-cremad"), ("alike", "vanilla-cremad")]
    outside = compare_runs(folders[::2], against=[folders[1]]).results
    assert [pair.second for pair in outside.pairs] == ["vanilla-cremad"] * 2
    two = compare_runs(folders, against=folders[:2]).results.pairs
    assert [(pair.first, pair.second) for pair in two] == [("alike", "good"), ("alike", "vanilla-cremad")]
    with pytest.raises(BadConfig, match="contains runs of several experiments: expected the folder of one"):
        compare_runs(folders, against=[folders[0].parent])


def test_the_differences_of_means_have_the_metric_that_was_asked_for(folders):
    for metric in ("WA", "WF1"):
        result = compare_runs(folders[:2], metric=metric)
        (pair,) = result.results.pairs
        first, second = (getattr(row, metric).mean for row in result.results.rows)
        assert pair.comparison.value == pytest.approx(first - second)
        assert f"points of {metric}" in result.conclusions[0]
    with pytest.raises(BadConfig, match=r"there is no metric 'F1'.*known: UA, WA, WF1"):
        compare_runs(folders, metric="F1")


def test_runs_on_different_splits_are_refused_or_shown_with_a_warning(tmp_path):
    random, apart = make_runs(tmp_path / "random"), make_runs(tmp_path / "apart", settings=SPEAKER_FOLDS)
    with pytest.raises(
        BadConfig, match=r"apart has the split \w+ \(speaker folds.*random/fold-1 \w+ \(MSTR's.*--force"
    ):
        compare_runs([random, apart])
    result = compare_runs([random, apart], force=True)
    assert len(result.warnings) == 1
    assert not result.results.pairs
    assert result.conclusions == ["Nothing is tested: no two experiments have the same test utterances."]
    with pytest.raises(BadConfig, match="1 experiment, runs that differ in seed and fold only count as one"):
        compare_runs([random])


def test_the_same_test_utterances_with_other_training_are_compared_if_forced(tmp_path):
    protocol = 'protocol={{name="speaker-folds",k=3,validation={}}}'
    folders = [make_runs(tmp_path / str(part), settings=[protocol.format(part)]) for part in (0.2, 0.4)]
    with pytest.raises(BadConfig, match="--force"):
        compare_runs(folders)
    (pair,) = compare_runs(folders, force=True).results.pairs
    assert pair.comparison.p is not None


def test_the_scope_of_a_conclusion_is_stated(tmp_path):
    paper = [make_runs(tmp_path / "a"), make_runs(tmp_path / "b", "vanilla-cremad", skill=0.5)]
    assert "The test speakers were also in the training set" in compare_runs(paper).conclusions[0]
    one_seed = [
        make_runs(tmp_path / name, settings=[*SPEAKER_FOLDS, setting], seeds=1, skill=skill)
        for name, setting, skill in (("c", "selection=paper", 1.0), ("d", "selection=last", 2.0))
    ]
    (conclusion,) = compare_runs(one_seed).conclusions
    assert "With one shared seed, the variation between seeds is not covered." in conclusion
    assert "selected on the TEST set" in conclusion


def test_every_format_has_the_same_numbers(folders):
    result = compare_runs(folders[:2])
    mean = f"{100 * result.results.rows[0].UA.mean:.1f} ± "
    assert mean in to_markdown(result)
    assert mean.replace("±", r"$\pm$") in to_latex(result)
    lines = list(csv.DictReader(io.StringIO(to_csv(result))))
    assert [line["kind"] for line in lines] == ["score"] * 6 + ["difference"]
    assert float(lines[0]["value"]) == result.results.rows[0].UA.mean
    assert float(lines[-1]["p_holm"]) == result.results.pairs[0].corrected_p
    shown = json.loads(invoke(*folders[:2], "--format", "json").stdout)
    assert shown["rows"][0]["UA"]["mean"] == result.results.rows[0].UA.mean
    assert shown["conclusions"] == result.conclusions
    assert "split" in shown["rows"][0]["line"]
    terminal = invoke(*folders[:2]).stdout
    assert mean in terminal
    assert result.conclusions[0] in terminal
    for grid in grids(result):
        assert all(len(row) == len(grid.header) for row in grid.rows)


def test_latex_is_escaped(folders):
    text = to_latex(compare_runs(folders[:2]))
    assert r"95 \%" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 4


def test_an_unknown_format_is_an_error(folders):
    result = invoke(*folders[:2], "--format", "html")
    assert isinstance(result.exception, BadConfig)
    assert "--format html: expected terminal, markdown, latex, csv, json" in str(result.exception)


def test_folds_and_seeds_that_were_trained_apart_are_one_experiment(tmp_path):
    together = make_runs(tmp_path / "together", settings=SPEAKER_FOLDS)
    apart = tmp_path / "apart"
    for fold, device in (("1", "cpu"), ("2", "cuda")):
        settings = [SPEAKER_FOLDS[0], f"folds=[{fold}]", f"training.device={device}"]
        make_runs(apart / f"only-{fold}", settings=settings)
    (group,) = group_runs([apart])
    assert [fold.split.fold for fold in group.folds] == ["1 of 3", "2 of 3"]
    assert group.folder == apart.absolute()
    (row,), (expected,) = collect_results([apart]).rows, collect_results([together]).rows
    assert (row.UA, row.split_hash, row.scores) == (expected.UA, expected.split_hash, expected.scores)
    with pytest.raises(BadConfig, match="occurs twice"):
        group_runs([apart, together])


def test_rows_of_one_name_are_told_apart_by_folder_and_settings(tmp_path):
    folders = [make_runs(tmp_path / str(n), settings=[f"model.scales={n}"], seeds=1) for n in (2, 3, 4)]
    rows = collect_results(folders).rows
    assert [row.name for row in rows] == ["mstr-cremad"] * 3
    assert [row.label for row in rows] == [row.folder for row in rows] == [f"{n}/fold-1/seed-0" for n in (2, 3, 4)]
    assert [row.differences for row in rows] == [f"model.scales = {n}" for n in (2, 3, 4)]
    other_split = make_runs(tmp_path / "5", settings=["model.scales=5", "split_seed=1"], seeds=1)
    assert [row.differences for row in collect_results([*folders, other_split]).rows] == [
        *(f"model.scales = {n}" for n in (2, 3, 4)),
        "split_seed = 1, model.scales = 5",
    ]


def test_settings_of_another_model_are_no_differences():
    first, second = (
        {"name": name, "seed": 0, "training": {"epochs": 1, "device": device}, "model": {"name": name, **settings}}
        for name, settings, device in (("a", {"scales": 2}, "cpu"), ("b", {}, "cuda"))
    )
    assert describe_differences([first, second]) == ["model.name = a", "model.name = b"]
    assert describe_differences([first, first]) == ["", ""]


def test_a_temperature_fitted_on_validation_is_applied_to_the_test_set(tmp_path):
    settings = ['protocol={name="speaker-folds",k=3,validation=0.2}']
    (row,) = collect_results([make_runs(tmp_path / "runs", settings=settings)]).rows
    assert np.shape(list(row.calibration.temperatures.values())) == (2, 3)
    assert row.calibration.after is not None
    assert row.calibration.before.ece == pytest.approx(row.scores.ece)
    (row,) = collect_results([make_runs(tmp_path / "other")]).rows
    assert (row.calibration.after, row.calibration.temperatures) == (None, {})
