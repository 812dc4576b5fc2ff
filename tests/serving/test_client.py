"""The clients get the rows and events of Python, and the errors of the service."""

import asyncio
import io

import pytest

from affekt.client import AsyncClient, Client
from affekt.errors import BadAudio, BadConfig, ServiceError
from affekt.timeline.stream import StreamSettings
from tests.serving.service import hold, running
from tests.sounds import encode_audio
from tests.timeline.speech import conversation, sample

CLIP = encode_audio(sample(0))
KEY = "0123456789abcdef0123"
CHUNKS = [bytes(chunk) for chunk in (sample(0) * 32767).astype("<i2").reshape(-1)[:16_000].reshape(10, -1)]


@pytest.fixture(scope="module")
def url(tiny_bundle, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY)
    with running(tiny_bundle, {"max_duration": 60.0, "max_streams": 1}, key_file=str(keys)) as (port, _, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def client(url):
    with Client(url, api_key=KEY) as client:
        yield client


class Later:
    """The asynchronous client, whose methods wait for the answer."""

    def __init__(self, url):
        self._url = url

    def __getattr__(self, name):
        return lambda *arguments, **settings: asyncio.run(self._call(name, arguments, settings))

    async def _call(self, name, arguments, settings):
        async with AsyncClient(self._url, api_key=KEY) as client:
            if name != "stream":
                return await getattr(client, name)(*arguments, **settings)
            return [event async for event in client.stream(_later(*arguments), **settings)]


async def _later(chunks):
    for chunk in chunks:
        yield chunk


@pytest.fixture(params=["sync", "async"])
def either(request, url):
    with Client(url, api_key=KEY) as client:
        yield client if request.param == "sync" else Later(url)


def test_rows_are_those_of_python(either, recognizer, tmp_path):
    (tmp_path / "a.wav").write_bytes(CLIP)
    sources = (tmp_path / "a.wav", CLIP, io.BytesIO(CLIP), ("b.wav", b"no audio"))
    rows = either.recognize(*sources, emotions=["angry", "sad"], threshold=0.5)
    assert [row.file for row in rows] == ["a.wav", "bytes", "stream", "b.wav"]
    assert [row.status for row in rows[2:]] == [rows[0].status, "error"]
    assert set(rows[0].probabilities) == {"angry", "sad"}
    (row,) = either.recognize(CLIP)
    assert row == {**recognizer(CLIP), "file": "bytes"}
    (row,) = either.recognize(b"no audio")
    assert row.error["code"] == "not_audio"
    call = encode_audio(conversation())
    segments = recognizer.timeline(call).segments
    assert either.recognize(call, timeline=True) == [{**segment, "file": "bytes"} for segment in segments]


def test_events_are_those_of_python(either, recognizer):
    events = list(either.stream(CHUNKS, update=0.5))
    assert events == list(recognizer.stream(CHUNKS, StreamSettings(update=0.5)))
    with pytest.raises(ServiceError, match="rate"):
        list(either.stream(CHUNKS, rate=1))


def test_models(either, recognizer):
    (model,) = either.models()
    assert (model.id, model.emotions) == (recognizer.model, tuple(recognizer.emotions))


def test_refusals_are_errors(client, url, tmp_path):
    with pytest.raises(ServiceError, match="joy") as refused:
        client.recognize(CLIP, emotions=["joy"])
    assert (refused.value.code, refused.value.status) == ("bad_option", 422)
    with Client(url) as stranger:
        with pytest.raises(ServiceError, match="API key"):
            stranger.models()
        with pytest.raises(ServiceError, match="does not answer"):
            list(stranger.stream(CHUNKS))
    with pytest.raises(BadAudio, match="cannot be read"):
        client.recognize(tmp_path / "none.wav")
    with pytest.raises(BadConfig, match="no URL"):
        Client("localhost:8000")
    with Client("http://127.0.0.1:1") as lost:
        for call in (lost.models, lambda: lost.recognize(CLIP)):
            with pytest.raises(ServiceError, match="does not answer") as unreachable:
                call()
            assert unreachable.value.code == "unreachable"


def test_a_busy_service_is_asked_again(tiny_bundle):
    with running(tiny_bundle, {"timeout": 0.1}) as (port, app, _):
        go, works = hold(app)
        with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(ServiceError, match="not recognized within"):
            client.recognize(CLIP)
        waits = []
        with pytest.MonkeyPatch.context() as patch, Client(f"http://127.0.0.1:{port}", retries=9) as patient:
            patch.setattr("affekt.client.time.sleep", lambda seconds: (waits.append(seconds), go.set()))
            assert patient.recognize(CLIP)[0].status == "ok"
        assert works.is_set()
        assert set(waits) == {5.0}
