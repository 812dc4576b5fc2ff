"""Fixtures of the tests of workflows."""

import pytest

from tests.synthetic import environment_set, make_data_root


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with synthetic data, models and a recipe, which AFFEKT_DATA, AFFEKT_MODELS and AFFEKT_CACHE point to."""
    root = tmp_path_factory.mktemp("workspace")
    make_data_root(root)
    with environment_set(root):
        yield root
