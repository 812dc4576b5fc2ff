"""Memory that is freed is kept: seen from outside, in processes of their own."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import mmap, resource
import torch
from affekt.training.memory import keep_freed_memory
kept = {keep} and keep_freed_memory()
size = 12 * 2**20  # numbers of 48 MiB, above what the C library keeps by itself
for _ in range(20):  # of aligned memory older versions reuse nothing before they have several pieces
    torch.ones(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(size)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, mmap.PAGESIZE)
"""


def run(keep, **environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    kept, faults, page = done.stdout.split()
    return kept == "True", int(faults) * int(page) / 2**20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="GNU's C library is asked, on Linux")
def test_what_is_freed_is_not_asked_of_the_system_again():
    kept, megabytes = run(True)
    if not kept:
        pytest.skip("another C library")
    assert megabytes < 12
    assert run(False)[1] > megabytes


@pytest.mark.slow
def test_settings_of_the_user_stay():
    assert run(True, MALLOC_TRIM_THRESHOLD_="1000000")[0] is False
