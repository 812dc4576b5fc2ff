"""Every model in the registry answers the same as ONNX, by the export that bundles are made with."""

import numpy as np
import onnxruntime
import pytest
import torch

from affekt.models import models
from affekt.pipeline import Pipeline, export_onnx
from tests.conftest import shapes_unchecked
from tests.contracts.builders import EMOTIONS, synthetic_batch, tiny


@pytest.mark.parametrize("name", models)
def test_onnx_equals_torch_at_three_lengths(name, tmp_path):
    pipeline = Pipeline(None, [tiny(name).float()]).eval()
    with shapes_unchecked():
        export_onnx(pipeline, tmp_path / "model.onnx", [f"emotion {n}" for n in range(EMOTIONS)])
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for lengths in ([40, 7], [1, 2, 3], [61]):
        batch = synthetic_batch(pipeline.models[0], lengths).to(torch.float32)
        given = {key: stream.values for key, stream in batch.streams.items()}
        given |= {f"{key}_mask": stream.mask for key, stream in batch.streams.items() if stream.has_time}
        with torch.inference_mode():
            expected = pipeline(None, given).numpy()
        (found,) = session.run(None, {key: tensor.numpy() for key, tensor in given.items()})
        np.testing.assert_allclose(found, expected, atol=1e-5)
