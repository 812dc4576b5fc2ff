"""A pipeline as one ONNX file: raw 16 kHz waveform in, probabilities out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from affekt.audio.read import SAMPLE_RATE
from affekt.bundle.pipeline import Pipeline
from affekt.extras import need

OPSET = 23  # the first with an Attention operator, which onnxruntime computes in less memory than its parts


def export_onnx(pipeline: Pipeline, path: Path, emotions: Sequence[str]) -> None:
    """Write the pipeline as ONNX: `waveform` (batch, samples) in, `probabilities` (batch, emotions) out, any length.

    Streams that are given beside the waveform are inputs of their own: `text` (batch, frames, dim) and `text_mask`, say.
    Weights that are exact in 16 bits are stored in 16 bits and cast when the file is loaded; arithmetic is 32-bit.
    """
    onnx = need("onnx", extra="train", purpose="ONNX export")
    need("onnxscript", extra="train", purpose="ONNX export")
    pipeline = pipeline.eval()
    waveform = torch.zeros(2, 16_000).uniform_(-0.1, 0.1) if pipeline.heard else None
    given = _examples(pipeline)
    free = torch.export.Dim.DYNAMIC
    timed = {name: tensor.ndim == 3 or tensor.dtype == torch.bool for name, tensor in given.items()}
    shapes = {name: {0: free, 1: free} if timed[name] else {0: free} for name in given}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own, about itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            pipeline,
            kwargs={"waveform": waveform, "given": given},
            dynamo=True,
            dynamic_shapes={"waveform": None if waveform is None else {0: free, 1: free}, "given": shapes},
            input_names=[*([] if waveform is None else ["waveform"]), *given],
            output_names=["probabilities"],
            opset_version=OPSET,
        )
    assert program is not None
    model = program.model_proto
    _store_half(model)
    _tidy(model)
    onnx.helper.set_model_props(model, {"emotions": ",".join(emotions), "sample_rate": str(SAMPLE_RATE)})
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _examples(pipeline: Pipeline) -> dict[str, Tensor]:
    """What is given beside the waveform, for the exporter to follow: two utterances, the second shorter."""
    model, examples = pipeline.first, dict[str, Tensor]()
    for name in pipeline.given:
        dim, frames = model.dims[name], model.paper.frames[name] and 24
        examples[name] = torch.randn(2, frames, dim) if frames else torch.randn(2, dim)
        if frames:
            examples[f"{name}_mask"] = torch.arange(frames) < torch.tensor([[frames], [frames - 5]])
    return examples


def _store_half(model: Any) -> None:
    """Replace 32-bit initialisers that are exact in 16 bits by 16-bit ones and a cast."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 64:
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
    """Take off the exporter's notes (stack traces with paths, shapes in symbols of its own) and name the axes."""
    graph = model.graph
    for entry in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        for field in ("metadata_props", "doc_string"):
            if field in entry.DESCRIPTOR.fields_by_name:
                entry.ClearField(field)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        second = {"waveform": "samples"}.get(value.name, f"{value.name.removesuffix('_mask')}_frames")
        for dimension, name in zip(value.type.tensor_type.shape.dim, ("batch", second), strict=False):
            if dimension.dim_param:
                dimension.dim_param = name
