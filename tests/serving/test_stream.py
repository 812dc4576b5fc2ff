"""`WS /v1/stream`: the events of `affekt listen`, and the errors of each limit."""

import threading

import numpy as np
import pytest
from starlette.websockets import WebSocketDisconnect

from affekt.serving.refusal import NOTICE
from affekt.timeline.stream import StreamSettings
from tests.serving.service import make_client
from tests.timeline.speech import sample

PATH = "/v1/stream"
SAMPLES = (sample(0) * 32767).astype("<i2")


@pytest.fixture(scope="module")
def client(tiny_bundle):
    with make_client(tiny_bundle, {"max_streams": 2, "idle_timeout": 0.6}) as client:
        yield client


def receive_all(stream):
    """Return the messages of a stream until it is closed, and the code with which it is."""
    messages = []
    try:
        while True:
            messages.append(stream.receive_json())
    except WebSocketDisconnect as closed:
        return messages, closed.code


def send(client, chunks, options="", end="end"):
    """Return the messages of a stream of these chunks, and the code with which it is closed."""
    with client.websocket_connect(f"{PATH}?{options}", headers={"host": "localhost"}) as stream:
        for chunk in chunks:
            stream.send_bytes(chunk)
        if end:
            stream.send_text(end)
        return receive_all(stream)


def chunks_of(data, size=4096):
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_events_are_those_of_python(client, recognizer):
    (ready, *events, end), code = send(client, chunks_of(SAMPLES.tobytes()))
    expected = list(recognizer.stream([SAMPLES], StreamSettings()))
    assert ready == {
        "kind": "ready",
        "model": recognizer.model,
        "emotions": list(recognizer.emotions),
        "notice": NOTICE,
    }
    assert [(event["kind"], event["start"], event["end"], event["row"]) for event in events] == [
        (event.kind, event.start, event.end, event.row) for event in expected
    ]
    assert (end["kind"], end["seconds"], code) == ("end", pytest.approx(len(SAMPLES) / 16_000, abs=1e-4), 1000)


def test_options_of_a_stream(client, recognizer):
    stereo = np.stack([SAMPLES, SAMPLES], axis=1)[::2].tobytes()
    messages, _ = send(client, chunks_of(stereo, 4097), "rate=8000&channels=2&update=0&emotions=angry,sad&threshold=1")
    settings = StreamSettings(8000, channels=2, update=0)
    (segment,) = [message for message in messages if message["kind"] == "segment"]
    (plain,) = recognizer.stream([stereo], settings)
    assert (segment["start"], segment["end"]) == (plain.start, plain.end)
    assert segment["row"]["status"] == "unknown"
    assert set(segment["row"]["probabilities"]) == {"angry", "sad"}


def test_packets_of_opus(client, recognizer):
    av = pytest.importorskip("av")
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 16_000, "mono", "s16"
    encoder.open()
    packets = []
    for start in range(0, len(SAMPLES) - 320, 320):
        frame = av.AudioFrame.from_ndarray(SAMPLES[None, start : start + 320], format="s16", layout="mono")
        frame.sample_rate = 16_000
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    messages, code = send(client, packets, "format=opus")
    (*_, segment, end) = messages
    (*_, plain) = recognizer.stream([SAMPLES], StreamSettings())
    assert (segment["kind"], end["kind"], code) == ("segment", "end", 1000)
    assert segment["end"] == pytest.approx(plain.end, abs=0.1)
    messages, code = send(client, [b"\xff" * 50], "format=opus")
    assert (messages[-1]["error"]["code"], code) == ("undecodable", 1008)


@pytest.mark.parametrize(
    ("chunks", "options", "end", "error", "closed"),
    [
        ([], "rate=1", "end", "bad_option", 1008),
        ([], "emotions=joy", "end", "bad_option", 1008),
        ([], "profile=/etc/passwd", "end", "bad_option", 1008),
        ([], "url=http://127.0.0.1/", "end", "bad_option", 1008),
        ([b"\0\0"], "", "stop", "bad_body", 1008),
        ([b"\0\0"], "", "", "slow_body", 1008),
    ],
)
def test_errors_of_a_stream(client, chunks, options, end, error, closed):
    messages, code = send(client, chunks, options, end)
    assert (messages[-1]["kind"], messages[-1]["error"]["code"], code) == ("error", error, closed)
    assert client.app.state.service.admission.streams == 0


def test_a_client_that_leaves_ends_its_stream(client):
    with client.websocket_connect(PATH, headers={"host": "localhost"}) as stream:
        stream.receive_json()
        stream.send_bytes(SAMPLES.tobytes()[:1001])
        stream.close()
    assert send(client, [])[1] == 1000
    assert client.app.state.service.admission.streams == 0


def test_the_number_and_the_duration_of_streams_are_limited(client, tiny_bundle):
    with client.websocket_connect(PATH, headers={"host": "localhost"}) as first:
        first.receive_json()
        with client.websocket_connect(PATH, headers={"host": "localhost"}) as second:
            second.receive_json()
            messages, code = send(client, [])
            assert (messages[-1]["error"]["code"], code) == ("busy", 1013)
    with make_client(tiny_bundle, {"max_stream_duration": 1.0}) as short:
        messages, code = send(short, [bytes(48_000)])
        assert (messages[-1]["error"]["code"], code) == ("too_long", 1009)


def test_a_service_that_stops_ends_its_streams_with_their_results(tiny_bundle):
    with make_client(tiny_bundle) as client:
        admission = client.app.state.service.admission
        with client.websocket_connect(PATH, headers={"host": "localhost"}) as stream:
            stream.send_bytes(SAMPLES.tobytes())
            threading.Timer(0.2, lambda: setattr(admission, "stopping", True)).start()
            messages, code = receive_all(stream)
        assert [message["kind"] for message in messages[-2:]] == ["segment", "end"]
        assert (messages[-1]["stopping"], code) == (True, 1012)
        assert client.get("/readyz").status_code == 503
        assert send(client, [])[0][-1]["error"]["code"] == "stopping"
