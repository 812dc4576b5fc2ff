"""Under torchrun, each process gets its own GPU; the GPUs are simulated."""

import os
import stat
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

from affekt.errors import BadConfig
from affekt.runs.folder import Run
from affekt.training.distributed import local_device, processes
from tests.conftest import ROOT
from tests.synthetic import SMALL_RECIPE, environment_set, make_cremad


@pytest.fixture
def torchrun(monkeypatch):
    """Return a function that sets the variables of torchrun for a process, on a machine with two GPUs."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def start(rank, world=4, local=None):
        for name, value in {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank if local is None else local}.items():
            monkeypatch.setenv(name, str(value))

    return start


@pytest.fixture
def groups(monkeypatch):
    """Return the calls by which process groups are joined, which have no effect."""
    calls = []
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: calls.append(("join", backend)))
    monkeypatch.setattr(dist, "get_rank", lambda: 3)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "barrier", lambda: calls.append("wait"))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("leave"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("use", str(device))))
    return calls


def test_each_process_of_a_machine_uses_another_gpu(torchrun):
    devices = []
    for rank, local in enumerate((0, 1, 0, 1)):
        torchrun(rank, local=local)
        devices.append(local_device("cuda"))
        assert local_device("cpu") == "cpu"
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


def test_without_torchrun_the_device_is_that_of_the_recipe(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [local_device(name) for name in ("cpu", "cuda", "cuda:1")] == ["cpu", "cuda", "cuda:1"]
    with processes("cuda") as group:
        assert group == (0, 1)


@pytest.mark.slow
def test_gpus_are_joined_by_nccl_after_their_choice(torchrun, groups):
    torchrun(3, local=1)
    with processes("cuda") as group:
        assert group == (3, 4)
        assert groups == [("use", "cuda:1"), ("join", "cpu:gloo,cuda:nccl")]
    assert groups[2:] == ["wait", "leave"]


@pytest.mark.slow
def test_cpus_are_joined_by_gloo(torchrun, groups):
    torchrun(3)
    with processes("cpu"):
        assert groups == [("join", "gloo")]


def test_more_processes_than_gpus_are_refused(torchrun, groups):
    torchrun(2)
    with pytest.raises(BadConfig, match="GPU 2, but this machine has 2"), processes("cuda"):
        pass
    assert not groups


def test_one_gpu_for_all_processes_is_refused(torchrun):
    torchrun(1)
    with pytest.raises(BadConfig, match=r"cuda:0.*device = 'cuda'"):
        local_device("cuda:0")


@pytest.mark.slow
def test_torchrun_trains_by_the_command_and_every_file_has_the_users_mode(tmp_path):
    make_cremad(tmp_path)
    (tmp_path / "recipe.toml").write_text(SMALL_RECIPE)
    with environment_set(tmp_path):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    result = subprocess.run(
        [*torchrun, "affekt", "--", "train", "recipe.toml", "--run", "run"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("trained: run;")
    assert result.stdout.count("trained: ") == 1
    assert Run(tmp_path / "run").epochs == [1]
    (tmp_path / "plain").touch()
    mode = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {path.name: mode for path in files}
