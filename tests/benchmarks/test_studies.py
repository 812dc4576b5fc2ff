"""The runs of `make results`, which take too long to be trained in a test."""

import sys

from affekt.search.recipe import load_search
from affekt.training.recipe import load_recipe
from tests.conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import studies


def test_the_recipes_and_settings_of_make_results_are_valid():
    folders = [folder for folder, _, _ in studies.trainings()]
    assert len(set(folders)) == len(folders)
    for _, recipe, settings in studies.trainings():
        load_recipe(recipe, list(settings))
    for name in studies.SEARCHES:
        load_search(name, [])
