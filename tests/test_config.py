import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

import pytest

from affekt.config import decode, decode_named, encode, override, read_toml, to_toml
from affekt.corpora import corpora
from affekt.errors import BadConfig, MissingExtra, UnknownName
from affekt.extras import need
from affekt.features import features
from affekt.models import models
from affekt.protocols import protocols
from affekt.recipe_files import RECIPES, read_extended, shipped_files
from affekt.registry import Registry
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe, shipped_recipes


@dataclass(frozen=True)
class Inner:
    renamed: ClassVar[Mapping[str, str]] = {"speed": "rate"}

    rate: float = 0.1


@dataclass(frozen=True)
class Settings:
    epochs: int
    kind: Literal["short", "long"] = "short"
    inner: Inner = field(default_factory=Inner)
    names: tuple[str, ...] = ()
    several: tuple[Inner, ...] = ()
    perhaps: Inner | None = None
    by_name: Mapping[str, Inner] = field(default_factory=dict)


def test_settings_survive_toml(tmp_path):
    settings = Settings(3, "long", Inner(0.5), ("a", "b"))
    (tmp_path / "settings.toml").write_text(to_toml(encode(settings)))
    assert decode(Settings, read_toml(tmp_path / "settings.toml"), "here") == settings


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"epochs": 1, "epohcs": 2}, r"here: unknown key 'epohcs'; did you mean 'epochs'\?"),
        ({"epochs": 1, "inner": {"rat": 1.0}}, r"here, inner: unknown key 'rat'; did you mean 'rate'\?"),
        ({"epochs": 1, "several": [{}, {"rat": 1.0}]}, r"here, several, entry 2: unknown key 'rat'"),
        ({"epochs": 1, "perhaps": {"rat": 1.0}}, r"here, perhaps: unknown key 'rat'"),
        ({}, "missing required field `epochs`"),
        ({"epochs": "three"}, "Expected `int`, got `str`"),
        ({"epochs": 2.5}, "Expected `int`, got `float`"),
        ({"epochs": 1, "kind": "medium"}, "Invalid enum value 'medium'"),
    ],
)
def test_an_invalid_key_or_value_is_named_in_the_error(data, message):
    with pytest.raises(BadConfig, match=message):
        decode(Settings, data, "here")


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"inner": {"speed": 1.0}}, "here, inner"),
        ({"several": [{}, {"speed": 1.0}]}, "here, several, entry 2"),
        ({"perhaps": {"speed": 1.0}}, "here, perhaps"),
        ({"by_name": {"a": {"speed": 1.0}}}, "here, by_name, a"),
        (override({}, ["inner.speed=1.0"]), "here, inner"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(data, where):
    with pytest.raises(BadConfig, match=f"^{where}: 'speed' was renamed to 'rate'$"):
        decode(Settings, {"epochs": 1, **data}, "here")


def test_an_old_key_of_a_named_section_is_refused():
    registry = Registry("thing", {"inner": "tests.test_config:Inner"})
    with pytest.raises(BadConfig, match="'speed' was renamed to 'rate'"):
        decode_named(registry, {"name": "inner", "speed": 1.0}, "here")


def test_assignments_set_keys_in_sections():
    data = override({"epochs": 1, "inner": {"rate": 1.0}}, ["epochs=5", "inner.rate=0.25", "kind=long"])
    assert decode(Settings, data, "here") == Settings(5, "long", Inner(0.25))
    with pytest.raises(BadConfig, match="expected key=value"):
        override({}, ["epochs"])
    with pytest.raises(BadConfig, match="name is not a section"):
        override({"name": "made"}, ["name.x=1"])


def test_encoded_settings_contain_every_field():
    assert encode(decode(Settings, {"epochs": 1}, "here")) == encode(Settings(1))
    for registry in (models, features):
        for name in registry:
            kind = registry[name].Config
            assert set(encode(decode(kind, {}, "here"))) == {entry.name for entry in fields(kind)}


def test_a_named_section_is_decoded_to_the_class_and_its_settings():
    kind, config = decode_named(models, {"name": "mstr", "factor": 2}, "here")
    assert kind.__name__ == "MSTR"
    assert config.factor == 2
    with pytest.raises(BadConfig, match=r"no model 'mstrr'; did you mean 'mstr'\?"):
        decode_named(models, {"name": "mstrr"}, "here")
    with pytest.raises(BadConfig, match="needs the key 'name', the name of a model"):
        decode_named(models, {}, "here")


def test_an_error_names_the_missing_or_invalid_file(tmp_path):
    with pytest.raises(BadConfig, match=r"nothing\.toml does not exist"):
        read_toml(tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("a = = 2")
    with pytest.raises(BadConfig, match=r"broken\.toml is not TOML"):
        read_toml(tmp_path / "broken.toml")


def test_a_registry_imports_an_entry_or_suggests_a_known_name():
    registry = Registry("thing", {"path": "pathlib:Path"})
    assert registry["path"].__name__ == "Path"
    assert list(registry) == ["path"]
    with pytest.raises(UnknownName, match=r"there is no thing 'pth'; did you mean 'path'\?"):
        registry["pth"]


def test_the_error_for_a_missing_extra_states_the_install_command():
    with pytest.raises(MissingExtra, match=r"tea needs kettle_xyz: pip install 'affekt\[train\]'"):
        need("kettle_xyz", extra="train", purpose="tea")


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_resolves_to_the_settings_of_its_file(name):
    """The recipe has the values of its file, its names are in the registries, and an override changes one setting only."""
    recipe, content = load_recipe(name), read_extended(shipped_files(RECIPES)[name], "recipe", RECIPES)
    assert recipe.name == name
    assert [source.name for source in recipe.sources] == [
        corpus["name"] if isinstance(corpus, dict) else corpus.partition(":")[0] for corpus in content["corpora"]
    ]
    assert {source.name for source in recipe.sources} <= set(corpora)
    assert recipe.training.epochs == content["training"]["epochs"]
    _, settings = decode_named(protocols, content["protocol"], name)
    assert resolve(recipe).protocol == settings
    unchanged, changed = resolve(recipe).config(), resolve(load_recipe(name, ["training.epochs=77"])).config()
    assert (unchanged["training"].pop("epochs"), changed["training"].pop("epochs")) == (recipe.training.epochs, 77)
    assert changed == unchanged


def test_a_recipe_with_an_unknown_name_is_refused():
    with pytest.raises(BadConfig, match=r"recipe 'defalt' not found; did you mean 'default'\?"):
        load_recipe("defalt")
    with pytest.raises(BadConfig, match=r"unknown key 'learning_rat'; did you mean 'learning_rate'\?"):
        resolve(load_recipe("default", ["training.strategy.learning_rat=1.0"]))


def test_the_error_for_an_invalid_choice_lists_the_valid_ones():
    with pytest.raises(
        BadConfig, match=r"Invalid enum value 'mean' - at `\$.mixer`: expected 'sum', 'concat', 'attention'"
    ):
        decode_named(models, {"name": "mstr", "mixer": "mean"}, "model")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mstr", {"heads": 0}, "heads = 0: expected 1 or more"),
        ("tdfnet", {"blocks": 0}, "blocks = 0: expected 1 or more"),
        ("mcsan", {"dropout": 1.0}, "dropout = 1.0: expected a probability, from 0 to below 1"),
        ("ks_transformer", {"ccabs": -1}, "ccabs = -1: expected 0 or more"),
        ("emotionnas-recurrent", {"hidden": 0}, "hidden = 0: expected 1 or more"),
    ],
)
def test_impossible_sizes_are_refused(name, settings, message):
    with pytest.raises(BadConfig, match=re.escape(message)):
        decode_named(models, {"name": name, **settings}, "model")
