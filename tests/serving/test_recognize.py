"""`POST /v1/recognize`: the rows of Python and the command line, and the errors of each limit."""

import json
import threading
import time

import httpx2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affekt.inference.profile import Profile
from affekt.serving.guard import HEADERS
from affekt.serving.refusal import NOTICE, STATUS, Refusal
from affekt.serving.uploads import clean_name, split_uploads
from tests.commands import affekt
from tests.conftest import write_tiny_bundle
from tests.serving.service import RECOGNIZE, form, hold, make_client
from tests.sounds import encode_audio, noise
from tests.timeline.speech import conversation

CLIP = encode_audio(noise(16_000))
OTHER = encode_audio(noise(24_000, seed=1), format="FLAC")


@pytest.fixture(scope="module")
def client(tiny_bundle):
    with make_client(tiny_bundle, {"max_files": 3, "max_duration": 60.0, "max_body": 4_000_000}) as client:
        yield client


def refusal(response):
    """Return the code of an error, whose status must be the one that belongs to it."""
    error = response.json()["error"]
    assert response.status_code == STATUS.get(error["code"], 422)
    assert error["message"]
    return error["code"]


def test_rows_are_those_of_the_command_line(client, tiny_bundle, tmp_path):
    (tmp_path / "a.wav").write_bytes(CLIP)
    (tmp_path / "b.flac").write_bytes(OTHER)
    printed = affekt("recognize", tmp_path / "a.wav", tmp_path / "b.flac", "--json", "--model", tiny_bundle)
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    response = client.post(RECOGNIZE, files=[*form(CLIP), *form(OTHER, name="b.flac")])
    assert response.status_code == 200
    assert response.json() == {
        "results": [{**row, "file": name} for row, name in zip(rows, ("a.wav", "b.flac"), strict=True)],
        "notice": NOTICE,
    }
    assert response.headers["cache-control"] == "no-store"
    assert HEADERS.items() <= {name.title(): value for name, value in response.headers.items()}.items()


def test_options_are_those_of_the_command_line(client, recognizer):
    response = client.post(RECOGNIZE, params={"emotions": "sad, angry", "threshold": 0.9}, files=form(CLIP))
    (row,) = response.json()["results"]
    assert set(row["probabilities"]) == {"angry", "sad"}
    assert row["decision"] == {"threshold": 0.9, "emotions": ["sad", "angry"]}
    (row,) = client.post(RECOGNIZE, params={"top": 2}, files=form(CLIP)).json()["results"]
    assert list(row["probabilities"].items()) == recognizer(CLIP).top(2)
    silence = encode_audio(np.zeros(16_000, np.float32))
    assert client.post(RECOGNIZE, files=form(silence)).json()["results"][0]["status"] == "silence"


def test_a_timeline_has_a_row_for_each_segment(client, recognizer):
    call = conversation()
    data = encode_audio(np.stack([call, 0.5 * call], axis=1))
    rows = client.post(RECOGNIZE, params={"timeline": True, "channels": "separate"}, files=form(data)).json()["results"]
    segments = recognizer.timeline(data, channels="separate").segments
    assert rows == [{**segment, "file": "a.wav"} for segment in segments]


def test_a_registered_profile_is_applied(tmp_path):
    write_tiny_bundle(tmp_path / "adaptable", ("angry", "happy", "sad"), adaptable=True)
    with make_client(tmp_path / "adaptable") as client:
        model = client.get("/v1/models").json()["models"][0]["id"]
    expected, bias = dict.fromkeys(("angry", "happy", "sad"), 1 / 3), {"angry": 2.0, "happy": 0.0, "sad": 0.0}
    profile = Profile("me", model, 9, 9, 18.0, expected, diversity=1.0, strength=1.0, class_bias=bias)
    profile.write(tmp_path / "me.json")
    with make_client(tmp_path / "adaptable", profiles={"me": str(tmp_path / "me.json")}) as client:
        plain, adapted = (
            client.post(RECOGNIZE, params=options, files=form(CLIP)).json()["results"][0]
            for options in ({}, {"profile": "me"})
        )
        assert adapted["profile"]["id"] == profile.id
        assert adapted["probabilities"]["angry"] > plain["probabilities"]["angry"]
        unknown = client.post(RECOGNIZE, params={"profile": "../me"}, files=form(CLIP))
        assert refusal(unknown) == "bad_option"
        assert client.get("/v1/models").json()["models"][0]["profiles"] == ["me"]


def test_files_that_cannot_be_read_have_rows_too(client):
    response = client.post(RECOGNIZE, files=form(CLIP, b"not audio", b""))
    assert response.status_code == 200
    assert [row["error"] and row["error"]["code"] for row in response.json()["results"]] == [None, "not_audio", "empty"]
    response = client.post(RECOGNIZE, files=form(b"not audio", name="b.wav"))
    assert refusal(response) == "not_audio"
    assert response.json()["results"][0]["file"] == "b.wav"
    unknown = np.array([0.1, np.nan] * 8000, np.float32)
    assert refusal(client.post(RECOGNIZE, files=form(encode_audio(unknown, subtype="FLOAT")))) == "not_finite"


@pytest.mark.parametrize(
    "options",
    [{"threshold": 2}, {"threshold": "nan"}, {"emotions": "joy"}, {"top": 0}, {"url": "http://x"}, {"vad": "no"}],
    ids=str,
)
def test_invalid_options_are_refused(client, options):
    assert refusal(client.post(RECOGNIZE, params=options, files=form(CLIP))) == "bad_option"


def post(client, body, content_type="multipart/form-data; boundary=x"):
    return client.post(RECOGNIZE, content=body, headers={"Content-Type": content_type})


PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_body"),
        (b"--x--\r\n", "no_file"),
        (PART + CLIP, "bad_body"),
        (PART + CLIP + b"\r\n--x", "bad_body"),
        (PART + CLIP + b"\r\n--xy\r\n" + PART, "bad_body"),
        (b"--x\r\n\r\nabc\r\n--x--", "bad_body"),
        (b'--x\r\nContent-Disposition: form-data; name="url"\r\n\r\nhttp://127.0.0.1/\r\n--x--', "bad_body"),
        (b"--x\r\n" + b"a: b\r\n" * 5000 + b"\r\n--x--", "bad_body"),
        ((PART + b"\r\n") * 4 + b"--x--", "too_many_files"),
        (b"\r" * 3_000_000, "bad_body"),
        (b"\r\n--" * 900_000, "bad_body"),
    ],
)
def test_malformed_forms_are_refused(client, body, code):
    assert refusal(post(client, body)) == code


def test_other_bodies_are_refused(client):
    assert refusal(post(client, CLIP, "audio/wav")) == "unsupported_media_type"
    assert refusal(post(client, CLIP, "multipart/form-data")) == "unsupported_media_type"
    assert refusal(client.post(RECOGNIZE, json={"file": "/etc/passwd"})) == "unsupported_media_type"
    assert refusal(client.post(RECOGNIZE, files=[("path", ("a.wav", CLIP))])) == "bad_body"


@pytest.mark.parametrize(
    ("sent", "label"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\clips\\a.wav", "a.wav"),
        ("http://127.0.0.1/a.wav", "a.wav"),
        ("-", "-"),
        ("/dev/stdin", "stdin"),
        ("a\u202e\x1b[31m.wav", "a[31m.wav"),
        ("ä ö.wav", "ä ö.wav"),
        ("x" * 999, "x" * 255),
    ],
)
def test_a_file_name_is_a_label_and_never_a_path(client, sent, label):
    (row,) = client.post(RECOGNIZE, files=form(CLIP, name=sent)).json()["results"]
    assert (row["file"], row["status"]) == (label, "ok")
    assert refusal(client.post(RECOGNIZE, files=form(b"", name=sent))) == "empty"


CONTENT = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"--x", b"\r\n--", b"\r\n-"])


NAME = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8)


@given(st.lists(st.tuples(CONTENT, NAME), min_size=1, max_size=4), st.booleans())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_forms_are_divided_as_a_client_joined_them(files, has_preamble):
    request = httpx2.Request("POST", "http://x", files=[("file", (name, content)) for content, name in files])
    boundary = request.headers["content-type"].rpartition("=")[2].encode()
    body = (b"preamble\r\n" if has_preamble else b"") + request.read()
    uploads = split_uploads(body, boundary, 9)
    assert [upload.read() for upload in uploads] == [content for content, _ in files]
    assert [upload.name for upload in uploads] == [clean_name(name) or "<upload>" for _, name in files]
    with pytest.raises(Refusal, match="cut off"):
        split_uploads(body.removesuffix(b"--\r\n"), boundary, 9)


# Limits


def test_a_body_that_is_too_large_is_refused(client):
    assert refusal(post(client, b"x" * 4_000_001)) == "body_too_large"
    chunks = (b"x" * 1_000_000 for _ in range(9))  # without Content-Length
    assert refusal(post(client, chunks)) == "body_too_large"


def test_a_bomb_is_refused_while_it_is_decoded(client):
    bomb = encode_audio(np.zeros(16_000 * 600, np.int16), format="FLAC")
    assert len(bomb) < 100_000
    for options in ({}, {"timeline": True}):
        assert refusal(client.post(RECOGNIZE, params=options, files=form(bomb))) == "too_long"


def test_requests_beyond_the_queue_are_refused_at_once(tiny_bundle):
    with make_client(tiny_bundle, {"concurrency": 1, "queue": 1}) as client:
        go, works = hold(client.app)
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.post(RECOGNIZE, files=form(CLIP)))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        works.wait(10)
        admission = client.app.state.service.admission
        while admission.requests < 2:
            time.sleep(0.005)
        refused = client.post(RECOGNIZE, files=form(CLIP))
        assert refusal(refused) == "busy"
        assert int(refused.headers["retry-after"]) >= 1
        go.set()
        for thread in threads:
            thread.join()
        assert [answer.status_code for answer in answers] == [200, 200]
        assert (admission.requests, admission.buffered) == (0, 0)


def test_memory_for_bodies_is_limited(tiny_bundle):
    with make_client(tiny_bundle, {"max_buffered": 1000}) as client:
        assert refusal(client.post(RECOGNIZE, files=form(CLIP))) == "busy"
        assert client.app.state.service.admission.buffered == 0


def test_a_request_that_takes_too_long_is_refused(tiny_bundle):
    with make_client(tiny_bundle, {"timeout": 0.2}) as client:
        go, _ = hold(client.app)
        response = client.post(RECOGNIZE, files=form(CLIP))
        assert refusal(response) == "timeout"
        assert response.headers["retry-after"]
        go.set()
    with make_client(tiny_bundle, {"timeout": 1e-9}) as client:
        assert refusal(client.post(RECOGNIZE, files=form(CLIP))) == "timeout"


def test_an_unexpected_error_is_answered_without_details(tiny_bundle):
    with make_client(tiny_bundle) as client:
        client.app.state.service.engine._recognize_all = None
        response = client.post(RECOGNIZE, files=form(CLIP))
        assert refusal(response) == "internal"
        assert "NoneType" not in response.text
