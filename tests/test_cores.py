"""The number of cores that a process may use follows its affinity and the quotas of its control groups."""

import math
import os

import pytest

from affekt import cores


@pytest.fixture
def groups(tmp_path):
    """Return a function that writes a folder of control groups, and the file that names those of a process."""

    def write(lines, files):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (tmp_path / "self").write_text(lines, encoding="utf-8")
        return tmp_path / "cgroup", tmp_path / "self"

    return write


@pytest.mark.parametrize(
    ("lines", "files", "quota"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/of/the/host\n", {"cpu.max": "300000 100000\n"}, 3.0),
        (
            "5:cpu,cpuacct:/a\n4:memory:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            0.5,
        ),
        ("5:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("0::/a\n", {"a/cpu.max": "nonsense"}, math.inf),
    ],
)
def test_the_smallest_quota_of_all_control_groups_counts(groups, lines, files, quota):
    assert cores._quota(*groups(lines, files)) == quota


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cores._quota(tmp_path, tmp_path / "missing") == math.inf


def test_usable_cores_are_those_of_the_affinity_within_the_quota(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quota, expected in ((math.inf, 8), (2.5, 3), (0.5, 1), (16.0, 8)):
        monkeypatch.setattr(cores, "_quota", lambda quota=quota: quota)
        assert cores.usable_cores() == expected
