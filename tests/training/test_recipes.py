"""The shipped recipes: they load, and those of a paper are the paper's model in its shape."""

import re
import shlex
from dataclasses import asdict

import pytest

from affekt.models.base import FeatureSpec
from affekt.training.plan import resolve
from affekt.training.recipe import RECIPES, load_recipe, shipped_recipes
from affekt.workflows.training_data import TrainingData

PAIR = ("mstr-cremad", "vanilla-cremad")
# What stands between the recipes' sizes and the paper's.
PAPER = [
    "model.frames=150",
    "model.stride=1",
    "model.dim=1024",
    "model.blocks=4",
    "model.heads=16",
    "model.feedforward=512",
    "model.input_norm=none",
]


def commands(name):
    """The `affekt train` commands that a recipe's comments give."""
    text = (RECIPES / f"{name}.toml").read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^# +affekt train (.*)$", text, re.MULTILINE)]


def parameters(recipe, dim):
    model = resolve(recipe).build_model({"speech": FeatureSpec(dim, 50.0)}, recipe.label_set([]).emotions)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_bears_its_files_name(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", PAIR)
def test_at_the_papers_sizes_it_is_the_papers_model(name):
    assert parameters(load_recipe(name, PAPER), 1024) == 24_109_318  # Table 2's 24.1 M, spelt out


def test_the_baseline_differs_by_its_attention_alone():
    ours, baseline = (resolve(load_recipe(name)).config() for name in PAIR)
    attention = {"name", "factor", "scales", "mask_window_padding", "scale_operator", "mixer", "upsampling"}
    for settings in (ours, baseline):
        settings["model"] = {key: value for key, value in settings["model"].items() if key not in attention}
        del settings["name"]
    assert ours == baseline
    assert parameters(load_recipe(PAIR[0]), 384) == parameters(load_recipe(PAIR[1]), 384)


@pytest.mark.parametrize("name", PAIR)
def test_the_commands_in_its_comments_work(name):
    (words,) = commands(name)
    recipe = load_recipe(words[0], words[1:])
    assert recipe.name == name
    assert resolve(recipe).protocol.has_validation
    assert asdict(recipe.training) == asdict(load_recipe(name).training)


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name not in PAIR and commands(name)])
def test_the_rows_in_its_comments_are_of_the_same_split(name):
    recipe = load_recipe(name)
    for words in commands(name):
        row = load_recipe(words[0], words[1:])
        assert row.name.startswith(name)
        assert row.name != name
        assert (row.protocol, row.folds, row.selection) == (recipe.protocol, recipe.folds, recipe.selection)
        assert row.training.strategy == recipe.training.strategy
        assert set(resolve(row).streams) <= set(resolve(recipe).streams)


@pytest.mark.parametrize("name", PAIR)
def test_its_protocols_on_the_corpus_itself(name, cremad, monkeypatch):
    monkeypatch.setenv("AFFEKT_DATA", str(cremad.parent))
    (words,) = commands(name)
    recipe, apart = load_recipe(name), load_recipe(words[0], words[1:])
    data = TrainingData.read(recipe)
    ((_, random),) = data.folds(resolve(recipe))
    assert not random.speaker_independent
    assert len(random.subsets["test"]) == len(data.utterances) // 5
    ((_, split),) = data.folds(resolve(apart))
    assert split.speaker_independent
    assert set(split.subsets) == {"train", "validation", "test"}
