"""Freed memory is kept by the process: page faults counted in subprocesses."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import mmap, resource
import torch
from affekt.training.memory import keep_freed_memory
kept = {keep} and keep_freed_memory()
size = 12 * 2**20  # 48 MiB, more than the C library keeps by default
for _ in range(20):  # older versions reuse aligned memory only after several allocations
    torch.ones(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(size)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, mmap.PAGESIZE)
"""


def run_script(keep, **environment):
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
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux with the GNU C library")
def test_freed_memory_is_not_requested_from_the_system_again():
    kept, mebibytes = run_script(True)
    if not kept:
        pytest.skip("another C library")
    assert mebibytes < 12
    assert run_script(False)[1] > mebibytes


@pytest.mark.slow
def test_allocator_settings_of_the_user_are_respected():
    assert run_script(True, MALLOC_TRIM_THRESHOLD_="1000000")[0] is False
