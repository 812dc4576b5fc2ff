"""The adaptation of a stream: neutral by default, undoes a shift of the features, and is part of the ONNX file."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from affekt.batch import Stream, frame_mask
from affekt.bundle.adaptation import Adaptation, average_statistics, time_statistics
from affekt.bundle.export import export_onnx
from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import Pipeline, rebuild, round_to_half, save_weights
from affekt.config import encode, to_toml
from affekt.features.base import Feature
from affekt.features.whisper import LogMelConfig, LogMelFrames
from affekt.inference.onnx import Graph
from affekt.models import models
from affekt.training.finetuning import feature_spec
from tests.conftest import shapes_unchecked, write_tiny_bundle

MELS = 6
EMOTIONS = ["happy", "neutral", "sad"]


class Shifted(Feature):
    """A feature whose values are scaled and shifted, as by another recording chain."""

    def __init__(self, feature, scale, shift):
        super().__init__()
        self.feature, self.dim, self.frame_rate = feature, feature.dim, feature.frame_rate
        self.scale, self.shift = scale, shift

    def forward(self, waveform, lengths=None):
        stream = self.feature(waveform, lengths)
        return Stream(stream.values * self.scale + self.shift, stream.mask, stream.frame_rate)


def log_mel():
    return LogMelFrames(LogMelConfig(MELS))


def build(feature=None):
    torch.manual_seed(0)
    feature = feature or log_mel()
    kind = models["vanilla"]
    model = kind.build(kind.Config(**kind.tiny), {"speech": feature_spec(feature)}, len(EMOTIONS))
    return Pipeline({"speech": feature}, [model]).eval()


def noises(count, seed=0, samples=8000):
    return torch.from_numpy(0.1 * np.random.default_rng(seed).normal(size=(count, samples)).astype(np.float32))


def adaptable(waveforms, feature=None):
    """Return a pipeline whose reference is that of the waveforms' log-mel."""
    pipeline = build(feature)
    pipeline.make_adaptable({"speech": average_statistics([log_mel()(waveforms)])})
    return pipeline


def random_adaptation(pipeline, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in pipeline.neutral_adaptation().items()
    }


@torch.inference_mode()
def test_a_neutral_adaptation_changes_nothing():
    waveforms = noises(3)
    expected, outputs = build()(waveforms), adaptable(waveforms).outputs(waveforms)
    torch.testing.assert_close(outputs["probabilities"], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs["speech_mean"].mean(dim=0), torch.zeros(MELS), rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["speech_log_std"].mean(dim=0), torch.zeros(MELS), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_adapting_to_the_statistics_of_shifted_features_undoes_the_shift():
    waveforms = noises(4)
    plain = adaptable(waveforms)
    scale, shift = torch.linspace(0.5, 2, MELS), torch.linspace(-3, 3, MELS)
    shifted = adaptable(waveforms, Shifted(log_mel(), scale, shift))
    outputs = shifted.outputs(waveforms)
    adaptation = {
        **shifted.neutral_adaptation(),
        "speech_offset": outputs["speech_mean"].mean(dim=0),
        "speech_log_scale": outputs["speech_log_std"].mean(dim=0),
    }
    torch.testing.assert_close(adaptation["speech_log_scale"], scale.log(), rtol=1e-4, atol=1e-4)
    expected = plain(waveforms)
    torch.testing.assert_close(
        shifted.outputs(waveforms, None, adaptation)["probabilities"], expected, atol=1e-4, rtol=0
    )
    assert (outputs["probabilities"] - expected).abs().max() > 1e-3


@torch.inference_mode()
def test_the_statistics_ignore_padding_and_are_finite_for_a_single_frame():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 9, MELS, generator=generator)
    padded = Stream(values, frame_mask(torch.tensor([9, 1]), 9))
    mean, log_std = time_statistics(padded)
    alone = time_statistics(Stream(values[:1]))
    torch.testing.assert_close((mean[:1], log_std[:1]), alone)
    torch.testing.assert_close(mean[1], values[1, 0])
    assert log_std.isfinite().all()


def test_padding_is_not_adapted():
    module = Adaptation(MELS)
    stream = Stream(torch.zeros(1, 4, MELS), frame_mask(torch.tensor([3]), 4))
    adapted = module(stream, torch.ones(MELS), torch.zeros(MELS))
    assert (adapted.values[0, :3] == -1).all()
    assert (adapted.values[0, 3] == 0).all()


@torch.inference_mode()
def test_a_class_bias_multiplies_the_probabilities_also_of_several_models():
    pipeline = build()
    pipeline = Pipeline(pipeline.features, [*pipeline.models, build().models[0]]).eval()
    nn.init.normal_(pipeline.models[1].output_layer.weight)
    waveforms, bias = noises(2), torch.tensor([0.5, -1.0, 0.2])
    weighted = pipeline(waveforms) * bias.exp()
    adapted = pipeline.outputs(waveforms, None, {"class_bias": bias})["probabilities"]
    torch.testing.assert_close(adapted, weighted / weighted.sum(dim=1, keepdim=True))


def write_bundle(folder, pipeline):
    write_tiny_bundle(folder, EMOTIONS)
    config = {
        "name": "tiny",
        "members": 1,
        "features": {"speech": {"name": "log-mel", "mels": MELS}},
        "model": {"name": "vanilla", **encode(pipeline.first.config)},
    }
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    save_weights(pipeline, folder / "model.safetensors")


@pytest.mark.parametrize("with_reference", [False, True])
def test_a_bundle_is_rebuilt_with_its_reference_and_without_one(tmp_path, with_reference):
    pipeline = adaptable(noises(3)) if with_reference else build()
    round_to_half(pipeline)
    write_bundle(tmp_path / "tiny", pipeline)
    names = set(load_file(tmp_path / "tiny" / "model.safetensors"))
    assert ("adaptations.speech.mean" in names) == with_reference
    with torch.inference_mode():
        rebuilt, expected = rebuild(Bundle.open(tmp_path / "tiny")).outputs(noises(2)), pipeline.outputs(noises(2))
    assert rebuilt.keys() == expected.keys()
    torch.testing.assert_close(rebuilt, expected)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A pipeline with a random reference and the bundle of its ONNX file."""
    pipeline = adaptable(noises(3, seed=1))
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_tiny_bundle(folder, EMOTIONS)
    with shapes_unchecked():
        export_onnx(pipeline, folder / "model.onnx", EMOTIONS)
    return pipeline, Bundle.open(folder)


@pytest.mark.slow
def test_the_exported_graph_needs_only_the_waveform(exported):
    pipeline, bundle = exported
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(bundle.onnx, options)
    waveforms = noises(3)
    assert [entry.name for entry in session.get_inputs()] == ["waveform"]
    (probabilities,) = session.run(["probabilities"], {"waveform": waveforms.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(probabilities, pipeline(waveforms).numpy(), atol=1e-6)


@pytest.mark.slow
def test_the_exported_graph_computes_the_same_as_torch_with_an_adaptation(exported):
    pipeline, bundle = exported
    graph, adaptation = Graph.load(bundle), random_adaptation(pipeline)
    assert graph.adaptable == {"speech": MELS}
    inputs = {"waveform": noises(3).numpy(), **{name: value.numpy() for name, value in adaptation.items()}}
    outputs = graph.run(inputs, ["probabilities", "speech_mean", "speech_log_std"])
    with torch.inference_mode():
        expected = pipeline.outputs(noises(3), None, adaptation)
    for name, values in outputs.items():
        np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-5, err_msg=name)
    assert np.abs(graph(inputs) - graph({"waveform": inputs["waveform"]})).max() > 1e-3


@pytest.mark.slow
def test_loading_an_adaptable_graph_prints_nothing(exported, capfd):
    Graph.load(exported[1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_optional_inputs_are_small_and_of_a_standard_that_has_them(exported):
    model = onnx.load(exported[1].onnx)
    assert model.ir_version >= 4
    optional = {entry.name for entry in model.graph.initializer} & {entry.name for entry in model.graph.input}
    assert optional == {"speech_offset", "speech_log_scale", "class_bias"}
