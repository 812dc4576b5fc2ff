"""The shipped recipes load, the commands in their comments work, and MSTR's have the paper's parameter count."""

import re
import shlex
from dataclasses import asdict

import pytest

from affekt.errors import BadConfig
from affekt.features.choice import Choice
from affekt.models.base import FeatureSpec
from affekt.recipe_files import RECIPES, shipped_files
from affekt.training.plan import _check_preset, resolve
from affekt.training.recipe import load_recipe, shipped_recipes
from affekt.workflows.training_data import TrainingData

PAIR = ("mstr-cremad", "vanilla-cremad")
# Settings that turn the small models of the recipes into the paper's.
PAPER_SIZES = [
    "model.frames=150",
    "model.stride=1",
    "model.dim=1024",
    "model.blocks=4",
    "model.heads=16",
    "model.feedforward=512",
    "model.input_norm=none",
]


def commands_in_comments(name):
    """Return the arguments of the `affekt train` commands in a recipe's comments."""
    text = shipped_files(RECIPES)[name].read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall(r"^# +affekt train (.*)$", text, re.MULTILINE)]


def count_parameters(recipe, dim):
    model = resolve(recipe).build_model({"speech": FeatureSpec(dim, 50.0)}, recipe.label_set([]).emotions)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_is_named_like_its_file(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", PAIR)
def test_at_the_papers_sizes_the_parameter_count_is_the_papers(name):
    assert count_parameters(load_recipe(name, PAPER_SIZES), 1024) == 24_109_318  # Table 2: 24.1 M


def test_the_baseline_differs_in_its_attention_only():
    mstr, baseline = (resolve(load_recipe(name)).config() for name in PAIR)
    attention = {"name", "factor", "scales", "mask_window_padding", "scale_operator", "mixer", "upsampling"}
    for settings in (mstr, baseline):
        settings["model"] = {key: value for key, value in settings["model"].items() if key not in attention}
        del settings["name"], settings["published"]
    assert mstr == baseline
    assert count_parameters(load_recipe(PAIR[0]), 384) == count_parameters(load_recipe(PAIR[1]), 384)


@pytest.mark.parametrize("name", PAIR)
def test_the_command_in_a_recipes_comments_works(name):
    (arguments,) = commands_in_comments(name)
    recipe = load_recipe(arguments[0], arguments[1:])
    assert recipe.name == name
    assert resolve(recipe).protocol.has_validation
    assert asdict(recipe.training) == asdict(load_recipe(name).training)


@pytest.mark.parametrize(
    "name", [name for name in shipped_recipes() if name not in PAIR and commands_in_comments(name)]
)
def test_the_commands_in_comments_keep_the_split_and_the_strategy(name):
    recipe = load_recipe(name)
    for arguments in commands_in_comments(name):
        row = load_recipe(arguments[0], arguments[1:])
        assert row.name.startswith(name)
        assert row.name != name
        assert (row.protocol, row.folds, row.selection) == (recipe.protocol, recipe.folds, recipe.selection)
        assert row.training.strategy == recipe.training.strategy
        assert set(resolve(row).streams) <= set(resolve(recipe).streams)


@pytest.mark.parametrize("name", PAIR)
def test_the_protocols_of_a_recipe_on_cremad(name, cremad, monkeypatch):
    monkeypatch.setenv("AFFEKT_DATA", str(cremad.parent))
    (arguments,) = commands_in_comments(name)
    recipe, by_speaker = load_recipe(name), load_recipe(arguments[0], arguments[1:])
    data = TrainingData.read(recipe)
    ((_, random),) = data.folds(resolve(recipe))
    assert not random.speaker_independent
    assert len(random.subsets["test"]) == len(data.utterances) // 5
    ((_, split),) = data.folds(resolve(by_speaker))
    assert split.speaker_independent
    assert set(split.subsets) == {"train", "validation", "test"}


def test_a_preset_for_features_of_another_width_is_refused():
    """Such as TDFNet's ablation on log-mel frames, trained on those of an encoder under the ablation's name."""
    choice = Choice("tdfnet-without_me", None, None)
    _check_preset(choice, {"speech": 128, "text": 768})
    with pytest.raises(BadConfig, match=r"'tdfnet-without_me' is for a stream 'speech' of width 128, .* has width 384"):
        _check_preset(choice, {"speech": 384, "text": 768})
    _check_preset(Choice("tdfnet", None, None), {"speech": 384})


def test_the_recipe_of_another_command_is_refused_with_that_command():
    with pytest.raises(BadConfig, match="a recipe for `affekt search emotionnas-cremad`"):
        load_recipe("emotionnas-cremad")
