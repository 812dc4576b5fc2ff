"""The speech detector: its output in the graph, and the recordings that are refused because of it."""

import numpy as np
import onnx
import pytest
import torch

from affekt import Recognizer
from affekt.batch import Stream, frame_mask
from affekt.bundle.adaptation import time_statistics
from affekt.bundle.detector import SpeechDetector
from affekt.bundle.export import export_onnx
from affekt.bundle.folder import SPEECH_THRESHOLD, Bundle
from affekt.bundle.pipeline import rebuild, round_to_half
from affekt.errors import BadBundle
from affekt.inference.onnx import Graph
from tests.bundle.test_adaptation import EMOTIONS, MELS, build, noises, write_bundle
from tests.conftest import shapes_unchecked, write_tiny_bundle
from tests.sounds import noise, tone

THRESHOLD = 0.4


def hiss_detector(hidden=0):
    """Return a detector to which sound of high frequency is speech: noise, but no low tone."""
    torch.manual_seed(0)
    detector = SpeechDetector(MELS, hidden)
    if not hidden:
        with torch.no_grad():
            detector.layers[-1].weight.zero_()
            detector.layers[-1].weight[0, MELS - 1] = 10.0
            detector.layers[-1].bias.zero_()
    return detector


def with_detector(hidden=0):
    pipeline = build()
    pipeline.set_detector(hiss_detector(hidden))
    return pipeline


@torch.inference_mode()
@pytest.mark.parametrize("hidden", [0, 5])
def test_the_probability_is_one_of_the_outputs_and_ignores_padding(hidden):
    pipeline = with_detector(hidden)
    outputs = pipeline.outputs(noises(3))
    assert outputs["speech_probability"].shape == (3,)
    torch.testing.assert_close(outputs["probabilities"], build()(noises(3)))
    values = torch.randn(2, 9, MELS)
    padded = pipeline.detector(Stream(values, frame_mask(torch.tensor([9, 4]), 9)))
    torch.testing.assert_close(padded[1:], pipeline.detector(Stream(values[1:, :4])))


@torch.inference_mode()
def test_statistics_are_standardized_and_a_constant_one_stays_finite():
    statistics = torch.cat(time_statistics(Stream(torch.randn(50, 8, MELS))), dim=1)
    statistics[:, 0] = 3.0
    detector = SpeechDetector(MELS)
    detector.fit_standardization(statistics)
    standardized = (statistics - detector.mean) / detector.scale
    torch.testing.assert_close(standardized[:, 1:].std(dim=0), torch.ones(2 * MELS - 1))
    assert detector.logits(statistics).isfinite().all()


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_bundle_is_rebuilt_with_its_detector(tmp_path, hidden):
    pipeline = with_detector(hidden)
    round_to_half(pipeline)
    write_bundle(tmp_path / "tiny", pipeline)
    with (tmp_path / "tiny" / "config.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n[detector]\nhidden = {hidden}\nthreshold = {THRESHOLD}\n")
    with torch.inference_mode():
        rebuilt = rebuild(Bundle.open(tmp_path / "tiny")).outputs(noises(2))
        torch.testing.assert_close(rebuilt, pipeline.outputs(noises(2)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_tiny_bundle(folder, EMOTIONS)
    with shapes_unchecked():
        export_onnx(with_detector(), folder / "model.onnx", EMOTIONS, speech_threshold=THRESHOLD)
    return folder


@pytest.mark.slow
def test_the_graph_has_the_probability_and_its_threshold(exported):
    graph = Graph.load(Bundle.open(exported))
    assert graph.speech_threshold == THRESHOLD
    (probability,) = graph.run({"waveform": noises(3).numpy()}, ["speech_probability"]).values()
    with torch.inference_mode():
        expected = with_detector().outputs(noises(3))["speech_probability"].numpy()
    np.testing.assert_allclose(probability, expected, atol=1e-5)


@pytest.mark.slow
def test_a_recording_without_speech_has_no_emotion(exported):
    recognizer = Recognizer.load(exported)
    speech = recognizer(noise(32_000), 16_000)
    refused = recognizer(tone(2.0), 16_000)
    assert (speech.status, refused.status) == ("ok", "no_speech")
    assert (refused.emotion, refused.probabilities, refused.error) == (None, None, None)
    assert str(refused) == "<array>  0.00-2.00 s  no speech"
    assert recognizer(np.zeros(32_000), 16_000).status == "silence"
    assert recognizer.infer(tone(2.0)) == [0.0] * len(EMOTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "much", "1.5", "nan"])
def test_a_graph_with_the_probability_needs_a_threshold(exported, tmp_path, text):
    model = onnx.load(exported / "model.onnx")
    onnx.helper.set_model_props(model, {SPEECH_THRESHOLD: text})
    write_tiny_bundle(tmp_path / "tiny", EMOTIONS)
    onnx.save(model, tmp_path / "tiny" / "model.onnx")
    with pytest.raises(BadBundle, match=rf"speech_threshold = '{text}'; expected a number from 0 to 1"):
        Graph.load(Bundle.open(tmp_path / "tiny"))
