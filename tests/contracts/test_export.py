"""The ONNX graph of every model in the registry, exported as for a bundle, computes the same as torch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from affekt.bundle.export import export_onnx
from affekt.bundle.pipeline import Pipeline
from affekt.models import models
from tests.conftest import shapes_unchecked
from tests.contracts.builders import NUM_EMOTIONS, synthetic_batch, tiny

pytestmark = pytest.mark.slow


CHANGES = {
    "mcsan": {"speech_frames": 50},  # cuts the longest of the utterances
    "mstr": {"blocks": 1},
    "ks_transformer": {"speech_stride": 2, "fusion_layers": 0},
}
"""Settings with fewer layers, since tracing takes seconds for each, and some that the tiny form leaves out."""
SUBMODULES = {submodule for name in models for submodule in models[name].submodules.values()}
"""Models whose graphs are part of another's, and which have tests of their own."""


@pytest.mark.parametrize("name", [name for name in models if name not in SUBMODULES])
def test_onnx_equals_torch_at_three_lengths(name, tmp_path):
    pipeline = Pipeline({}, [tiny(name, **CHANGES.get(name, {})).float()]).eval()
    with shapes_unchecked():
        export_onnx(pipeline, tmp_path / "model.onnx", [f"emotion {n}" for n in range(NUM_EMOTIONS)])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for lengths in ([40, 7], [1, 2, 3], [61]):
        batch = synthetic_batch(pipeline.models[0], lengths).to(torch.float32)
        inputs = {key: stream.values for key, stream in batch.streams.items()}
        inputs |= {f"{key}_mask": stream.mask for key, stream in batch.streams.items() if stream.has_time}
        with torch.inference_mode():
            expected = pipeline(None, inputs).numpy()
        (logits,) = session.run(None, {key: tensor.numpy() for key, tensor in inputs.items()})
        np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("window_padding", [False, True])
def test_fractal_attention_is_one_operator_for_all_scales(window_padding, tmp_path):
    pipeline = Pipeline({}, [tiny("mstr", blocks=1, mask_window_padding=window_padding).float()]).eval()
    with shapes_unchecked():
        export_onnx(pipeline, tmp_path / "model.onnx", [f"emotion {n}" for n in range(NUM_EMOTIONS)])
    nodes = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert nodes.count("Attention") == 1
    assert "GatherND" not in nodes
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    speech = synthetic_batch(pipeline.models[0], [61, 1, 2, 26, 27, 28]).to(torch.float32).streams["speech"]
    inputs = {"speech": speech.values.numpy(), "speech_mask": speech.mask.numpy()}
    (batched,) = session.run(None, inputs)
    for index, length in enumerate(speech.lengths().tolist()):
        (alone,) = session.run(None, {name: x[index : index + 1, :length] for name, x in inputs.items()})
        np.testing.assert_allclose(batched[index], alone[0], atol=1e-6)
