"""Fixtures, markers and options of the test suite.

While tests run, the shapes of tensors are checked against the signatures. Tests on real corpora and encoders have the marker
`data`; they find their files through AFFEKT_DATA and AFFEKT_MODELS and are skipped without them. Tests that take seconds
have the marker `slow`. `make check` runs neither, `make test` runs all.
"""

import contextlib
import copy
import functools
import gc
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import hypothesis
import jaxtyping
import numpy as np
import onnx
import pytest
import torch
from jaxtyping import install_import_hook
from onnx import TensorProto, helper, numpy_helper

from affekt.bundle.folder import write_labels
from affekt.inference.recognizer import Recognizer

SHAPE_CHECKS = install_import_hook(
    ["affekt.batch", "affekt.models", "affekt.features", "affekt.bundle.adaptation", "affekt.bundle.pipeline"],
    "beartype.beartype",
)

ROOT = Path(__file__).parent.parent
SAMPLES = sorted((ROOT / "samples").glob("*.wav"))
GOLDEN = Path(__file__).parent / "golden"
# A test that requests one of these, directly or through another fixture, gets the marker `data`.
DATA_FIXTURES = {"cremad", "emodb", "meld", "whisper", "whisper_base", "ecapa_folder", "glove_folder", "minilm_folder"}

CHECKED_CALLS = 1000
"""Calls of a test whose shapes are checked: a training calls the same functions with the same shapes many thousand times."""


class CheckFirstCalls(type(jaxtyping.config)):
    """jaxtyping's settings, which switch it off after a number of calls. They are read once for every call."""

    remaining, switched_off = CHECKED_CALLS, False

    @property
    def jaxtyping_disable(self) -> bool:
        CheckFirstCalls.remaining -= 1
        return self.switched_off or self.remaining < 0

    @jaxtyping_disable.setter
    def jaxtyping_disable(self, value: bool) -> None:
        self.switched_off = value


jaxtyping.config.__class__ = CheckFirstCalls

# The same examples in every run and no time limit, since the tests share the cores with one another.
hypothesis.settings.register_profile("affekt", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("affekt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--refresh-golden", action="store_true", help="write generated pages to tests/golden")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & DATA_FIXTURES:
            item.add_marker("data")
        if "golden" in fixtures:
            item.add_marker("golden")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exempt the imported modules from garbage collection, which otherwise takes a fifth of the time of an export."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Check the shapes of the next calls: those of the test's fixtures and of the test."""
    CheckFirstCalls.remaining = CHECKED_CALLS


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a generated page with its file in tests/golden, or write that file with `make golden`."""

    def check(name: str, page: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--refresh-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(page, encoding="utf-8")
        assert page == path.read_text(encoding="utf-8"), f"{name} differs: run `make golden` and review the diff"

    return check


@contextlib.contextmanager
def shapes_unchecked() -> Iterator[None]:
    """Switch shape checks off while code is traced, since a tracer's symbolic sizes would fail them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session", autouse=True)
def every_architecture_is_traced_once() -> Iterator[None]:
    """Share exported graphs between the tests of a process, since tracing takes most of their time.

    The weights of a shared graph are replaced by those of the network that is exported, as for a bundle that starts from
    another. The export compares every such graph with its network.
    """
    from affekt.bundle import export
    from affekt.bundle.graph import replace_weights

    trace, graphs = export._trace, []

    def shared(pipeline):
        for model, original in graphs:
            graph = replace_weights(copy.deepcopy(model), original, pipeline)
            if graph is not None and export._agrees(graph, pipeline):
                return graph
        model = trace(pipeline)
        graphs.append((copy.deepcopy(model), copy.deepcopy(pipeline)))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_trace", shared)
        yield


@pytest.fixture(scope="session", autouse=True)
def the_exporters_table_is_built_once() -> Iterator[None]:
    """Share torch's table of ONNX functions, which every export parses again for some seconds."""
    registration = importlib.import_module("torch.onnx._internal.exporter._registration")
    with pytest.MonkeyPatch.context() as patch:
        registry = registration.ONNXRegistry
        patch.setattr(registry, "from_torchlib", staticmethod(functools.cache(registry.from_torchlib)))
        yield


@pytest.fixture(scope="session", autouse=True)
def exports_collect_no_garbage_and_cache_no_shapes() -> Iterator[None]:
    """Trace without garbage collection and without torch's cache of fake tensors, which together take a sixth of the time.

    An entry of that cache for a tensor with symbolic sizes costs more than the operation that it would save.
    """
    export = torch.onnx.export

    def quick_export(*arguments, **options):
        import torch._dynamo.config as settings

        enabled = gc.isenabled()
        gc.disable()
        try:
            with settings.patch(fake_tensor_cache_enabled=False):
                return export(*arguments, **options)
        finally:
            if enabled:
                gc.enable()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", quick_export)
        yield


def data_folder(variable: str, name: str) -> Path:
    """Return a folder inside the one that an environment variable names; skip the test if there is none."""
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set: needs {name}")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"{variable} has no {name}/")
    return folder


@pytest.fixture
def cremad() -> Path:
    return data_folder("AFFEKT_DATA", "cremad")


@pytest.fixture
def emodb() -> Path:
    return data_folder("AFFEKT_DATA", "emodb")


@pytest.fixture
def whisper() -> Path:
    return data_folder("AFFEKT_MODELS", "whisper-tiny.en-encoder")


@pytest.fixture(scope="session")
def ecapa_folder() -> Path:
    return data_folder("AFFEKT_MODELS", "ecapa-voxceleb")


@pytest.fixture(scope="session")
def glove_folder() -> Path:
    return data_folder("AFFEKT_MODELS", "glove.6B.50d")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return data_folder("AFFEKT_MODELS", "minilm-l6-v2")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose untrained model scores emotions by three statistics of the waveform; it runs in microseconds."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_tiny_bundle(folder, ("angry", "disgust", "fear", "happy", "neutral", "sad"))
    return folder


ADAPTATION = [
    helper.make_node("Identity", ["features"], ["speech_mean"]),
    helper.make_node("Sub", ["features", "features"], ["speech_log_std"]),
    helper.make_node("Sub", ["features", "speech_offset"], ["centered"]),
    helper.make_node("Neg", ["speech_log_scale"], ["minus_log_scale"]),
    helper.make_node("Exp", ["minus_log_scale"], ["scale"]),
    helper.make_node("Mul", ["centered", "scale"], ["adapted"]),
]
"""Nodes of a small graph that adapt its features."""


@pytest.fixture(scope="module")
def recognizer(tiny_bundle: Path) -> Recognizer:
    return Recognizer.load(tiny_bundle)


def write_tiny_bundle(
    folder: Path, emotions: Sequence[str], source: str = "waveform", seed: int = 0, *, adaptable: bool = False
) -> None:
    """Write a bundle whose logits are a random linear map of a waveform's mean amplitude, norm and mean step.

    If it is adaptable, these three are the stream "speech" of a single frame, and their reference is 0.
    """
    folder.mkdir()
    nodes = [
        helper.make_node("Abs", [source], ["absolute"]),
        helper.make_node("ReduceMean", ["absolute"], ["mean_amplitude"], axes=[1], keepdims=1),
        helper.make_node("ReduceL2", [source], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Slice", [source, "one", "end", "axis"], ["later"]),
        helper.make_node("Slice", [source, "zero", "minus_one", "axis"], ["earlier"]),
        helper.make_node("Sub", ["later", "earlier"], ["steps"]),
        helper.make_node("Abs", ["steps"], ["absolute_steps"]),
        helper.make_node("ReduceMean", ["absolute_steps"], ["mean_step"], axes=[1], keepdims=1),
        helper.make_node("Concat", ["mean_amplitude", "norm", "mean_step"], ["features"], axis=1),
        *(ADAPTATION if adaptable else [helper.make_node("Identity", ["features"], ["adapted"])]),
        helper.make_node("MatMul", ["adapted", "weights"], ["logits"]),
        *([helper.make_node("Add", ["logits", "class_bias"], ["biased"])] if adaptable else []),
        helper.make_node("Softmax", ["biased" if adaptable else "logits"], ["probabilities"], axis=1),
    ]
    weights = np.random.default_rng(seed).normal(size=(3, len(emotions))) * [[10], [0.02], [10]]
    constants = {"zero": [0], "one": [1], "minus_one": [-1], "end": [2**62], "axis": [1]}
    options = {"speech_offset": 3, "speech_log_scale": 3, "class_bias": len(emotions)} if adaptable else {}
    statistics = ["speech_mean", "speech_log_std"] if adaptable else []
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", "samples"]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name, size in options.items()),
        ],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", len(emotions)]),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in statistics),
        ],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
        + [numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in options.items()]
        + [numpy_helper.from_array(weights.astype(np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    write_labels(folder, folder.name, emotions)
    (folder / "config.toml").write_text(f'name = "{folder.name}"\n', encoding="utf-8")
