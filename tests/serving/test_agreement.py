"""The same clips through every door: Python, command line, HTTP, WebSocket, torch and ONNX give the same probabilities."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from affekt.audio.read import SAMPLE_RATE, load
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.bundle.pipeline import rebuild
from affekt.inference.recognizer import Recognizer
from tests.commands import affekt
from tests.conftest import SAMPLES, shapes_unchecked
from tests.serving.service import RECOGNIZE, make_client
from tests.serving.test_stream import send

TOLERANCE = 1e-4
"""Largest accepted difference between two probabilities."""


@pytest.fixture(scope="module")
def client():
    with make_client(DEFAULT) as client:
        yield client


@pytest.fixture(scope="module")
def networks():
    """Return functions from a waveform to probabilities: the network in torch, and the graph without affekt."""
    bundle = Bundle.open()
    session = onnxruntime.InferenceSession(bundle.onnx, providers=["CPUExecutionProvider"])
    with shapes_unchecked(), torch.inference_mode():
        network = rebuild(bundle)
        yield {
            "torch": lambda waveform: network(torch.from_numpy(waveform)[None])[0].numpy(),
            "onnx": lambda waveform: session.run(["probabilities"], {"waveform": waveform[None]})[0][0],
        }


def assert_agreement(rows, expected):
    assert len(rows) == len(expected)
    probabilities = [list(row["probabilities"].values()) for row in rows]
    np.testing.assert_allclose(probabilities, expected, atol=TOLERANCE)


@pytest.mark.slow
def test_recordings_have_the_same_probabilities_everywhere(client, networks):
    rows = list(Recognizer.load().rows(SAMPLES))
    for network in networks.values():
        assert_agreement(rows, [network(load(path)) for path in SAMPLES])
    printed = affekt("recognize", *SAMPLES, "--json").stdout.splitlines()
    assert [json.loads(line) for line in printed] == rows
    answer = client.post(RECOGNIZE, files=[("file", (path.name, path.read_bytes())) for path in SAMPLES]).json()
    assert answer["results"] == [{**row, "file": path.name} for row, path in zip(rows, SAMPLES, strict=True)]


@pytest.mark.slow
def test_streams_have_the_same_probabilities_everywhere(client, networks):
    samples = np.concatenate([(load(path) * 32767).astype("<i2") for path in SAMPLES[:2]])
    waveform = samples.astype(np.float32) / np.float32(32768)
    messages, _ = send(client, [samples.tobytes()[start : start + 6400] for start in range(0, 2 * len(samples), 6400)])
    rows = [message["row"] for message in messages if message["kind"] == "segment"]
    assert rows
    parts = [waveform[round(row["start"] * SAMPLE_RATE) : round(row["end"] * SAMPLE_RATE)] for row in rows]
    for network in networks.values():
        assert_agreement(rows, [network(part) for part in parts])
    timeline = Recognizer.load().timeline((waveform, SAMPLE_RATE))
    assert [{**segment, "file": ""} for segment in timeline.segments] == [{**row, "file": ""} for row in rows]
