"""A bundle's ONNX file, loaded: what it takes, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.bundle.folder import Bundle
from affekt.errors import BadBundle


class Graph:
    """An ONNX graph whose one output is `probabilities`, (batch, emotions); `inputs` names what it takes."""

    def __init__(self, bundle: Bundle, session: Any) -> None:
        self.bundle, self._session = bundle, session
        self.inputs: tuple[str, ...] = tuple(entry.name for entry in session.get_inputs())

    @classmethod
    def load(cls, bundle: Bundle, *, threads: int = 1) -> Graph:
        """`threads`: cores that one answer may use. Raises `BadBundle` for a file that is none, or of other emotions."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        # Lengths differ from file to file: an arena would keep the memory of the longest, and hardly saves time here.
        options.enable_cpu_mem_arena = False
        try:
            session = onnxruntime.InferenceSession(bundle.onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own that have no base of their own
            raise BadBundle(f"{bundle.onnx} cannot be loaded: {error}") from error
        outputs = session.get_outputs()
        if [entry.name for entry in outputs] != ["probabilities"]:
            names = ", ".join(entry.name for entry in outputs)
            raise BadBundle(f"{bundle.onnx} gives {names}; expected probabilities")
        classes = outputs[0].shape[-1]
        if isinstance(classes, int) and classes != len(bundle.emotions):
            raise BadBundle(
                f"{bundle.onnx} tells {classes} emotions apart, and labels.json names {len(bundle.emotions)}"
            )
        return cls(bundle, session)

    def __call__(self, given: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Probabilities, (batch, emotions), in the order of the bundle's emotions."""
        (probabilities,) = self._session.run(["probabilities"], dict(given))
        return probabilities
