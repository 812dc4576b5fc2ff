"""docs/training.md and docs/features.md document the settings of a recipe with their defaults, and the example is valid."""

import dataclasses
import re
import tomllib

import pytest

from affekt.audio.loudness import GateConfig
from affekt.config import decode
from affekt.features.augment import Alteration, Augmentation, Masking, Offsets
from affekt.training.detection import DetectorConfig
from affekt.training.plan import resolve
from affekt.training.recipe import Recipe, TrainingConfig, load_recipe
from affekt.training.supervised import SupervisedConfig
from tests.conftest import ROOT

TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
FEATURES = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
SECTIONS = {"augmentation", "alteration", "masking", "offsets"}


def default_of(field):
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def documented_defaults(after, text=TEXT):
    """Return setting -> default from the first table after a text; None for a required setting."""
    table = re.search(r"\| setting .*?\n\n", text[text.index(after) :] + "\n\n", re.DOTALL)[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.*?)`)? ?\|", table, re.MULTILINE)
    return {name: tomllib.loads(f"value = {value}")["value"] if value else None for name, value in rows}


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        (Recipe, "## A recipe"),
        (TrainingConfig, "### `[training]`"),
        (SupervisedConfig, "### `[training.strategy]`"),
        (Augmentation, "### `[training.augmentation]`"),
        (Alteration, "`[training.augmentation.alteration]`"),
        (DetectorConfig, "### `[detector]`"),
        (Masking, "`[training.augmentation.masking]`"),
        (Offsets, "`[training.augmentation.offsets]`"),
    ],
)
def test_every_setting_is_documented_with_its_default(kind, after):
    fields = {field.name: default_of(field) for field in dataclasses.fields(kind) if field.name not in SECTIONS}
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    assert documented_defaults(after) == fields


def test_every_setting_of_the_speech_gate_is_documented_with_its_default():
    expected = {field.name: default_of(field) for field in dataclasses.fields(GateConfig)}
    assert documented_defaults("## Speech gate", FEATURES) == expected


def test_the_example_recipe_is_valid():
    example, _ = re.findall(r"```toml\n(name = .*?)```", TEXT, re.DOTALL)
    recipe = decode(Recipe, tomllib.loads(example), "docs/training.md")
    assert resolve(recipe).protocol.has_validation
    assert resolve(recipe).model.config.dim == 64


def test_the_example_of_an_extended_recipe_is_valid(tmp_path):
    _, example = re.findall(r"```toml\n(name = .*?)```", TEXT, re.DOTALL)
    (tmp_path / "wide.toml").write_text(example, encoding="utf-8")
    recipe, base = load_recipe(str(tmp_path / "wide.toml")), load_recipe("mstr-cremad")
    assert (resolve(recipe).model.config.dim, resolve(recipe).model.config.blocks) == (256, base.model["blocks"])
