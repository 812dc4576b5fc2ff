"""Export a pipeline to one ONNX file, with a 16 kHz waveform as input and probabilities as output."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.folder import SPEECH_PROBABILITY, SPEECH_THRESHOLD, Bundle
from affekt.bundle.graph import replace_bundle_weights
from affekt.bundle.pipeline import Pipeline
from affekt.extras import need

OPSET = 23
"""The first opset with an Attention operator, which onnxruntime computes in less memory than separate operators."""
TOLERANCE = 1e-4
"""The largest accepted difference between outputs of the pipeline and of a graph with its weights."""


def export_onnx(
    pipeline: Pipeline,
    path: Path,
    emotions: Sequence[str],
    *,
    speech_threshold: float | None = None,
    origin: Bundle | None = None,
) -> None:
    """Write the pipeline as an ONNX file with input `waveform` (batch, samples) and output `probabilities` (batch, emotions).

    Streams that are not computed from the waveform are further inputs, such as `text` (batch, frames, dim) and `text_mask`.
    All inputs may have any length.

    The tensors of an adaptation (`Pipeline.neutral_adaptation`) are optional inputs: they are also initializers, which are
    zeros, so that the graph can be run with `waveform` alone. Further outputs are the statistics from which an adaptation
    is learned and, if there is a detector, `speech_probability` (batch,).

    Weights that 16 bits represent exactly are stored in 16 bits and cast when the file is loaded; arithmetic is 32-bit.

    Args:
        pipeline: The pipeline.
        path: The file to write.
        emotions: The emotions in the order of the outputs, which are stored as metadata.
        speech_threshold: The smallest `speech_probability` of a recording with speech, stored as metadata.
        origin: A bundle whose graph is used, with the pipeline's weights, if it has the same architecture. This is a
            hundred times faster than tracing the pipeline.
    """
    onnx = need("onnx", extra="train", purpose="ONNX export")
    need("onnxscript", extra="train", purpose="ONNX export")
    pipeline = pipeline.eval()
    model = replace_bundle_weights(origin, pipeline) if origin else None
    if model is None or not _agrees(model, pipeline):
        model = _trace(pipeline)
    _store_half(model)
    _tidy(model)
    properties = {"emotions": ",".join(emotions), "sample_rate": str(SAMPLE_RATE)}
    if speech_threshold is not None:
        properties[SPEECH_THRESHOLD] = repr(speech_threshold)
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _trace(pipeline: Pipeline) -> Any:
    """Return the pipeline as an ONNX model."""
    from onnx import numpy_helper

    inputs, adaptation = _examples(pipeline), pipeline.neutral_adaptation()
    waveform = inputs.pop("waveform", None)
    outputs = [] if pipeline.detector is None else [SPEECH_PROBABILITY]
    outputs += [name for stream in pipeline.adaptations for name in (f"{stream}_mean", f"{stream}_log_std")]
    dynamic = torch.export.Dim.DYNAMIC
    timed = {name: tensor.ndim == 3 or tensor.dtype == torch.bool for name, tensor in inputs.items()}
    shapes = {name: {0: dynamic, 1: dynamic} if timed[name] else {0: dynamic} for name in inputs}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's warnings about itself
        for name in ("torch.onnx", "onnxscript"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            _AllOutputs(pipeline),
            kwargs={"waveform": waveform, "inputs": inputs, "adaptation": adaptation},
            dynamo=True,
            dynamic_shapes={
                "waveform": None if waveform is None else {0: dynamic, 1: dynamic},
                "inputs": shapes,
                "adaptation": {name: {} for name in adaptation},
            },
            input_names=[*([] if waveform is None else ["waveform"]), *inputs, *adaptation],
            output_names=["probabilities", *outputs],
            opset_version=OPSET,
        )
    assert program is not None
    model = program.model_proto
    for name, value in adaptation.items():
        model.graph.initializer.append(numpy_helper.from_array(value.numpy(), name))
    return model


def _agrees(model: Any, pipeline: Pipeline) -> bool:
    """Return True if an ONNX model computes what the pipeline does, on an example."""
    inputs, options = _examples(pipeline), onnxruntime.SessionOptions()
    options.log_severity_level = 3  # no warnings: inputs with defaults are intended
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    computed = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.inference_mode():
        expected = pipeline.outputs(inputs.pop("waveform", None), inputs)
    names = [output.name for output in session.get_outputs()]
    return names == list(expected) and all(
        np.allclose(values, tensor.numpy(), atol=TOLERANCE)
        for values, tensor in zip(computed, expected.values(), strict=True)
    )


class _AllOutputs(torch.nn.Module):
    """A pipeline whose `forward` returns all outputs."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.pipeline = pipeline

    def forward(
        self, waveform: Tensor | None, inputs: Mapping[str, Tensor], adaptation: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return self.pipeline.outputs(waveform, inputs, adaptation)


def _examples(pipeline: Pipeline) -> dict[str, Tensor]:
    """Return example inputs: two utterances, of which the second is shorter in streams with a mask."""
    model, examples = pipeline.first, dict[str, Tensor]()
    if pipeline.features:
        examples["waveform"] = torch.zeros(2, 16_000).uniform_(-0.1, 0.1)
    for name in pipeline.inputs:
        dim, frames = model.dims[name], 24 if model.paper.frames[name] else 0  # 0: the stream has no time axis
        examples[name] = torch.randn(2, frames, dim) if frames else torch.randn(2, dim)
        if frames:
            examples[f"{name}_mask"] = torch.arange(frames) < torch.tensor([[frames], [frames - 5]])
    return examples


def _store_half(model: Any) -> None:
    """Replace 32-bit initializers that 16 bits represent exactly by 16-bit ones and a cast, but not those of inputs."""
    from onnx import TensorProto, helper, numpy_helper

    casts, inputs = [], {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 64 or tensor.name in inputs:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + ".half"))
        casts.append(helper.make_node("Cast", [name + ".half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _tidy(model: Any) -> None:
    """Remove the exporter's metadata (stack traces with paths, symbolic shapes) and name the axes of inputs and outputs."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        for field in ("metadata_props", "doc_string"):
            if field in entry.DESCRIPTOR.fields_by_name:
                entry.ClearField(field)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        second_axis = {"waveform": "samples"}.get(value.name, f"{value.name.removesuffix('_mask')}_frames")
        for dimension, name in zip(value.type.tensor_type.shape.dim, ("batch", second_axis), strict=False):
            if dimension.dim_param:
                dimension.dim_param = name
