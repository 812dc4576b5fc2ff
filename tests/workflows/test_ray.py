"""Training on a Ray cluster of several nodes: the same results as in one process, whatever happens to the nodes."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from affekt.cli import app
from affekt.errors import AffektError, BadConfig
from affekt.lock import FileLock, Locked
from affekt.ray_cluster import QUIET
from affekt.runs.folder import Run
from affekt.training.recipe import load_recipe
from affekt.workflows import ray_nodes, ray_worker
from affekt.workflows.job import Job
from affekt.workflows.jobs import LocalLauncher, ignore
from affekt.workflows.node_requirements import NodeRequirements, versions
from affekt.workflows.ray_launcher import MAX_DEATHS, RayLauncher, _Queue, _requirements, _Task
from affekt.workflows.ray_nodes import MAX_HEAD_FAILURES, Head, find_nodes
from affekt.workflows.reproduce import reproduce
from affekt.workflows.reproduction import Request, training_row
from affekt.workflows.reproduction_plan import make_plan
from tests.conftest import ROOT
from tests.logs import logged
from tests.synthetic import SMALL_RECIPE, environment_set, make_cremad
from tests.workflows.test_jobs import contents
from tests.workflows.test_jobs_of_recognition import is_running

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
    """A folder with a corpus, a recipe of one run, and a row of a table with two folds and two seeds."""
    root = tmp_path_factory.mktemp("ray")
    make_cremad(root)
    protocol = '[protocol]\nname = "speaker-folds"\nk = 2\n'
    before, _, after = SMALL_RECIPE.replace("epochs = 1", "epochs = 8").partition("[protocol]")
    (root / "row.toml").write_text(before + protocol + after[after.index("[features") :] + PUBLISHED)
    (root / "small.toml").write_text(SMALL_RECIPE)
    with environment_set(root):
        yield root


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head node without CPUs and two nodes with one CPU each."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                started.add_node(num_cpus=1)
            yield started
        finally:
            started.shutdown()
            with warnings.catch_warnings(action="ignore"):
                gc.collect()  # so that files and sockets that Ray left open cause no warnings in later tests


def small_job(root, folder, epochs=1):
    return Job(load_recipe(str(root / "small.toml"), [f"training.epochs={epochs}"]), root / folder)


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
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Ray's own files and sockets
def test_jobs_end_with_a_command_that_is_killed_and_resume_with_the_next(root, cluster):
    command = [sys.executable, "-m", "affekt", "train", "small.toml", "--run", "killed", "--ray", cluster.address]
    environment, run = {**os.environ, "PYTHONPATH": str(ROOT / "src")}, Run(root / "killed")
    process = subprocess.Popen([*command, "training.epochs=1000"], env=environment, cwd=root, stdout=subprocess.PIPE)
    with process:
        try:
            wait_until(lambda: len(run.epochs) >= 2)
        finally:
            process.kill()
        assert process.stdout.read() == b""
    wait_until(lambda: is_free(run.folder / "worker"))
    done = run.epochs[-1]
    assert done < 1000
    with logged() as messages, RayLauncher(cluster.address) as launcher:
        launcher.run([replace(small_job(root, "killed", 1000), until=done + 1)])
    assert run.epochs == list(range(1, done + 2))
    assert f"{run.folder}: resuming after epoch {done} of 1000" in messages


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_reproduction_of_which_a_node_is_killed_loses_nothing_and_repeats_nothing(root, cluster, monkeypatch):
    expected = reproduce(plan_rows(root, "local"), LocalLauncher())
    # The cluster starts without features, which the command extracts for it.
    monkeypatch.setenv("AFFEKT_CACHE", str(root / "shared"))
    plan, victim = plan_rows(root, "cluster"), cluster.list_all_nodes()[1]
    launcher = ListingLauncher(cluster.address)
    with logged() as messages, launcher:
        killer = threading.Thread(target=kill_halfway, args=(cluster, victim, plan.rows[0].units), daemon=True)
        killer.start()
        scores = reproduce(plan, launcher)
    killer.join(timeout=10)
    assert victim not in cluster.list_all_nodes()
    assert [
        message for message in messages if "(the node died or cannot be reached); it resumes after epoch" in message
    ]
    assert sorted(job.folder for job in launcher.finished) == sorted(unit.folder for unit in plan.rows[0].units)
    assert scores == expected
    assert (root / "cluster" / "results.json").read_bytes() == (root / "local" / "results.json").read_bytes()
    assert contents(root / "cluster") == contents(root / "local")
    for unit in plan.rows[0].units:  # each epoch is recorded once
        assert [entry["epoch"] for entry in Run(unit.folder).log()] == list(range(1, 9))
    assert not list((root / "cluster").rglob(".affekt-*"))


def kill_halfway(cluster, node, units):
    """Kill a node of a cluster when a unit has finished some epochs."""
    wait_until(lambda: any(max(Run(unit.folder).epochs, default=0) >= 2 for unit in units))
    cluster.remove_node(node, allow_graceful=False)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_free(path):
    try:
        FileLock(path).release()
    except Locked:
        return False
    return True


@pytest.mark.slow
def test_several_processes_of_a_node_train_one_model_and_end_together(root, monkeypatch):
    monkeypatch.setattr(ray_worker, "worker_name", lambda: "here")
    monkeypatch.chdir(root)
    setup = {"threads": 1, "feature_threads": 1, "log": 20}

    def messages(job):
        job.folder.mkdir()
        requirements = NodeRequirements(folder=str(root)).to_message()
        request = {"requirements": requirements, "setup": setup, "job": job.to_message(), "ranks": 2}
        return map(json.loads, ray_worker.run_job(json.dumps(request)))

    first, *logs, last = messages(small_job(root, "ranks"))
    assert first == {"node": "here"}
    assert [entry["log"] for entry in logs if ": epoch 1/1" in entry["log"]] == [logs[-1]["log"]]
    assert last == {"ends": False, "last_epoch": 1}
    for message in messages(small_job(root, "dying", 1000)):
        if ": epoch " in message.get("log", ""):
            (group,) = ray_worker._groups.values()
            os.kill(group._processes[1].id, signal.SIGKILL)
        last = message
    assert last["died"] in ("signal SIGKILL", "exit status 1")
    assert not any(is_running(process.id) for process in group._processes)


def test_a_node_that_cannot_run_jobs_says_what_it_lacks_and_where(tmp_path, monkeypatch):
    corpus, runs = tmp_path / "cremad", tmp_path / "runs"
    needed = NodeRequirements(readable=(str(corpus),), shared={str(runs): "token"}, writable=str(runs))
    assert needed.find_problem().startswith(f"has no folder {runs}: it must be on a disk that all nodes have")
    runs.mkdir()
    assert needed.find_problem().startswith(f"has a folder {runs}, but it is not that of this machine")
    (runs / "token").touch()
    assert needed.find_problem().startswith(f"cannot read {corpus} (No such file or directory)")
    corpus.mkdir()
    assert needed.find_problem() == ""
    assert [path.name for path in runs.iterdir()] == ["token"]

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refuse)
        assert needed.find_problem().startswith(f"cannot write to {runs} (Permission denied)")
    older = replace(needed, versions={**versions(), "affekt": "0.0.1"})
    assert "this machine's 0.0.1: install the same version" in older.find_problem()


def test_nodes_need_no_shared_cache_if_features_are_in_an_object_store(root, monkeypatch):
    job = small_job(root, "anywhere")
    with _requirements([job]) as needed:
        assert list(needed.shared) == [str(root / "anywhere"), os.environ["AFFEKT_CACHE"]]
        assert needed.environment["AFFEKT_CACHE"] == os.environ["AFFEKT_CACHE"]
    monkeypatch.setenv("AFFEKT_FEATURES", "s3://bucket/features")
    with _requirements([job]) as needed:
        assert list(needed.shared) == [str(root / "anywhere")]
        assert "AFFEKT_CACHE" not in needed.environment
        assert needed.environment["AFFEKT_FEATURES"] == "s3://bucket/features"
        assert str(root / "cremad") in needed.readable


def test_a_cluster_without_room_for_a_job_is_described(root):
    node = {"NodeID": "1", "Alive": True, "NodeManagerAddress": "10.0.0.1", "NodeManagerHostname": "head"}
    dead = {**node, "Alive": False, "Resources": {"CPU": 8.0, "GPU": 4.0}}
    ray = SimpleNamespace(remote=lambda function: function, nodes=lambda: [{**node, "Resources": {"CPU": 2.0}}, dead])
    assert [str(node) for node in find_nodes(ray, 0.5, 0)] == ["10.0.0.1 (head) with 2 CPUs and 0 GPUs"]
    with pytest.raises(
        BadConfig, match=r"no node of the Ray cluster has 1 CPUs and 4 GPUs for a job \(it has 10\.0\.0\.1"
    ):
        find_nodes(ray, 1, 4)
    task = _Task(small_job(root, "homeless"), "", {"num_cpus": 4, "num_gpus": 0})
    with logged() as messages:
        _Queue(ray, [task], None)._warn_if_no_node_fits(task)
    assert messages[0].startswith(f"{root / 'homeless'} waits for a new node: no node of the Ray cluster has 4 CPUs")


def test_a_head_node_that_does_not_answer_ends_the_command(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ray = SimpleNamespace(get_runtime_context=lambda: SimpleNamespace(gcs_address=address))
        monkeypatch.setattr(ray_nodes, "HEAD_SECONDS", 0)
        head = Head(ray)
        head.check()
    for _ in range(MAX_HEAD_FAILURES - 1):
        head.check()
    with pytest.raises(AffektError, match=rf"the head node of the Ray cluster, {address}, does not answer"):
        head.check()


def test_a_run_fails_after_several_deaths_without_a_new_epoch(root, monkeypatch):
    task, epochs = _Task(small_job(root, "never"), "", {}), [0, 1, 1, 1]
    monkeypatch.setattr(_Task, "last_epoch", property(lambda _: epochs.pop(0)))
    errors = [task.note_death("the node died") for _ in range(MAX_DEATHS + 1)]
    assert errors[:-1] == [None] * MAX_DEATHS
    assert "3 workers in a row died while training it" in str(errors[-1])


def test_resources_that_do_not_fit_are_refused(root, monkeypatch):
    with pytest.raises(BadConfig, match=r"--gpus-per-job 1\.5: expected a fraction of one GPU, or a whole number"):
        RayLauncher("auto", gpus_per_job=1.5)
    job = small_job(root, "resources")
    with pytest.raises(BadConfig, match=r"--gpus-per-job 1, but small trains on another device: set training\.device"):
        RayLauncher("auto", gpus_per_job=1)._gpus_of(job)
    on_gpu = replace(job, recipe=replace(job.recipe, training=replace(job.recipe.training, device="cuda")))
    assert (RayLauncher("auto")._gpus_of(job), RayLauncher("auto")._gpus_of(on_gpu)) == (0.0, 1.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(BadConfig, match="use either torchrun, or --ray"):
        RayLauncher("auto")


def test_options_of_a_cluster_need_one_and_run_folders_are_not_urls():
    for options, message in (
        (["--gpus-per-job", "1"], "--cpus-per-job and --gpus-per-job need --ray"),
        (["--run", "s3://bucket/runs"], "expected a local folder or one on a shared disk, not a URL"),
    ):
        result = CliRunner().invoke(app, ["train", "default", *options])
        assert isinstance(result.exception, BadConfig)
        assert message in str(result.exception)
