"""A service with a real port under hostile bytes: it answers with an error or closes, and goes on."""

import contextlib
import json
import random
import socket
import struct
import threading
import time

import httpx2
import pytest

from tests.serving.service import RECOGNIZE, exchange, form, hold, running
from tests.sounds import encode_audio, noise

CLIP = encode_audio(noise(16_000))
HEAD = "POST /v1/recognize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
UPGRADE = (
    "GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def service(tiny_bundle):
    with running(tiny_bundle, {"body_timeout": 0.4, "idle_timeout": 0.4}) as started:
        yield started


@pytest.fixture
def port(service):
    """The port of a service, which must still work, and have released everything, after the test."""
    port, app, _ = service
    yield port
    answer = httpx2.post(f"http://127.0.0.1:{port}{RECOGNIZE}", files=form(CLIP))
    assert answer.status_code == 200
    admission = app.state.service.admission
    deadline = time.monotonic() + 5
    while admission.streams and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (admission.requests, admission.streams, admission.buffered) == (0, 0, 0)


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/default/files/../../../../../etc/passwd",
        "/v1/models/default/files/..%2f..%2flabels.json",
        "/v1/models/default/files/model.safetensors",
        "/v1/models/default/files/model.onnx%00",
        "//etc/passwd",
        "/\\..\\..\\etc\\passwd",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_no_path_leads_to_other_files(port, path):
    answer = exchange(port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert status_of(answer) in (400, 404)
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: x\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        HEAD.encode() + b"Content-Length: -1\r\n\r\n",
        HEAD.encode() + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        HEAD.encode() + b"Content-Length: 99999999999999999999\r\n\r\n",
        HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        random.Random(0).randbytes(64),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",  # TLS
    ],
    ids=lambda request_bytes: repr(request_bytes[:30]),
)
def test_invalid_requests_are_refused(port, request_bytes):
    answer = exchange(port, request_bytes)
    assert not answer or 400 <= status_of(answer) < 500


def test_a_body_that_is_cut_off_is_forgotten(port):
    exchange(port, f"{HEAD}Content-Length: 100\r\n\r\n--x".encode(), leave=True)


def test_a_slow_body_is_refused(port):
    answer = exchange(port, f"{HEAD}Content-Length: 100\r\n\r\n--x".encode())
    assert status_of(answer) == 408
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "slow_body"


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: 127.0."])
def test_connections_without_requests_are_closed(port, start):
    assert exchange(port, start, timeout=5.0) == b""


def test_a_client_that_leaves_stops_its_request(tiny_bundle):
    with running(tiny_bundle, {"concurrency": 1}) as (port, app, _):
        go, works = hold(app)
        address = f"http://127.0.0.1:{port}{RECOGNIZE}"
        first = threading.Thread(target=httpx2.post, args=(address,), kwargs={"files": form(CLIP)})
        first.start()
        works.wait(10)
        with contextlib.suppress(httpx2.TimeoutException):
            httpx2.post(address, files=form(CLIP), timeout=0.3)
        admission, deadline = app.state.service.admission, time.monotonic() + 5
        while admission.requests > 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert admission.requests == 1
        go.set()
        first.join()
        assert app.state.service.engine._pool._work_queue.qsize() == 0


def frame(opcode, payload, *, length=None, is_masked=True, final=0x80):
    """Return a frame of a WebSocket, whose declared length may be wrong."""
    size = len(payload) if length is None else length
    return struct.pack("!BBQ", final | opcode, (0x80 if is_masked else 0) | 127, size) + bytes(4) + payload


@pytest.mark.parametrize(
    "frames",
    [
        b"",
        frame(2, b"abc", length=1000),
        frame(2, b"abc", length=1 << 40),
        frame(2, b"abc", is_masked=False),
        frame(7, b"abc"),
        frame(2, bytes(300_000)),
        frame(1, b"\xff\xfe"),
        frame(8, b"\x00"),
        frame(0, b"abc"),
        frame(2, bytes(100_000), final=0) * 9,
        random.Random(0).randbytes(200),
    ],
    ids=range(11),
)
def test_broken_streams_are_closed(port, frames):
    answer = exchange(port, UPGRADE.encode() + frames, leave=True)
    assert status_of(answer) == 101


def test_a_service_that_ends_loses_no_admitted_request(tiny_bundle):
    with running(tiny_bundle) as (port, app, server):
        go, works = hold(app)
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(httpx2.post(f"http://127.0.0.1:{port}{RECOGNIZE}", files=form(CLIP)))
        )
        thread.start()
        works.wait(10)
        server.should_exit = True
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except ConnectionRefusedError:
                break
            time.sleep(0.02)
        assert app.state.service.admission.stopping
        go.set()
        thread.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["results"][0]["status"] == "ok"
