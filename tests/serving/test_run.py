"""`affekt serve` as a command: it starts, shares its port among processes, and ends when it is told to."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from affekt.cli.serve import _parse_profile
from affekt.errors import BadConfig
from tests.commands import affekt
from tests.serving.service import RECOGNIZE, form
from tests.sounds import encode_audio, noise

CLIP = encode_audio(noise(16_000))


@contextlib.contextmanager
def command(*options):
    """Yield the process of `affekt serve`, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "affekt", "serve", "--port", "0", *options], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, re.search(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def wait_until_ready(address):
    for _ in range(600):
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{address}/readyz").status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail("the service did not become ready")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_serves_until_it_is_terminated(tiny_bundle, workers):
    with command("--model", str(tiny_bundle), "--workers", str(workers)) as (process, address):
        wait_until_ready(address)
        answers = [httpx2.post(f"{address}{RECOGNIZE}", files=form(CLIP)).json() for _ in range(5)]
        assert all(answer == answers[0] for answer in answers)
        metrics = httpx2.get(f"{address}/metrics").text
        assert "affekt_rows_total" in metrics
        counted = re.search(r'affekt_requests_total\{route="/v1/recognize",status="200"\} (\S+)', metrics)
        assert float(counted[1]) == 5
        if workers > 1:
            check_replacement(process, address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(address)


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_command(tmp_path):
    started = subprocess.run(
        [sys.executable, "-m", "affekt", "serve", "--model", tmp_path, "--workers", "2", "--port", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert started.returncode == 2
    assert "is not a bundle" in started.stderr
    assert "cannot start" in started.stderr


def check_replacement(process, address):
    """Check that a worker that dies is replaced."""
    killed = workers_of(process)[0]
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while len(set(workers_of(process)) - {killed}) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(set(workers_of(process)) - {killed}) == 2
    wait_until_ready(address)


def workers_of(process):
    """Return the ids of the worker processes that run."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children]


def test_a_service_that_cannot_start_says_why(tiny_bundle, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = affekt("serve", "--model", tiny_bundle, "--port", other.getsockname()[1])
    assert (taken.returncode, "choose another --port" in taken.stderr) == (2, True)
    for options, message in {
        ("--model", tmp_path): "is not a bundle",
        ("--profile", "me"): "expected ID=FILE",
        ("--profile", f"me={tmp_path}/none"): "none",
        ("--api-key-file", tmp_path): "cannot be read",
        ("--timeout", -1): "timeout = -1.0: expected more than 0",
    }.items():
        refused = affekt("serve", "--model", tiny_bundle, "--port", 0, *options)
        assert refused.returncode == 2
        assert message in refused.stderr


def test_profiles_have_ids():
    assert _parse_profile("a=b=c.json") == ("a", "b=c.json")
    for text in ("a", "=b", "a="):
        with pytest.raises(BadConfig, match="expected ID=FILE"):
            _parse_profile(text)
