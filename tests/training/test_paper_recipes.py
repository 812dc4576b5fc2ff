"""The recipes of the papers' own rows: each is complete, and its model is built at the paper's size without weights."""

import json

import pytest
from typer.testing import CliRunner

from affekt.cli import app
from affekt.cost.count import on_meta
from affekt.errors import BadConfig
from affekt.models.base import FeatureSpec
from affekt.protocols import protocols
from affekt.recipe_files import RECIPES, SEARCHES, shipped_files
from affekt.search.plan import check_search
from affekt.search.recipe import load_search
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe

TRAINED = {name: path for name, path in shipped_files(RECIPES).items() if "papers" in path.parts}
SEARCHED = {name: path for name, path in shipped_files(SEARCHES).items() if "papers" in path.parts}
ROWS = {**TRAINED, **SEARCHED}
# The features of each encoder: dim and frames per second, as published.
SPECS = {
    "hubert": FeatureSpec(1024, 50.0),
    "wav2vec": FeatureSpec(512, 100.0),
    "mfcc": FeatureSpec(40, 100.0),
    "log-mel": FeatureSpec(128, 100.0),
    "spectrogram": FeatureSpec(140, 1 / 0.055),
    "bert": FeatureSpec(768, None),
    "roberta": FeatureSpec(1024, None),
    "glove": FeatureSpec(300, None),
    "ecapa": FeatureSpec(192, None, has_time=False),
}


def load(name):
    return load_recipe(name) if name in TRAINED else load_search(name)


def count_parameters(recipe):
    plan = resolve(recipe)
    specs = {stream: SPECS[plan.features[stream].name] for stream in plan.streams}
    model = on_meta(lambda: plan.build_model(specs, recipe.label_set([]).emotions))
    assert all(parameter.is_meta for parameter in model.parameters())
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_own_row_of_the_five_papers_has_a_recipe():
    counts: dict[str, int] = {}
    for name in ROWS:
        table = "-".join(name.split("-")[:2])
        counts[table] = counts.get(table, 0) + 1
    assert counts == {
        "mstr-table2": 6,
        "mstr-figure3": 24,
        "tdfnet-table1": 3,
        "tdfnet-table5": 6,
        "mcsan-table1": 1,
        "mcsan-table2": 1,
        "mcsan-table3": 9,
        "ks_transformer-table1": 4,
        "ks_transformer-table2": 3,
        "ks_transformer-table3": 1,
        "ks_transformer-figure6": 2,
        "emotionnas-table1": 1,
        "emotionnas-table2": 3,
        "emotionnas-table3": 4,
        "emotionnas-table4": 2,
    }


@pytest.mark.parametrize("name", ROWS)
def test_a_row_states_its_figures_and_its_protocol(name):
    recipe, published = load(name), load(name).published
    assert recipe.name == name
    assert ROWS[name].parent.name == name.split("-")[0]
    assert published.citation
    assert published.row
    assert bool(published.scores) != bool(published.plotted)
    assert published.protocol == recipe.protocol["name"] in protocols
    assert published.std.keys() <= published.scores.keys()
    assert recipe.assumptions


@pytest.mark.parametrize("name", TRAINED)
def test_assumptions_are_about_settings_that_the_recipe_has(name):
    recipe = load_recipe(name)
    config = resolve(recipe).config()
    for assumption in recipe.assumptions:
        section = config
        for key in assumption.setting.split("."):
            assert key in section, assumption.setting
            section = section[key]


@pytest.mark.parametrize("name", TRAINED)
def test_the_model_of_a_row_is_built_without_weights(name):
    recipe = load_recipe(name)
    count = count_parameters(recipe)
    if recipe.published.params:
        digits = 0.05e6  # the papers print one decimal of a million
        assert count == pytest.approx(recipe.published.params, abs=digits)


@pytest.mark.parametrize("name", SEARCHED)
def test_the_networks_of_a_searched_row_are_built_without_weights(name):
    recipe = load_search(name)
    check_search(recipe)
    counts = [count_parameters(branch) for branch in recipe.branch_recipes]
    if recipe.published.params and recipe.spectrogram and not recipe.recurrent:
        assert counts[0] == pytest.approx(recipe.published.params, abs=0.005e6)
    if recipe.published.params and recipe.recurrent and not recipe.spectrogram:
        network = recipe.recurrent_recipe("candidate", recipe.recurrent.candidates[0], 1, 0)
        assert count_parameters(network) == pytest.approx(recipe.published.params, abs=0.005e6)


def test_tdfnet_has_its_full_gate_and_the_mean_of_its_folds():
    recipe = load_recipe("tdfnet-table1-loso")
    assert count_parameters(recipe) == 254_731_780
    for name in ("tdfnet-table1-loso", "tdfnet-table1-lopo", "tdfnet-table1-ra"):
        published = load_recipe(name).published
        for metric, mean in published.scores.items():
            folds = [scores[metric] for scores in published.folds.values()]
            assert sum(folds) / len(folds) == pytest.approx(mean, abs=6e-5)


def test_rows_of_other_models_are_refused_settings_of_the_row_that_they_extend():
    baseline = load_recipe("mstr-table2-iemocap-baseline")
    assert "factor" not in baseline.model
    with pytest.raises(BadConfig, match=r"unknown key 'factor'"):
        resolve(load_recipe("mstr-table2-iemocap-baseline", ["model.factor=3"]))
    assert resolve(load_recipe("tdfnet-table5-without-me")).streams == ("speech", "text", "speaker")


def test_the_list_has_an_entry_for_each_figure():
    entries = json.loads(CliRunner().invoke(app, ["recipes", "--json"]).stdout)
    assert {entry["name"] for entry in entries} == set(ROWS)
    assert len({(entry["name"], entry["metric"]) for entry in entries}) == len(entries)
    assert {
        "name": "mcsan-table3-two-layers",
        "paper": "MCSAN",
        "table": "Table 3",
        "row": "N = 2",
        "metric": "WA",
        "published": 0.601,
        "corpus": "iemocap",
    } in entries
    plotted = [entry for entry in entries if entry["name"] == "mstr-figure3-p2-meld"]
    assert [(entry["metric"], entry["published"]) for entry in plotted] == [("WF1", None)]


@pytest.mark.slow
def test_the_list_of_a_paper_has_its_rows_only():
    result = CliRunner().invoke(app, ["recipes", "--paper", "EmotionNAS"])
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == sorted(SEARCHED)
    with pytest.raises(BadConfig, match=r"there is no paper 'tdfnt'; did you mean 'tdfnet'"):
        CliRunner().invoke(app, ["recipes", "--paper", "tdfnt"], catch_exceptions=False)
