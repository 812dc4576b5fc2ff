"""Training in several worker processes: the same results as in one, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from affekt.errors import AffektError, BadConfig
from affekt.runs.folder import Run
from affekt.training.recipe import load_recipe
from affekt.workflows import jobs
from affekt.workflows.jobs import WorkerLauncher
from affekt.workflows.train import train
from tests.conftest import ROOT
from tests.logs import logged
from tests.synthetic import SMALL_RECIPE, environment_set, make_cremad
from tests.workflows.test_jobs_of_recognition import children, is_running

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a corpus, a recipe of three seeds, and their runs in "one", trained in this process."""
    root = tmp_path_factory.mktemp("jobs")
    make_cremad(root)
    settings = ("seed = 1", "seed = 1\nrepeats = 3"), ("epochs = 1", "epochs = 2")
    text = SMALL_RECIPE
    for before, after in settings:
        text = text.replace(before, after)
    (root / "small.toml").write_text(text)
    with environment_set(root):
        train(load_small(root), root / "one")
        yield root


def load_small(root, *settings):
    return load_recipe(str(root / "small.toml"), list(settings))


def contents(folder):
    """Return the content of all files of the runs in a folder, except logs, which have times, and locks of killed workers."""
    files = [path for path in folder.rglob("[!.]*") if path.is_file() and path.name != "log.jsonl"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_workers_give_bit_identical_runs_and_share_the_features(root, workers, monkeypatch, tmp_path):
    monkeypatch.setenv("AFFEKT_CACHE", str(tmp_path))
    with logged() as messages, WorkerLauncher(2) as launcher:
        runs = train(load_small(root), root / "two", launcher=launcher)
    assert [run.folder.name for run in runs] == ["seed-1", "seed-2", "seed-3"]
    assert contents(root / "two") == contents(root / "one")
    assert len([path for path in contents(root / "two") if path.endswith(".npz")]) == 6
    assert len(list((tmp_path / "features").iterdir())) == 1
    assert len(list(tmp_path.rglob("*.npy"))) == 72
    assert [len([line for line in messages if f"{run.folder}: epoch" in line]) for run in runs] == [2] * 3
    assert len(workers) == 2
    assert not any(map(is_running, workers))


def test_runs_that_fail_are_named_the_others_finish_and_a_second_call_resumes(root, workers, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "ENTRY", "tests.workflows.dying_job_worker:work")
        with WorkerLauncher(2) as launcher, pytest.raises(AffektError) as raised:
            train(load_small(root), root / "failing", launcher=launcher)
    message = str(raised.value)
    assert message.startswith("2 of 3 training runs failed, the others are finished: ")
    assert f"{root / 'failing' / 'seed-2'}: two worker processes died" in message
    assert "exit status 3" in message
    assert f"{root / 'failing' / 'seed-3'}: the loss is infinite" in message
    assert 4 <= len(workers) <= 5
    assert [Run(root / "failing" / f"seed-{seed}").epochs for seed in (1, 2, 3)] == [[1, 2], [], []]
    train(load_small(root), root / "failing")
    assert contents(root / "failing") == contents(root / "one")


def test_too_many_workers_or_threads_are_refused(root):
    most = 2 * os.cpu_count()
    with pytest.raises(BadConfig, match=f"workers {most + 1}: expected 1 to {most}"):
        WorkerLauncher(most + 1)
    with WorkerLauncher(2) as launcher, pytest.raises(BadConfig, match=r"workers times training\.threads"):
        train(load_small(root, f"training.threads={most}"), root / "threads", launcher=launcher)


def test_torchrun_and_workers_exclude_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(BadConfig, match="either torchrun or --workers"):
        WorkerLauncher(2)


@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="needs Linux")
def test_an_interrupted_command_leaves_no_process_and_no_lock(root):
    folder = root / "interrupted"
    command = [sys.executable, "-m", "affekt", "train", "small.toml", "training.epochs=1000", "repeats=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background inherits "ignored"
    try:
        process = subprocess.Popen(
            [*command, "--workers", "2", "--run", folder], env=environment, cwd=root, stderr=subprocess.PIPE, text=True
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    with process:
        try:
            deadline = time.monotonic() + 300
            while not all(Run(folder / f"seed-{seed}").epochs for seed in (1, 2)):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            started = children(process.pid)
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate(timeout=60)
        finally:
            process.kill()
    assert len(started) == 2
    assert not any(map(is_running, started))
    assert messages.endswith("interrupted; run the same command again to resume\n")
    assert not list(folder.rglob(".training.lock"))
