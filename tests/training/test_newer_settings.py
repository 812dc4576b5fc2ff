"""Runs that were begun before a setting existed."""

import copy
import tomllib

import pytest

from affekt.config import to_toml
from affekt.errors import BadConfig
from affekt.protocols import Split
from affekt.runs.folder import Run
from affekt.training.newer_settings import add_newer_settings
from affekt.training.plan import resolve
from affekt.training.recipe import load_recipe

SPLIT = Split("made", {"train": ("cremad/a",), "test": ("cremad/b",)}, True)
LABELS = {"cremad/a": 0, "cremad/b": 1}


def start_old_run(folder):
    """Start a run as a version without `patience_metric`, `masked` and `fraction` would have; return today's settings too."""
    config = resolve(load_recipe("mstr-cremad", ["corpora=[{name='cremad'}]"])).config()
    old = copy.deepcopy(config)
    del old["training"]["patience_metric"], old["model"]["masked"], old["corpora"][0]["fraction"]
    return Run.start(folder, old, SPLIT, ("angry", "happy"), LABELS), config


def test_settings_that_a_run_lacks_count_as_their_defaults(tmp_path):
    run, config = start_old_run(tmp_path / "run")
    add_newer_settings(run)
    assert {**run.config, **run.descriptions} == tomllib.loads(to_toml(config))
    run.check(config, SPLIT)
    with pytest.raises(BadConfig, match=r"other settings \(training\)"):
        run.check({**config, "training": {**config["training"], "patience_metric": "loss"}}, SPLIT)


def test_a_run_whose_recipe_cannot_be_resolved_stays_as_it_is(tmp_path):
    run = Run.start(tmp_path / "run", {"name": "made", "unknown": 1}, SPLIT, ("angry", "happy"), LABELS)
    before = run.config_path.read_text()
    add_newer_settings(run)
    assert run.config_path.read_text() == before
    add_newer_settings(Run(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
