"""Rewrite Silero VAD as a graph that computes many frames in one run: the file src/affekt/assets/vad/silero_vad_16k.onnx.

    python benchmarks/silero_sequence.py silero_vad_16k_op15.onnx src/affekt/assets/vad/silero_vad_16k.onnx

The weights are unchanged. Silero's own graph (github.com/snakers4/silero-vad, MIT) computes one frame of 32 ms in each run,
and most of its nodes choose between sample rates. Here the convolutions of all frames are matrix products, and one LSTM node
runs over the frames. On one core, a frame costs 0.03 ms instead of 0.27 ms.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

UNITS = 128
"""Units of the LSTM."""
INPUT = 576
"""Samples of a frame with its context."""
Weights = dict[str, NDArray[Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="Silero VAD 6 for 16 kHz, opset 15")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    onnx.save(rewrite(onnx.load(arguments.source)), arguments.output)


def rewrite(source: onnx.ModelProto) -> onnx.ModelProto:
    """Return the rewritten graph: (frames, 576) and the LSTM's state -> (frames,) probabilities and the new state."""
    graph = _Graph(read_weights({i.name: numpy_helper.to_array(i) for i in source.graph.initializer}))
    magnitude = _spectrum(graph)
    frames = _encoder(graph, magnitude)
    graph.add("LSTM", [frames, "W", "R", "B", "", "h", "c"], ["hidden", "h_out", "c_out"], hidden_size=UNITS)
    features = graph.add("Reshape", [graph.add("Relu", ["hidden"]), graph.constant(-1, UNITS)])
    logits = graph.add("Add", [graph.add("MatMul", [features, "decoder_weight"]), "decoder_bias"])
    graph.add("Reshape", [graph.add("Sigmoid", [logits]), graph.constant(-1)], ["probability"])
    return graph.model()


def read_weights(original: Mapping[str, NDArray[Any]]) -> Weights:
    """Return the weights by their names here. Convolutions become matrices (3 taps x inputs, outputs)."""
    weights = {"basis": original["model.stft.forward_basis_buffer"][:, 0].T}
    for index in range(4):
        kernel = original[f"model.encoder.{index}.reparam_conv.weight"]
        weights[f"weight_{index}"] = kernel.transpose(2, 1, 0).reshape(-1, len(kernel))
        weights[f"bias_{index}"] = original[f"model.encoder.{index}.reparam_conv.bias"]
    inputs = len(weights["weight_3"]) // 3
    weights["weight_3"] = weights["weight_3"][inputs : 2 * inputs]  # it sees one position: the outer taps see padding
    rnn = {name: original[f"model.decoder.rnn.{name}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    weights["W"], weights["R"] = (_reorder(rnn[name])[np.newaxis] for name in ("weight_ih", "weight_hh"))
    weights["B"] = np.concatenate([_reorder(rnn["bias_ih"]), _reorder(rnn["bias_hh"])])[np.newaxis]
    weights["decoder_weight"] = original["model.decoder.decoder.2.weight"][0].T
    weights["decoder_bias"] = original["model.decoder.decoder.2.bias"]
    weights["decoder_weight"] = weights["decoder_weight"].reshape(UNITS, 1)
    return weights


def _reorder(gates: NDArray[Any]) -> NDArray[Any]:
    """Return an LSTM's gates in ONNX's order (input, output, forget, cell), not torch's (input, forget, cell, output)."""
    entry, forget, cell, output = np.split(gates, 4)
    return np.concatenate([entry, output, forget, cell])


def _spectrum(graph: _Graph) -> str:
    """Add the magnitudes of four overlapping windows of 256 samples of each frame, (frames, 4, 129)."""
    padded = graph.add("Pad", ["frames", graph.constant(0, 0, 0, 64)], mode="reflect")
    blocks = graph.add("Reshape", [padded, graph.constant(-1, 5, 128)])
    windows = graph.add("Concat", [graph.slice(blocks, 0, 4), graph.slice(blocks, 1, 5)], axis=2)
    spectrum = graph.add("MatMul", [windows, "basis"])
    real, imaginary = graph.slice(spectrum, 0, 129, axis=2), graph.slice(spectrum, 129, 258, axis=2)
    squares = [graph.add("Mul", [part, part]) for part in (real, imaginary)]
    return graph.add("Sqrt", [graph.add("Add", squares)])


def _encoder(graph: _Graph, values: str) -> str:
    """Add the four convolutions, (frames, 4, 129) -> (frames, 1, 128)."""
    for index, (length, stride) in enumerate(((4, 1), (4, 2), (2, 2))):
        padded = graph.add("Pad", [values, graph.constant(0, 1, 0, 0, 1, 0)])
        span = (length - 1) // stride * stride + 1
        taps = [graph.slice(padded, tap, tap + span, step=stride) for tap in range(3)]
        values = _layer(graph, graph.add("Concat", taps, axis=2), index)
    return _layer(graph, values, 3)


def _layer(graph: _Graph, values: str, index: int) -> str:
    product = graph.add("MatMul", [values, f"weight_{index}"])
    return graph.add("Relu", [graph.add("Add", [product, f"bias_{index}"])])


class _Graph:
    """A graph that is being built."""

    def __init__(self, weights: Weights) -> None:
        self.initializers = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
        self.nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        """Add a node, and return the name of its first output."""
        outputs = outputs or [f"{operator.lower()}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def constant(self, *values: int) -> str:
        name = "_".join(["constant", *map(str, values)])
        self.initializers[name] = np.array(values, np.int64)
        return name

    def slice(self, values: str, start: int, end: int, *, axis: int = 1, step: int = 1) -> str:
        return self.add("Slice", [values, *map(self.constant, (start, end, axis, step))])

    def model(self) -> onnx.ModelProto:
        state = [1, 1, UNITS]
        graph = helper.make_graph(
            self.nodes,
            "silero_vad_16k",
            [_value("frames", ["frames", INPUT]), _value("h", state), _value("c", state)],
            [_value("probability", ["frames"]), _value("h_out", state), _value("c_out", state)],
            [numpy_helper.from_array(value, name) for name, value in self.initializers.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
        model.producer_name = "affekt, from Silero VAD 6 (MIT)"
        onnx.checker.check_model(model)
        return model


def _value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


if __name__ == "__main__":
    main()
