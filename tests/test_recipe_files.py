"""`extends` in recipes, and the published figures that recipes state."""

import pytest

from affekt.config import encode, to_toml
from affekt.errors import BadConfig
from affekt.published import PublishedResult, published_result
from affekt.recipe_files import RECIPES, read_extended
from affekt.runs.folder import Run
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe, recipe_of
from affekt.workflows.training_data import TrainingData

BASE = """
name = "base"
labels = "six"
corpora = ["cremad"]
[protocol]
name = "mstr-random"
[features.speech]
name = "mfcc"
coefficients = 20
[model]
name = "mstr"
dim = 64
heads = 2
[training]
epochs = 3
strategy = {learning_rate = 1e-3, clip = 1.0}
[published]
citation = "Somebody, 2020"
scores = {UA = 0.5}
[[assumptions]]
setting = "model.dim"
reading = "64"
reason = "a guess"
confidence = "low"
[[assumptions]]
setting = "protocol"
reading = "random"
reason = "stated in passing"
confidence = "high"
"""


@pytest.fixture
def extend(tmp_path):
    """Return a function that writes a recipe which extends another, and reads it."""
    (tmp_path / "base.toml").write_text(BASE, encoding="utf-8")

    def write(text, name="own.toml", extends="base.toml"):
        (tmp_path / name).write_text(f'name = "own"\nextends = "{extends}"\n{text}', encoding="utf-8")
        return read_extended(tmp_path / name, "recipe", RECIPES)

    return write


def test_tables_are_merged_key_by_key(extend):
    settings = extend("[model]\ndim = 32\n[training]\nstrategy = {clip = 2.0}\n")
    assert settings["name"] == "own"
    assert settings["model"] == {"name": "mstr", "dim": 32, "heads": 2}
    assert settings["training"] == {"epochs": 3, "strategy": {"learning_rate": 1e-3, "clip": 2.0}}
    assert settings["features"] == {"speech": {"name": "mfcc", "coefficients": 20}}


def test_a_table_of_another_name_replaces_the_table(extend):
    settings = extend('[features.speech]\nname = "log-mel"\n[model]\nname = "vanilla"\ndim = 32\n')
    assert settings["features"]["speech"] == {"name": "log-mel"}
    assert settings["model"] == {"name": "vanilla", "dim": 32}


def test_published_figures_are_not_inherited_and_assumptions_are_added(extend):
    added = 'reading = "2"\nreason = "stated"\nconfidence = "high"\n'
    settings = extend(
        f'[[assumptions]]\nsetting = "model.heads"\n{added}[[assumptions]]\nsetting = "protocol"\n{added}'
    )
    assert "published" not in settings
    readings = {entry["setting"]: entry["reading"] for entry in settings["assumptions"]}
    assert readings == {"model.dim": "64", "protocol": "2", "model.heads": "2"}


def test_dropped_keys_take_their_assumptions_with_them(extend):
    settings = extend("drop = ['model.dim', 'training.strategy']\n")
    assert settings["model"] == {"name": "mstr", "heads": 2}
    assert settings["training"] == {"epochs": 3}
    assert [entry["setting"] for entry in settings["assumptions"]] == ["protocol"]
    with pytest.raises(BadConfig, match=r"own\.toml, drop: the extended recipe has no model\.depth"):
        extend("drop = ['model.depth']\n")


def test_a_recipe_may_extend_a_shipped_one_and_one_that_extends(extend):
    extend("seed = 7\n", "middle.toml")
    assert extend("", extends="middle.toml")["seed"] == 7
    shipped = extend("[model]\ndim = 48\n", extends="mstr-cremad")
    assert shipped["model"] == {**load_recipe("mstr-cremad").model, "dim": 48}
    assert "published" not in shipped


def test_cycles_and_unknown_names_are_refused(extend):
    with pytest.raises(BadConfig, match=r"own\.toml, extends: recipe 'mstr-crema' not found; did you mean"):
        extend("", extends="mstr-crema")
    with pytest.raises(BadConfig, match=r"own extends own"):
        extend("", extends="own.toml")
    extend("", "own.toml")
    extend("", "first.toml", extends="own.toml")
    with pytest.raises(BadConfig, match=r"extends itself: own extends first extends own; remove one `extends`"):
        extend("", extends="first.toml")
    with pytest.raises(BadConfig, match=r"drop = 'model': expected a list of keys"):
        extend('drop = "model"\n')


def test_a_change_of_the_descriptions_does_not_change_a_run(tmp_path, monkeypatch):
    folder = tmp_path / "data" / "cremad" / "audio"
    folder.mkdir(parents=True)
    for actor in range(1001, 1006):
        for emotion in ("ANG", "HAP"):
            (folder / f"{actor}_DFA_{emotion}_XX.wav").touch()
    monkeypatch.setenv("AFFEKT_DATA", str(tmp_path / "data"))
    plan = resolve(load_recipe("mstr-cremad"))
    data = TrainingData.read(plan.recipe)
    ((_, split),) = data.folds(plan)
    index = {name: data.label_index(name) for ids in split.subsets.values() for name in ids}

    def start(*settings):
        changed = resolve(load_recipe("mstr-cremad", list(settings)))
        return Run.start(tmp_path / "run", changed.config(), split, data.labels.emotions, index)

    before = start().config
    run = start('published.note="reworded"', "published.scores={UA=0.7}")
    assert run.config == before
    assert "published" not in before
    assert run.descriptions["published"]["note"] == "reworded"
    assert published_result(run.config, run.descriptions["published"]).scores == {"UA": 0.7}
    assert recipe_of(run).model["dim"] == plan.model.settings["dim"]
    with pytest.raises(BadConfig, match=r"other settings \(seed\)"):
        start("seed=3")


def test_published_figures_belong_to_one_protocol_and_the_model_of_the_recipe():
    section = encode(load_recipe("mstr-cremad", ["seed=3"]).published)
    assert published_result({"protocol": {"name": "mstr-random"}}, section).scores == {"UA": 0.7992, "WA": 0.797}
    assert published_result({"protocol": {"name": "official"}}, section) is None
    assert published_result({"protocol": {"name": "mstr-random"}}, None) is None
    assert load_recipe("mstr-cremad", ["model.factor=2"]).published is None


def test_published_figures_are_fractions_of_known_metrics():
    with pytest.raises(BadConfig, match=r"UA = 79\.9: expected a fraction"):
        PublishedResult("Somebody, 2020", scores={"UA": 79.9})
    with pytest.raises(BadConfig, match=r"one of the metrics WA, UA, WF1"):
        PublishedResult("Somebody, 2020", std={"F1": 0.1})


def test_the_descriptions_of_a_recipe_are_valid_toml():
    text = to_toml(resolve(load_recipe("mstr-cremad")).config())
    assert "[published]" in text
    assert "assumptions" not in text
