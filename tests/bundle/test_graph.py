"""The graph of the shipped bundle, filled with other weights instead of being traced again."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from affekt.bundle import export
from affekt.bundle.export import export_onnx
from affekt.bundle.folder import DEFAULT, Bundle
from affekt.bundle.graph import replace_bundle_weights
from affekt.bundle.pipeline import Pipeline, rebuild
from tests.conftest import shapes_unchecked

pytestmark = pytest.mark.slow


@pytest.fixture
def bundle(monkeypatch):
    monkeypatch.setattr(export, "_trace", lambda _: pytest.fail("the pipeline was traced"))
    return Bundle.open(DEFAULT)


def with_classes(pipeline, emotions):
    """Return a pipeline with a new model of the same architecture for other emotions."""
    model = type(pipeline.first)(pipeline.first.config, emotions)
    kept = {name: value for name, value in pipeline.first.state_dict().items() if "classifier" not in name}
    model.load_state_dict(kept, strict=False)
    other = Pipeline(pipeline.features, [model.eval()])
    other.adaptations, other.detector = pipeline.adaptations, pipeline.detector
    return other.eval()


def test_the_same_weights_give_the_same_file(bundle, tmp_path):
    threshold = bundle.config["detector"]["threshold"]
    path = tmp_path / "model.onnx"
    export_onnx(rebuild(bundle), path, bundle.emotions, speech_threshold=threshold, origin=bundle)
    assert path.read_bytes() == bundle.file("model.onnx").read_bytes()


def test_other_weights_and_emotions_give_the_outputs_of_torch(bundle, tmp_path):
    pipeline = with_classes(rebuild(bundle), 4)
    path, waveform = tmp_path / "model.onnx", torch.randn(1, 20_000)
    with shapes_unchecked():
        export_onnx(pipeline, path, list("abcd"), origin=bundle)
        expected = pipeline(waveform).detach().numpy()
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert session.get_modelmeta().custom_metadata_map["emotions"] == "a,b,c,d"
    assert session.get_outputs()[0].shape[1] == 4
    probabilities, *_ = session.run(None, {"waveform": waveform.numpy()})
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_another_architecture_is_not_filled(bundle):
    pipeline = rebuild(bundle)
    pipeline.temperature.fill_(2.0)
    assert replace_bundle_weights(bundle, pipeline) is None
    pipeline.temperature.fill_(1.0)
    pipeline.detector = None
    assert replace_bundle_weights(bundle, pipeline) is None
