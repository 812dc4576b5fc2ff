"""A bundle's ONNX graph, loaded with onnxruntime."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affekt.audio.read import SAMPLE_RATE, SHORTEST
from affekt.bundle.folder import SPEECH_PROBABILITY, SPEECH_THRESHOLD, Bundle
from affekt.cores import check_threads
from affekt.errors import BadBundle
from affekt.inference.class_bias import apply_class_bias
from affekt.inference.graph_file import check_graph_file
from affekt.inference.profile import Profile

TOLERANCE = 0.01
"""Largest accepted deviation of probabilities from a sum of 1."""


MIN_DETECTED = 12_000
"""Minimum number of samples at 16 kHz of a recording that the speech detector may refuse: 0.75 s. It refuses a tenth of all
fragments of words that last 0.5 s."""
FURTHER_OUTPUTS = re.compile(rf"\w+_(mean|log_std)|{SPEECH_PROBABILITY}")
"""Names of the outputs that a graph may have besides `probabilities`: the statistics of a stream, and the probability of
speech in the recording (`Pipeline.outputs`)."""


class Graph:
    """An ONNX graph with the output `probabilities`, (batch, emotions), and optionally statistics of its streams.

    Attributes:
        bundle: The bundle that contains the graph.
        inputs: The names of the required inputs.
        adaptable: The streams that can be adapted, with their dim: the graph has the optional inputs `STREAM_offset` and
            `STREAM_log_scale`, (dim,), and the outputs `STREAM_mean` and `STREAM_log_std`, (batch, dim). Graphs of earlier
            versions have none.
        threads: The number of cores that one call may use.
        speech_threshold: The lowest `speech_probability` of a recording with speech; None if the graph has no such output, or
            if it is not used.
        profile: The profile that is applied, if any.

    Raises:
        BadConfig: The profile was learned for another model.
    """

    def __init__(self, bundle: Bundle, session: Any, profile: Profile | None = None, *, detects: bool = True) -> None:
        self.bundle, self._session, self._detects = bundle, session, detects
        self.inputs: tuple[str, ...] = tuple(entry.name for entry in session.get_inputs())
        self.adaptable: dict[str, int] = {
            entry.name.removesuffix("_offset"): entry.shape[0]
            for entry in session.get_overridable_initializers()
            if entry.name.endswith("_offset")
        }
        self._statistics = [f"{stream}_{part}" for stream in self.adaptable for part in ("mean", "log_std")]
        self.speech_threshold = _read_threshold(bundle, session) if detects else None
        self.profile = profile
        if profile is not None:
            profile.check(bundle.id, bundle.emotions, self.adaptable)
        self.threads: int = session.get_session_options().intra_op_num_threads
        # A class bias is applied here instead of by the graph's input `class_bias`, which graphs of earlier versions lack.
        self._shifts = {} if profile is None else profile.graph_inputs()
        self._bias = None if profile is None else profile.bias(bundle.emotions)

    @classmethod
    def load(cls, bundle: Bundle, *, threads: int = 1, profile: Profile | None = None, detects: bool = True) -> Graph:
        """Load a bundle's graph, and run it once.

        Args:
            bundle: The bundle.
            threads: The number of cores that one call may use.
            profile: The profile to apply, if any.
            detects: Whether the graph's speech detector is used, if it has one.

        Raises:
            BadBundle: A file is missing, damaged or invalid, the ONNX file cannot be loaded and run on a known input, its
                inputs and outputs are not those of a bundle, or its outputs are not probabilities of the bundle's emotions.
            BadConfig: The profile was learned for another model, or there are more threads than twice the machine's cores.
        """
        check_threads(threads)
        import onnxruntime

        bundle.check()
        check_graph_file(bundle.onnx)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # errors are raised, and need not be printed too
        # Files differ in length: a memory arena would keep the memory that the longest one needs, and hardly saves time.
        options.enable_cpu_mem_arena = False
        try:
            # The fallback would try the same provider again, and print that on standard output.
            session = onnxruntime.InferenceSession(
                bundle.onnx, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            _check_signature(bundle, session.get_inputs(), session.get_outputs())
            _check_options(bundle, session.get_overridable_initializers(), session.get_outputs())
        except BadBundle:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base class; names may not be UTF-8
            raise BadBundle(f"{bundle.onnx} cannot be loaded: {_reason(error)}") from error
        graph = cls(bundle, session, profile, detects=detects)
        graph(_trial_inputs(session.get_inputs()))  # raises if an output that recognition asks for is invalid
        return graph

    def adapt(self, profile: Profile | None) -> Graph:
        """Return the same graph with another profile, or without one.

        Raises:
            BadConfig: The profile was learned for another model.
        """
        return Graph(self.bundle, self._session, profile, detects=self._detects)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.floating]:
        """Return probabilities, (batch, emotions), in the order of the bundle's emotions; errors as for `run`.

        The profile is applied to them. If the graph has a speech detector, those of a recording without speech are zeros.
        """
        return self._apply_bias(self._run_with_detector(inputs, ["probabilities"])["probabilities"])

    def recognize(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
        """Return probabilities as calling the graph, and the statistics of the streams in `adaptable`; errors as for `run`.

        The statistics of a recording are `STREAM_mean` and `STREAM_log_std` of each stream, joined, (batch, statistics_size),
        without the shift that the profile removes.
        """
        values = self.observe(inputs)
        for stream in self.adaptable:
            for part, shift in (("mean", "offset"), ("log_std", "log_scale")):
                if (removed := self._shifts.get(f"{stream}_{shift}")) is not None:
                    values[f"{stream}_{part}"] = values[f"{stream}_{part}"] - removed
        return self._apply_bias(values["probabilities"]), self.join_statistics(values)

    @property
    def statistics_size(self) -> int:
        """Number of statistics of a recording; 0 if the graph returns none."""
        return 2 * sum(self.adaptable.values())

    def join_statistics(self, outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the statistics among the outputs of `observe`, (batch, statistics_size)."""
        return np.concatenate([outputs[name] for name in self._statistics], axis=1)

    def _apply_bias(self, probabilities: NDArray[np.float32]) -> NDArray[np.floating]:
        return probabilities if self._bias is None else apply_class_bias(probabilities, self._bias)

    def observe(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Return probabilities without a class bias, and the statistics of the streams in `adaptable`; errors as for `run`.

        If the graph has a speech detector, the probabilities of a recording without speech are zeros.
        """
        return self._run_with_detector(inputs, ["probabilities", *self._statistics])

    def _run_with_detector(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]
    ) -> dict[str, NDArray[np.float32]]:
        inputs = {**inputs, **self._shifts}
        if self.speech_threshold is None:
            return self.run(inputs, outputs)
        values = self.run(inputs, [*outputs, SPEECH_PROBABILITY])
        has_speech = values.pop(SPEECH_PROBABILITY) >= self.speech_threshold
        if inputs["waveform"].shape[1] < MIN_DETECTED:
            has_speech[:] = True
        return {**values, "probabilities": np.where(has_speech[:, np.newaxis], values["probabilities"], np.float32(0))}

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return some of the graph's outputs by name.

        Raises:
            BadBundle: The graph cannot be run with these inputs, or its outputs are not probabilities or not finite.
        """
        try:
            values = dict(zip(outputs, self._session.run(list(outputs), dict(inputs)), strict=True))
        except Exception as error:  # onnxruntime's exceptions have no common base class
            raise BadBundle(f"{self.bundle.onnx} cannot be run: {_reason(error)}") from error
        for name, value in values.items():
            if name == "probabilities" and (reason := _find_fault(value, len(self.bundle.emotions))):
                raise BadBundle(f"{self.bundle.onnx} returns {reason}; expected probabilities, (batch, emotions)")
            if not np.isfinite(value).all():
                raise BadBundle(f"{self.bundle.onnx} returns NaN or infinite values as {name}; expected finite values")
        return values


def _read_threshold(bundle: Bundle, session: Any) -> float | None:
    """Return the threshold of the speech probability; None without this output. Raises `BadBundle` if it is invalid."""
    if SPEECH_PROBABILITY not in {entry.name for entry in session.get_outputs()}:
        return None
    text = session.get_modelmeta().custom_metadata_map.get(SPEECH_THRESHOLD, "")
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise BadBundle(f"{bundle.onnx} has the metadata {SPEECH_THRESHOLD} = {text!r}; expected a number from 0 to 1")
    return threshold


def _check_signature(bundle: Bundle, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raise `BadBundle` if the declared inputs and outputs are not those of a bundle's graph."""
    names = [entry.name for entry in outputs]
    if names[:1] != ["probabilities"] or not all(map(FURTHER_OUTPUTS.fullmatch, names[1:])):
        raise BadBundle(f"{bundle.onnx} has the outputs {', '.join(names)}; expected probabilities")
    for entry in inputs:
        expected = "tensor(bool)" if entry.name.endswith("_mask") else "tensor(float)"
        ranks = (2,) if entry.name == "waveform" or entry.name.endswith("_mask") else (2, 3)
        if entry.type != expected or len(entry.shape) not in ranks:
            raise BadBundle(
                f"{bundle.onnx}: its input {entry.name} is a {entry.type} with {len(entry.shape)} axes; expected a "
                f"{expected} with {' or '.join(map(str, ranks))}"
            )
        has_time = len(entry.shape) == 3 or len(ranks) == 1
        if has_time and isinstance(entry.shape[1], int):
            raise BadBundle(
                f"{bundle.onnx}: its input {entry.name} has the fixed length {entry.shape[1]}; expected any"
            )
    shape = outputs[0].shape
    if outputs[0].type != "tensor(float)" or len(shape) != 2:
        raise BadBundle(
            f"{bundle.onnx}: its output is a {outputs[0].type} with {len(shape)} axes; expected a tensor(float) with 2"
        )
    if isinstance(shape[1], int) and shape[1] != len(bundle.emotions):
        raise BadBundle(f"{bundle.onnx} has {shape[1]} classes, but labels.json names {len(bundle.emotions)} emotions")


def _check_options(bundle: Bundle, options: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raise `BadBundle` if the optional inputs are not those of an adaptation (`Pipeline.neutral_adaptation`)."""
    shapes = {entry.name: list(entry.shape) for entry in options}
    dims = {entry.name: entry.shape[-1:] for entry in outputs}
    for name, shape in shapes.items():
        stream = name.removesuffix("_offset").removesuffix("_log_scale")
        parts = {f"{stream}_offset", f"{stream}_log_scale"}
        if name == "class_bias":
            expected = [len(bundle.emotions)]
        elif name in parts and parts <= set(shapes) and {f"{stream}_mean", f"{stream}_log_std"} <= set(dims):
            expected = dims[f"{stream}_mean"]
        else:
            raise BadBundle(f"{bundle.onnx} has the optional input {name}; expected those of an adaptation")
        if shape != expected or not all(isinstance(size, int) for size in shape):
            raise BadBundle(f"{bundle.onnx}: its optional input {name} has the shape {shape}; expected {expected}")


def _trial_inputs(inputs: Sequence[Any]) -> dict[str, NDArray[Any]]:
    """Return known inputs for one run of a graph: a wave of the minimum duration, or 24 frames, and masks without padding."""
    examples: dict[str, NDArray[Any]] = {}
    for entry in inputs:
        lengths = {"waveform": round(SHORTEST * SAMPLE_RATE)}
        shape = [1, *(size if isinstance(size, int) else lengths.get(entry.name, 24) for size in entry.shape[1:])]
        wave = np.sin(0.17 * np.arange(math.prod(shape), dtype=np.float32).reshape(shape))
        examples[entry.name] = np.ones(shape, bool) if entry.type == "tensor(bool)" else np.float32(0.1) * wave
    return examples


def _find_fault(probabilities: Any, classes: int) -> str | None:
    """Return what is wrong with a graph's output; None if it is probabilities of this number of classes."""
    if not isinstance(probabilities, np.ndarray) or probabilities.ndim != 2 or probabilities.shape[1] != classes:
        return f"an output of shape {np.shape(probabilities)} for {classes} emotions"
    if not np.isfinite(probabilities).all():
        return "NaN or infinite values"
    if probabilities.min(initial=0) < -TOLERANCE or (abs(probabilities.sum(axis=1) - 1) > TOLERANCE).any():
        return "values that are negative or do not sum to 1"
    return None


def _reason(error: Exception) -> str:
    """Return the message of an exception in one line of limited length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else f"{text[:500]}..."
