"""Fixtures of the tests of workflows."""

import pytest

from affekt import worker_pool
from affekt.processes import WorkerProcess
from tests.synthetic import environment_set, make_data_root


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with synthetic data, models and a recipe, which AFFEKT_DATA, AFFEKT_MODELS and AFFEKT_CACHE point to."""
    root = tmp_path_factory.mktemp("workspace")
    make_data_root(root)
    with environment_set(root):
        yield root


@pytest.fixture
def workers(monkeypatch):
    """Return the ids of all worker processes that are started."""
    ids = []

    class Listed(WorkerProcess):
        def __init__(self, entry):
            super().__init__(entry)
            ids.append(self.id)

    monkeypatch.setattr(worker_pool, "WorkerProcess", Listed)
    return ids
