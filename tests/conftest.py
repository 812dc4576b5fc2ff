"""Shapes in signatures are checked while the tests run; real data and encoders are found through the environment."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import jaxtyping
import numpy as np
import onnx
import pytest
from jaxtyping import install_import_hook
from onnx import TensorProto, helper, numpy_helper

from affekt.bundle.folder import write_labels

hook = install_import_hook(
    ["affekt.batch", "affekt.models", "affekt.features", "affekt.bundle.pipeline"], "beartype.beartype"
)

ROOT = Path(__file__).parent.parent
SAMPLES = sorted((ROOT / "samples").glob("*.wav"))


@contextlib.contextmanager
def shapes_unchecked():
    """For what traces our code: a tracer's symbols are neither tensors nor numbers to a type checker."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def _folder(variable: str, name: str) -> Path:
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set: needs {name}")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"{variable} has no {name}/")
    return folder


@pytest.fixture
def cremad() -> Path:
    return _folder("AFFEKT_DATA", "cremad")


@pytest.fixture
def emodb() -> Path:
    return _folder("AFFEKT_DATA", "emodb")


@pytest.fixture
def whisper() -> Path:
    return _folder("AFFEKT_MODELS", "whisper-tiny.en-encoder")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that answers by the loudness, the energy and the liveliness of a waveform: quick, and nobody's model."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_tiny_bundle(folder, ("angry", "disgust", "fear", "happy", "neutral", "sad"))
    return folder


def write_tiny_bundle(folder: Path, emotions: Sequence[str], source: str = "waveform", seed: int = 0) -> None:
    folder.mkdir()
    nodes = [
        helper.make_node("Abs", [source], ["absolute"]),
        helper.make_node("ReduceMean", ["absolute"], ["loudness"], axes=[1], keepdims=1),
        helper.make_node("ReduceL2", [source], ["energy"], axes=[1], keepdims=1),
        helper.make_node("Slice", [source, "one", "end", "axis"], ["later"]),
        helper.make_node("Slice", [source, "zero", "minus_one", "axis"], ["earlier"]),
        helper.make_node("Sub", ["later", "earlier"], ["steps"]),
        helper.make_node("Abs", ["steps"], ["strides"]),
        helper.make_node("ReduceMean", ["strides"], ["liveliness"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["loudness", "energy", "liveliness"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = np.random.default_rng(seed).normal(size=(3, len(emotions))) * [[10], [0.02], [10]]
    constants = {"zero": [0], "one": [1], "minus_one": [-1], "end": [2**62], "axis": [1]}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(emotions)])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
        + [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    write_labels(folder, folder.name, emotions)
    (folder / "config.toml").write_text(f'name = "{folder.name}"\n', encoding="utf-8")
