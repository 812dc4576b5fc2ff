"""The graph of a bundle: a damaged or hostile model.onnx is refused when it is loaded, or when it is run."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from affekt import Recognizer
from affekt.bundle.folder import Bundle, write_labels
from affekt.errors import BadBundle
from affekt.inference import graph_file
from affekt.inference.onnx import Graph
from tests.sounds import noise

EMOTIONS = ("happy", "sad")
SUM = [("ReduceSum", ["waveform", "axis"], "sum"), ("Concat", ["sum", "sum"], "both")]
UNIFORM = [*SUM, ("Softmax", ["both"], "probabilities")]


def write_bundle(folder, nodes=UNIFORM, *, inputs=None, outputs=None, constants=None, emotions=EMOTIONS):
    """Write a bundle with a graph of these nodes (operator, inputs, output)."""
    folder.mkdir(exist_ok=True)
    attributes = {
        "Concat": {"axis": 1},
        "Softmax": {"axis": 1},
        "ReduceSum": {"keepdims": 1},
        "Cast": {"to": TensorProto.DOUBLE},
    }
    constants = {"axis": np.array([1], np.int64)} | (constants or {})
    graph = helper.make_graph(
        [helper.make_node(kind, names, [output], **attributes.get(kind, {})) for kind, names, output in nodes],
        "tiny",
        inputs or [value("waveform", "batch", "samples")],
        outputs or [value("probabilities", "batch", len(emotions))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    write_labels(folder, "tiny", emotions)
    (folder / "config.toml").write_text('name = "tiny"\n')
    return folder


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def constant(*values):
    """Return nodes and constants of a graph that gives the same values for any input."""
    return [*SUM, ("Mul", ["both", "zero"], "zeros"), ("Add", ["zeros", "values"], "probabilities")], {
        "zero": np.array([0], np.float32),
        "values": np.array([values], np.float32),
    }


def test_a_valid_graph_is_loaded_and_run(tmp_path):
    row = Recognizer.load(write_bundle(tmp_path))(noise(16_000), 16_000)
    assert row.probabilities == {"happy": 0.5, "sad": 0.5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((np.nan, np.nan), r"returns NaN or infinite values; expected probabilities"),
        ((0.5, np.nan), r"returns NaN or infinite values"),
        ((np.inf, 0), r"returns NaN or infinite values"),
        ((-np.inf, 1), r"returns NaN or infinite values"),
        ((3.0, -2.0), r"returns values that are negative or do not sum to 1"),
        ((5.0, 2.0), r"do not sum to 1"),
        ((0.0, 0.0), r"do not sum to 1"),
    ],
)
def test_a_graph_whose_outputs_are_not_probabilities_is_refused_when_loaded(tmp_path, values, message):
    nodes, constants = constant(*values)
    with pytest.raises(BadBundle, match=message):
        Recognizer.load(write_bundle(tmp_path, nodes, constants=constants))


def test_a_graph_that_gives_nan_for_some_inputs_gives_rows_with_an_error(tmp_path):
    """The square root of a sum of samples: NaN if it is negative."""
    nodes = [*SUM[:1], ("Sqrt", ["sum"], "root"), ("Concat", ["root", "root"], "both"), UNIFORM[-1]]
    recognizer = Recognizer.load(write_bundle(tmp_path, nodes))
    good, bad = np.abs(noise(16_000)), -np.abs(noise(16_000))
    rows = list(recognizer.rows([(good, 16_000), (bad, 16_000)]))
    assert [row.status for row in rows] == ["ok", "error"]
    assert rows[1].error["code"] == "bad_bundle"
    assert "NaN or infinite" in rows[1].error["message"]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((), r"its input waveform is a tensor\(float\) with 0 axes; expected a tensor\(float\) with 2"),
        (("samples",), r"its input waveform is a tensor\(float\) with 1 axes"),
        (("batch", "channels", "samples"), r"its input waveform is a tensor\(float\) with 3 axes"),
        (("batch", 1600), r"its input waveform has the fixed length 1600; expected any"),
        (("batch", 16000), r"its input waveform has the fixed length 16000"),
    ],
)
def test_an_input_of_the_wrong_rank_or_of_fixed_length_is_refused(tmp_path, shape, message):
    nodes = [("Identity", ["waveform"], "probabilities")]
    with pytest.raises(BadBundle, match=message):
        Recognizer.load(write_bundle(tmp_path, nodes, inputs=[value("waveform", *shape)]))


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.STRING])
def test_an_input_of_the_wrong_type_is_refused(tmp_path, kind):
    nodes = [("Identity", ["waveform"], "probabilities")]
    inputs = [value("waveform", "batch", "samples", kind=kind)]
    outputs = [value("probabilities", "batch", 2, kind=kind)]
    with pytest.raises(
        BadBundle, match=r"its input waveform is a tensor\(\w+\) with 2 axes; expected a tensor\(float\)"
    ):
        Recognizer.load(write_bundle(tmp_path, nodes, inputs=inputs, outputs=outputs))


def test_an_output_of_the_wrong_type_is_refused(tmp_path):
    nodes = [*UNIFORM[:-1], ("Softmax", ["both"], "single"), ("Cast", ["single"], "probabilities")]
    with pytest.raises(BadBundle, match=r"its output is a tensor\(double\) with 2 axes"):
        Recognizer.load(
            write_bundle(tmp_path, nodes, outputs=[value("probabilities", "batch", 2, kind=TensorProto.DOUBLE)])
        )


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([*UNIFORM[:-1], ("Softmax", ["both"], "scores")], [value("scores", "batch", 2)]),
        (UNIFORM, [value("probabilities", "batch", 2), value("sum", "batch", 1)]),
    ],
)
def test_other_outputs_are_refused(tmp_path, nodes, outputs):
    with pytest.raises(BadBundle, match=r"has the outputs .*; expected probabilities"):
        Recognizer.load(write_bundle(tmp_path, nodes, outputs=outputs))


def test_other_inputs_are_refused(tmp_path):
    nodes = [("ReduceSum", ["sound", "axis"], "sum"), *UNIFORM[1:]]
    with pytest.raises(BadBundle, match=r"model\.onnx needs sound, but recognition provides only waveform"):
        Recognizer.load(write_bundle(tmp_path, nodes, inputs=[value("sound", "batch", "samples")]))


@pytest.mark.parametrize("shape", [("batch",), ("batch", "frames", 2), ()])
def test_an_output_that_is_declared_with_the_wrong_rank_is_refused(tmp_path, shape):
    with pytest.raises(BadBundle, match=r"model\.onnx"):
        Recognizer.load(write_bundle(tmp_path, outputs=[value("probabilities", *shape)]))


@pytest.mark.parametrize("emotions", [("a", "b", "c"), ("a", "b", "c", "d", "e", "f", "g")])
def test_labels_that_do_not_match_the_width_of_the_outputs_are_refused(tmp_path, emotions):
    folder = write_bundle(tmp_path)
    write_labels(folder, "tiny", emotions)
    with pytest.raises(BadBundle, match=rf"has 2 classes, but labels.json names {len(emotions)} emotions"):
        Recognizer.load(folder)


def test_a_width_that_the_graph_does_not_declare_is_found_by_running_it(tmp_path):
    folder = write_bundle(tmp_path, outputs=[value("probabilities", "batch", "classes")])
    write_labels(folder, "tiny", ("a", "b", "c"))
    with pytest.raises(BadBundle, match=r"has 2 classes|returns an output of shape \(1, 2\) for 3 emotions"):
        Recognizer.load(folder)


def test_a_graph_that_cannot_be_run_is_refused_when_loaded(tmp_path, capfd):
    """A reshape to a fixed number of samples fails for the known input."""
    nodes = [("Reshape", ["waveform", "shape"], "fixed"), ("ReduceSum", ["fixed", "axis"], "sum"), *UNIFORM[1:]]
    folder = write_bundle(tmp_path, nodes, constants={"shape": np.array([1, 777], np.int64)})
    with pytest.raises(BadBundle, match=r"model\.onnx cannot be run: .*Reshape"):
        Recognizer.load(folder)
    assert capfd.readouterr() == ("", "")  # no noise of onnxruntime


def test_a_graph_that_needs_more_memory_than_exists_is_refused(tmp_path):
    """The input is expanded to 10**15 values."""
    nodes = [
        ("Expand", ["sum", "shape"], "huge"),
        ("ReduceSum", ["huge", "axis"], "total"),
        ("Concat", ["total", "total"], "both"),
    ]
    nodes = [SUM[0], *nodes, UNIFORM[-1]]
    folder = write_bundle(tmp_path, nodes, constants={"shape": np.array([1, 10**15], np.int64)})
    with pytest.raises(BadBundle, match=r"model\.onnx cannot be (run|loaded)"):
        Recognizer.load(folder)


# The file


def save_external(folder, location):
    """Save a bundle's graph again with the data of its tensors in another file."""
    model = onnx.load(folder / "model.onnx")
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
        convert_attribute=True,
    )
    data = (folder / "model.onnx").read_bytes()
    assert b"weights.bin" in data
    assert len(location) == len("weights.bin")
    (folder / "model.onnx").write_bytes(data.replace(b"weights.bin", location))


@pytest.mark.parametrize("location", [b"weights.bin", b"/etc/passwd", b"../../a.bin"])
def test_external_data_are_refused(tmp_path, location):
    save_external(write_bundle(tmp_path), location)
    with pytest.raises(BadBundle, match=r"has tensors in other files \(external data\), which a bundle must not have"):
        Recognizer.load(tmp_path)


def test_external_data_of_a_constant_node_are_refused(tmp_path):
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "values")
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    folder = write_bundle(tmp_path)
    model = onnx.load(folder / "model.onnx")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=tensor))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadBundle, match="external data"):
        Recognizer.load(folder)


def test_the_word_location_among_the_weights_is_no_external_data(tmp_path):
    nodes, constants = constant(0.5, 0.5)
    constants["unused"] = np.frombuffer(b"\n\x08location..", np.uint8)
    Recognizer.load(write_bundle(tmp_path, nodes, constants=constants))


@pytest.mark.parametrize("fraction", [0, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999])
def test_a_truncated_graph_is_refused(tiny_bundle, tmp_path, fraction):
    write_labels(tmp_path, "tiny", Bundle.open(tiny_bundle).emotions)
    (tmp_path / "config.toml").write_text("")
    data = (tiny_bundle / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(BadBundle, match=r"model\.onnx (is empty|cannot be loaded|has the outputs)"):
        Recognizer.load(tmp_path)


@pytest.mark.parametrize("name", [b"samples", b"waveform", b"probabilities", b"MatMul", b"batch"])
def test_a_name_that_is_not_utf8_is_refused_without_output(tiny_bundle, tmp_path, name, capfd):
    write_labels(tmp_path, "tiny", Bundle.open(tiny_bundle).emotions)
    (tmp_path / "config.toml").write_text("")
    data = (tiny_bundle / "model.onnx").read_bytes()
    assert name in data
    (tmp_path / "model.onnx").write_bytes(data.replace(name, b"\xff" + name[1:]))
    with pytest.raises(BadBundle, match=r"model\.onnx cannot be loaded"):
        Recognizer.load(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_random_damage_gives_bad_bundle_or_a_model_that_runs(tiny_bundle, tmp_path):
    """Without checksums, as in bundles of earlier versions; with them every change is found."""
    write_labels(tmp_path, "tiny", Bundle.open(tiny_bundle).emotions)
    (tmp_path / "config.toml").write_text("")
    original = (tiny_bundle / "model.onnx").read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(original)
        for position in generator.integers(len(data), size=generator.integers(1, 6)):
            data[position] = generator.integers(256)
        (tmp_path / "model.onnx").write_bytes(data)
        try:
            row = Recognizer.load(tmp_path)(noise(16_000), 16_000)
            assert sum(row.probabilities.values()) == pytest.approx(1, abs=0.02)
        except BadBundle:
            refused += 1
    assert refused > 50


def test_a_graph_beyond_the_limit_of_protobuf_is_refused(tmp_path):
    folder = write_bundle(tmp_path)
    with (folder / "model.onnx").open("r+b") as stream:
        stream.truncate(1 << 31)  # a sparse file
    with pytest.raises(BadBundle, match=r"has 2147483648 bytes; an ONNX file can have at most 2147483647"):
        graph_file.check_graph_file(folder / "model.onnx")


def test_a_graph_larger_than_the_available_memory_is_refused(tmp_path, monkeypatch):
    folder = write_bundle(tmp_path)
    monkeypatch.setattr(graph_file, "available_memory", lambda: 100)
    with pytest.raises(BadBundle, match=r"needs at least \d+ MB of memory, but only 0 MB are available: close other"):
        Recognizer.load(folder)


def test_the_available_memory_is_read_where_the_system_tells_it(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_file, "MEMORY_INFO", tmp_path / "meminfo")
    assert graph_file.available_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:       8000 kB\nMemAvailable:    2000 kB\n")
    assert graph_file.available_memory() == 2_048_000
    (tmp_path / "meminfo").write_text("nothing")
    assert graph_file.available_memory() is None


def test_text_streams_are_run_with_a_mask(tmp_path):
    inputs = [value("text", "batch", "frames", 8), value("text_mask", "batch", "frames", kind=TensorProto.BOOL)]
    nodes = [
        ("ReduceMean", ["text"], "mean"),
        ("Where", ["text_mask", "one", "zero"], "weights"),
        ("ReduceSum", ["weights", "axis"], "count"),
        ("Concat", ["count", "count"], "both"),
        UNIFORM[-1],
    ]
    constants = {"one": np.array(1, np.float32), "zero": np.array(0, np.float32)}
    graph = Graph.load(Bundle.open(write_bundle(tmp_path, nodes, inputs=inputs, constants=constants)))
    assert graph.inputs == ("text", "text_mask")
    wrong = [inputs[0], value("text_mask", "batch", "frames")]
    with pytest.raises(
        BadBundle, match=re.escape("its input text_mask is a tensor(float) with 2 axes; expected a tensor(bool)")
    ):
        Graph.load(
            Bundle.open(
                write_bundle(
                    tmp_path,
                    [nodes[0], ("ReduceSum", ["text_mask", "axis"], "count"), *nodes[3:]],
                    inputs=wrong,
                    constants=constants,
                )
            )
        )
