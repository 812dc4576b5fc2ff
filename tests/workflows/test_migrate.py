"""Runs, searches and bundles of an earlier version are refused with the command that migrates them, and then migrated."""

import shutil

import pytest

from affekt.bundle.folder import ASSETS, Bundle
from affekt.bundle.pipeline import rebuild
from affekt.config import read_toml, to_toml
from affekt.errors import BadBundle, BadConfig, UnknownName
from affekt.protocols import Split, protocols
from affekt.reports.card import card
from affekt.runs.folder import Run
from affekt.search.folder import Search
from affekt.training.plan import resolve
from affekt.training.recipe import recipe_of
from affekt.workflows.migrate import migrate, migrate_recipe, migrate_search

OLD = """
name = "made"
labels = "six"
corpora = ["cremad"]
start = ""
seed = 1
split_seed = 0
folds = []
selection = "last"

[protocol]
name = "held-out-people"
test = ["cremad/1005"]

[encoder]
name = "whisper"
folder = "tiny-whisper"
blocks = [1, 2]
level = "relative"
span = 100

[streams.text]
name = "glove"
folder = "words"

[model]
name = "mcsan-small"

[branches]

[training]
epochs = 3
part = "train"
alphas_on = "validation"

[training.augmentation]
copies = 1
share = 0.25

[training.optimisation]
learning_rate = 3e-3
imitation = 1.0
"""


@pytest.fixture
def old_run(tmp_path):
    split = Split("made", {"train": ("cremad/1",), "test": ("cremad/2",)}, True)
    labels = {"cremad/1": 0, "cremad/2": 1}
    run = Run.start(tmp_path / "run", {"name": "made"}, split, ("angry", "happy"), labels)
    run.config_path.write_text(OLD)
    return run


def test_an_old_run_is_refused_with_the_command_that_migrates_it(old_run):
    with pytest.raises(BadConfig, match=f"affekt migrate {old_run.folder}"):
        recipe_of(old_run)


def test_a_migrated_run_has_the_settings_of_the_old_one(old_run):
    assert migrate(old_run.folder) == [old_run.config_path]
    recipe = recipe_of(old_run)
    assert set(recipe.features) == {"speech", "text"}
    assert recipe.features["speech"]["blocks"] == [1, 2]
    assert recipe.training.subset == "train"
    assert recipe.training.augmentation.copy_probability == 0.25
    assert recipe.training.strategy == {"name": "supervised", "learning_rate": 3e-3, "distillation": 1.0}
    assert resolve(recipe).streams == ("speech", "text")


def test_migrating_twice_changes_nothing(old_run):
    migrate(old_run.folder)
    text = old_run.config_path.read_text()
    assert migrate(old_run.folder) == []
    assert old_run.config_path.read_text() == text


@pytest.mark.parametrize(
    ("frozen", "augmentation", "strategy"),
    [(True, {}, "frozen-fusion"), (True, {"share": 0.25}, "supervised"), (False, {}, "supervised")],
)
def test_a_fusion_gets_the_strategy_that_it_was_trained_with(frozen, augmentation, strategy):
    config = {
        "streams": {},
        "model": {"name": "emotionnas-fusion", "frozen": frozen},
        "branches": {"recurrent": "runs/recurrent"},
        "branch_ids": {"recurrent": "abc"},
        "training": {"epochs": 1, "augmentation": augmentation, "optimisation": {}},
    }
    migrated = migrate_recipe(config)
    assert migrated["training"]["strategy"]["name"] == strategy
    assert migrated["weights_from"] == {"recurrent": "runs/recurrent"}
    assert migrated["weights_ids"] == {"recurrent": "abc"}


def test_an_old_search_is_refused_and_migrated(tmp_path):
    config = {
        "name": "old-search",
        "encoder": {"name": "mfcc"},
        "streams": {"spectrogram": {"name": "spectrogram"}},
        "spectrogram": {"search": {"epochs": 2, "architecture": {"order": "first"}, "alphas_on": "half"}},
        "recurrent": {"drawn": 3},
    }
    (tmp_path / "search.toml").write_text(to_toml(config))
    with pytest.raises(BadConfig, match="affekt migrate"):
        _ = Search(tmp_path).config
    assert migrate(tmp_path) == [tmp_path / "search.toml"]
    migrated = Search(tmp_path).config
    assert migrated == migrate_search(config)
    assert migrated["recurrent"] == {"random_candidates": 3}
    assert migrated["features"] == {"speech": {"name": "mfcc"}, "spectrogram": {"name": "spectrogram"}}
    assert migrated["spectrogram"]["search"]["strategy"] == {
        "name": "darts",
        "order": "first",
        "learn_alphas_on": "half",
    }


@pytest.mark.slow
def test_an_old_bundle_is_refused_and_migrated_with_its_card(tmp_path):
    folder = tmp_path / "default"
    shutil.copytree(ASSETS / "default", folder)
    (folder / "SHA256SUMS").unlink()  # which earlier versions did not write
    config = read_toml(folder / "config.toml")
    config["encoder"] = config.pop("features")["speech"]
    config["recipe"]["encoder"] = config["recipe"].pop("features")["speech"]
    config["recipe"]["training"]["optimisation"] = config["recipe"]["training"].pop("strategy")
    (folder / "config.toml").write_text(to_toml(config))
    old = Bundle.open(folder)
    measured = [folder / name for name in ("results.json", "across.json", "shifts.json", "predictions.json")]
    for path in measured:
        path.write_text(path.read_text().replace(Bundle.open("default").id, old.id))
    with pytest.raises(BadBundle, match="affekt migrate"):
        rebuild(old)
    assert migrate(folder) == [folder / name for name in ("config.toml", "results.json", "README.md", "SHA256SUMS")]
    bundle = Bundle.open(folder)
    bundle.verify()
    rebuild(bundle)
    assert bundle.id != old.id
    assert all(bundle.id in path.read_text() and old.id not in path.read_text() for path in measured)
    assert bundle.file("README.md").read_text() == card(bundle)


def test_a_folder_without_any_configuration_is_refused(tmp_path):
    with pytest.raises(BadConfig, match="contains no run, search or bundle"):
        migrate(tmp_path)


def test_a_renamed_protocol_is_refused_by_name_and_migrated():
    with pytest.raises(UnknownName, match="the protocol 'held-out-people' was renamed to 'held-out-speakers'"):
        protocols["held-out-people"]
    section = {"name": "held-out-people", "test": ["cremad/1005"]}
    for migrated in (migrate_recipe({"protocol": section}), migrate_search({"protocol": section})):
        assert migrated["protocol"] == {"name": "held-out-speakers", "test": ["cremad/1005"]}
