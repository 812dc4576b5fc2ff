"""Fill the ONNX graph of a bundle with the weights of another network of the same architecture.

Tracing a network takes a hundred times longer. A graph contains every weight as an initializer, transposed where a
matrix product needs it so. Which weight an initializer is follows from its name or, where the exporter has transposed
it, from its values, which are those of the bundle's network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.bundle.pipeline import Pipeline, rebuild
from affekt.config import encode
from affekt.extras import need

PREFIX = "pipeline."
"""Prefix of the weights' names in the graph: the attribute of the exported module."""
HALF = ".half"
"""Ending of the name of an initializer that is stored in 16 bits; its cast has the name without it."""
TEMPERATURE = "temperature"
"""The one weight that the exporter computes with, so that no initializer has its value."""


def replace_bundle_weights(bundle: Bundle, pipeline: Pipeline) -> Any:
    """Return the graph of a bundle with the weights of a pipeline; see `replace_weights`."""
    onnx = need("onnx", extra="train", purpose="ONNX export")
    model = onnx.load(bundle.file("model.onnx"))
    _load_half(model)
    return replace_weights(model, rebuild(bundle), pipeline)


def replace_weights(model: Any, original: Pipeline, pipeline: Pipeline) -> Any:
    """Return an ONNX model with the weights of another pipeline, all in 32 bits.

    Args:
        model: The ONNX model, without 16-bit initializers. It is changed in place.
        original: The pipeline that it was exported from.
        pipeline: The pipeline with the new weights, which may have another number of emotions.

    Returns:
        The model, or None if the architectures differ or a weight cannot be found in the graph.
    """
    from onnx import numpy_helper

    if _architecture(original) != _architecture(pipeline):
        return None
    names = _find_weights(model, original)
    if names is None:
        return None
    weights, adaptation = _weights(pipeline), pipeline.neutral_adaptation()
    for tensor in model.graph.initializer:
        if tensor.name in names:
            weight, transposed = names[tensor.name]
            values = weights[weight].T if transposed else weights[weight]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))
        elif tensor.name in adaptation:
            tensor.CopyFrom(numpy_helper.from_array(adaptation[tensor.name].numpy(), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        if value.name in ("probabilities", "class_bias"):
            value.type.tensor_type.shape.dim[-1].dim_value = pipeline.first.num_emotions
    return model


def _architecture(pipeline: Pipeline) -> Any:
    """Return what a graph depends on, apart from the weights and the number of emotions."""
    first = pipeline.first
    return (
        {stream: (type(feature), encode(feature.config)) for stream, feature in pipeline.features.items()},
        (type(first), encode(first.config), dict(first.dims), dict(first.lengths), len(pipeline.models)),
        (pipeline.inputs, list(pipeline.adaptations), float(pipeline.temperature)),
        None if pipeline.detector is None else pipeline.detector.hidden,
    )


def _weights(pipeline: Pipeline) -> dict[str, NDArray[np.float32]]:
    """Return the weights and statistics of a network by name, but its temperature."""
    state = {name: tensor for name, tensor in pipeline.state_dict().items() if tensor.is_floating_point()}
    return {name: tensor.float().numpy() for name, tensor in state.items() if name != TEMPERATURE}


def _find_weights(model: Any, pipeline: Pipeline) -> Mapping[str, tuple[str, bool]] | None:
    """Return the weight behind each initializer and whether it is transposed; None if a weight has no initializer alone.

    Args:
        model: The ONNX model of `pipeline`.
        pipeline: The network.
    """
    from onnx import numpy_helper

    weights = _weights(pipeline)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = {PREFIX + weight: (weight, False) for weight in weights if PREFIX + weight in values}
    missing = weights.keys() - {weight for weight, _ in names.values()}
    by_content = {weights[weight].T.tobytes(): weight for weight in missing if weights[weight].ndim == 2}
    for name, value in values.items():
        if name not in names and (weight := by_content.get(value.tobytes())):
            names[name] = (weight, True)
    matched = sorted(weight for weight, _ in names.values())
    return names if matched == sorted(weights) else None


def _load_half(model: Any) -> None:
    """Replace 16-bit initializers and their casts by 32-bit initializers."""
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        if tensor.name.endswith(HALF):
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name.removesuffix(HALF)))
    nodes = [node for node in model.graph.node if not (node.op_type == "Cast" and node.input[0].endswith(HALF))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
