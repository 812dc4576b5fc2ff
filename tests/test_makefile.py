"""The commands of `make results`, which takes too long to be run in a test."""

import shutil
import subprocess

import pytest

from affekt.search.recipe import load_search
from affekt.training.recipe import load_recipe
from tests.conftest import ROOT


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_recipes_and_settings_of_make_results_are_valid():
    # `-o` skips the installation; `echo` prints the arguments of each command instead of running it.
    command = ["make", "--silent", "-o", ".venv-dev/installed", "results", "AFFEKT=echo"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    commands = [line.split() for line in result.stdout.splitlines()]
    assert {name for name, *_ in commands} == {"train", "search", "report"}
    for name, *arguments in commands:
        if name != "report":
            load = load_recipe if name == "train" else load_search
            load(arguments[0], [argument for argument in arguments[1:] if "=" in argument])
