"""Bundles on disk: damaged ones are refused, and the id covers every file that affects predictions."""

import shutil

import pytest

from affekt import Recognizer
from affekt.bundle.folder import Bundle
from affekt.errors import BadBundle
from tests.conftest import write_tiny_bundle

EMOTIONS = ["angry", "disgust", "fear", "happy", "neutral", "sad"]


def copy_bundle(bundle, tmp_path, **changes):
    folder = shutil.copytree(bundle, tmp_path / "copy")
    for name, content in changes.items():
        path = folder / name.replace("_", ".")
        path.unlink() if content is None else path.write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"labels_json": None},
            r"copy is not a bundle: expected a folder with model.onnx, config.toml and labels.json",
        ),
        ({"labels_json": "{}"}, r"labels.json has no valid schema, name and emotions \(KeyError\('schema'\)\)"),
        ({"labels_json": "words"}, r"labels.json is not valid JSON"),
        (
            {"labels_json": '{"schema": 2, "name": "x", "emotions": []}'},
            r"copy has schema 2; this version of affekt reads",
        ),
        (
            {"labels_json": '{"schema": 1, "name": "x", "emotions": ["sad", "happy"]}'},
            r"has 6 classes, but labels.json names 2",
        ),
        ({"model_onnx": None}, r"copy has no model.onnx; make it again"),
        ({"config_toml": None}, r"copy has no config.toml; make it again"),
        ({"model_onnx": "no graph"}, r"model.onnx cannot be loaded: "),
    ],
)
def test_an_incomplete_or_damaged_bundle_is_refused(tiny_bundle, tmp_path, changes, message):
    with pytest.raises(BadBundle, match=message):
        Recognizer.load(copy_bundle(tiny_bundle, tmp_path, **changes))


def test_a_graph_with_other_inputs_is_refused(tmp_path):
    write_tiny_bundle(tmp_path / "other", EMOTIONS, source="picture")
    with pytest.raises(BadBundle, match=r"model.onnx needs picture, but"):
        Recognizer.load(tmp_path / "other")


def test_the_hash_covers_every_file_that_affects_predictions(tiny_bundle, tmp_path):
    ids = {Bundle.open(tiny_bundle).id}
    ids.add(Bundle.open(copy_bundle(tiny_bundle, tmp_path, config_toml="seed = 2\n")).id)
    write_tiny_bundle(tmp_path / "tiny", EMOTIONS, seed=1)
    ids.add(Bundle.open(tmp_path / "tiny").id)
    write_tiny_bundle(tmp_path / "reversed", EMOTIONS[::-1])
    ids.add("tiny@" + Bundle.open(tmp_path / "reversed").id.split("@")[1])
    assert len(ids) == 4
    copy = tmp_path / "again"
    shutil.copytree(tiny_bundle, copy)
    (copy / "README.md").write_text("not part of the hash")
    assert Bundle.open(copy).id in ids
