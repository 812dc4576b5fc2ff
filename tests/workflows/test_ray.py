"""Training on a Ray cluster of several nodes: the same results as in one process, whatever happens to the nodes."""

import os
import threading
import time
from dataclasses import replace

import pytest

from affekt.errors import BadConfig
from affekt.runs.folder import Run
from affekt.workflows.jobs import LocalLauncher, ignore
from affekt.workflows.ray_launcher import RayLauncher
from affekt.workflows.reproduce import reproduce
from affekt.workflows.reproduction import Request, training_row
from affekt.workflows.reproduction_plan import make_plan
from tests.conftest import ROOT
from tests.logs import logged
from tests.synthetic import SMALL_RECIPE, environment_set, make_cremad
from tests.workflows.test_jobs import contents

PUBLISHED = """
[published]
citation = "Nobody 2026"
table = "Table 1"
row = "small"
protocol = "speaker-folds"
scores = {UA = 0.5}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a corpus, and a recipe of two folds and two seeds."""
    root = tmp_path_factory.mktemp("ray")
    make_cremad(root)
    protocol = '[protocol]\nname = "speaker-folds"\nk = 2\n'
    text = SMALL_RECIPE.replace("epochs = 1", "epochs = 12")
    before, _, after = text.partition("[protocol]")
    (root / "row.toml").write_text(before + protocol + after[after.index("[features") :] + PUBLISHED)
    (root / "small.toml").write_text(SMALL_RECIPE)
    with environment_set(root):
        yield root


@pytest.fixture
def cluster():
    """A cluster of a head node without CPUs and two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                started.add_node(num_cpus=1)
            yield started
        finally:
            started.shutdown()


def plan_rows(root, name):
    return make_plan("row", [training_row(str(root / "row.toml"), Request(seeds=(1, 2)))], root / name)


class ListingLauncher(RayLauncher):
    """A launcher that lists the jobs that have finished."""

    def __init__(self, address):
        super().__init__(address)
        self.finished = []

    def run(self, jobs, *, on_finished=ignore):
        super().run(jobs, on_finished=lambda job: (self.finished.append(job), on_finished(job)))


@pytest.mark.slow
def test_a_reproduction_of_which_a_node_is_killed_loses_nothing_and_repeats_nothing(root, cluster, monkeypatch):
    expected = reproduce(plan_rows(root, "local"), LocalLauncher())
    # The cluster starts without features, which the command extracts for it.
    monkeypatch.setenv("AFFEKT_CACHE", str(root / "shared"))
    plan, killed = plan_rows(root, "cluster"), []

    def kill_when_halfway():
        """Kill a node when its job has finished some epochs."""
        while not any(unit for unit in plan.rows[0].units if max(Run(unit.folder).epochs, default=0) >= 5):
            time.sleep(0.05)
        victim = cluster.list_all_nodes()[1]
        cluster.remove_node(victim, allow_graceful=False)
        killed.append(victim)

    killer = threading.Thread(target=kill_when_halfway, daemon=True)
    launcher = ListingLauncher(cluster.address)
    finished = launcher.finished
    with logged() as messages, launcher:
        killer.start()
        scores = reproduce(plan, launcher)
        with pytest.raises(BadConfig, match=r"no node of the Ray cluster has 2 CPUs .* lower --cpus-per-job"):
            RayLauncher(cluster.address, cpus_per_job=2).run([replace(finished[0], folder=root / "large")])
    killer.join(timeout=10)
    assert len(killed) == 1
    assert [message for message in messages if "its worker on node" in message and "resumes after epoch" in message]
    assert sorted(job.folder for job in finished) == sorted(unit.folder for unit in plan.rows[0].units)
    assert scores == expected
    assert (root / "cluster" / "results.json").read_bytes() == (root / "local" / "results.json").read_bytes()
    assert contents(root / "cluster") == contents(root / "local")
    for unit in plan.rows[0].units:  # each epoch is recorded once
        assert [entry["epoch"] for entry in Run(unit.folder).log()] == list(range(1, 13))
    assert not list((root / "cluster").rglob(".affekt-*"))
