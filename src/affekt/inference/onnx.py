"""A bundle's ONNX graph, loaded with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.errors import BadBundle


class Graph:
    """An ONNX graph with the single output `probabilities`, (batch, emotions).

    Attributes:
        bundle: The bundle that contains the graph.
        inputs: The names of the graph's inputs.
    """

    def __init__(self, bundle: Bundle, session: Any) -> None:
        self.bundle, self._session = bundle, session
        self.inputs: tuple[str, ...] = tuple(entry.name for entry in session.get_inputs())

    @classmethod
    def load(cls, bundle: Bundle, *, threads: int = 1) -> Graph:
        """Load a bundle's graph.

        Args:
            threads: the number of cores that one call may use.

        Raises:
            BadBundle: the file is not an ONNX graph, or its outputs do not fit the bundle's emotions.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Files differ in length: a memory arena would keep the memory that the longest one needs, and hardly saves time.
        options.enable_cpu_mem_arena = False
        try:
            session = onnxruntime.InferenceSession(bundle.onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise BadBundle(f"{bundle.onnx} cannot be loaded: {error}") from error
        outputs = session.get_outputs()
        if [entry.name for entry in outputs] != ["probabilities"]:
            names = ", ".join(entry.name for entry in outputs)
            raise BadBundle(f"{bundle.onnx} has the outputs {names}; expected probabilities")
        classes = outputs[0].shape[-1]
        if isinstance(classes, int) and classes != len(bundle.emotions):
            raise BadBundle(
                f"{bundle.onnx} has {classes} classes, but labels.json names {len(bundle.emotions)} emotions"
            )
        return cls(bundle, session)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return probabilities, (batch, emotions), in the order of the bundle's emotions."""
        (probabilities,) = self._session.run(["probabilities"], dict(inputs))
        return probabilities
