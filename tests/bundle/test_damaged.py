"""Damaged and hostile bundles: checksums, and every kind of wrong content of labels.json, config.toml and results.json."""

import json
import os
import shutil
import subprocess

import pytest

from affekt import Recognizer
from affekt.bundle.checksums import read_checksums
from affekt.bundle.folder import ASSETS, MAX_BYTES, Bundle, write_sums
from affekt.bundle.pipeline import rebuild
from affekt.corpora.source import Source
from affekt.errors import BadBundle
from affekt.workflows.evaluate import evaluate
from affekt.workflows.finetune import plan_finetuning
from tests.synthetic import make_folder

SIX = ["angry", "disgust", "fear", "happy", "neutral", "sad"]


def labels(**changes):
    return json.dumps({"schema": 1, "name": "tiny", "emotions": SIX} | changes)


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


@pytest.fixture
def summed(copy):
    """A copy of the bundle with checksums."""
    (copy / "README.md").write_text("the card")
    write_sums(copy)
    return copy


# Checksums


def test_the_checksums_cover_every_file_and_sha256sum_reads_them(summed):
    checksums = read_checksums(summed)
    assert sorted(checksums.files) == ["README.md", "config.toml", "labels.json", "model.onnx"]
    assert Bundle.open(summed).id == f"tiny@{checksums.joined[:8]}"
    Bundle.open(summed).verify()
    if shutil.which("sha256sum"):
        run = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=summed, capture_output=True, text=True, check=True)
        assert run.stdout.count(": OK") == 4


@pytest.mark.parametrize("name", ["config.toml", "labels.json", "model.onnx"])
def test_a_changed_file_that_determines_predictions_is_found_when_the_bundle_is_loaded(summed, name):
    path = summed / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(BadBundle, match=rf"copy: {name} changed since the bundle was made .* copy or make the bundle"):
        Recognizer.load(summed)


@pytest.mark.parametrize("flip", [0, 0.3, 0.6, 0.9, 0.999])
def test_a_single_wrong_byte_of_the_graph_is_found(summed, flip):
    data = bytearray((summed / "model.onnx").read_bytes())
    data[int(flip * len(data))] ^= 1
    (summed / "model.onnx").write_bytes(data)
    with pytest.raises(BadBundle, match=r"model\.onnx changed since the bundle was made"):
        Recognizer.load(summed)


def test_any_changed_or_missing_file_is_found_by_verify(summed):
    (summed / "README.md").write_text("another card")
    Recognizer.load(summed)  # the card does not matter for recognition
    with pytest.raises(BadBundle, match=r"copy: README\.md changed since"):
        Bundle.open(summed).verify()
    (summed / "README.md").unlink()
    with pytest.raises(BadBundle, match=r"README\.md cannot be read: No such file"):
        Bundle.open(summed).verify()


def test_a_bundle_without_checksums_is_accepted(copy):
    Bundle.open(copy).verify()
    Recognizer.load(copy)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"words\n",
        b"# " + b"0" * 64 + b"  model.onnx joined\n" + b"0" * 64 + b"  ../../etc/passwd\n",
        b"# " + b"0" * 64 + b"  model.onnx joined\n" + b"0" * 64 + b"  /etc/passwd\n",
        b"# " + b"0" * 64 + b"  model.onnx joined\n" + b"0" * 63 + b"  model.onnx\n",
        b"# " + b"0" * 64 + b"  model.onnx joined\n" * 2000,
    ],
)
def test_damaged_checksums_are_refused(summed, text):
    (summed / "SHA256SUMS").write_bytes(text)
    with pytest.raises(BadBundle, match=r"SHA256SUMS (is damaged|cannot be read)"):
        Recognizer.load(summed)


def test_checksums_without_the_graph_are_refused(summed):
    path = summed / "SHA256SUMS"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["# " + "0" * 64 + "  model.onnx joined", *lines[1:-1]]) + "\n")
    with pytest.raises(BadBundle, match=r"model\.onnx changed"):
        Recognizer.load(summed)


def test_evaluation_and_training_verify_all_files(tmp_path):
    folder = shutil.copytree(ASSETS / "default", tmp_path / "default")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    clips = [f"calls/{emotion}/{index}.wav" for emotion in ("happy", "sad") for index in range(12)]
    source = Source("folder", str(make_folder(tmp_path, clips) / "calls"))
    with pytest.raises(BadBundle, match=r"model\.safetensors changed since"):
        evaluate(str(folder), source)
    with pytest.raises(BadBundle, match=r"model\.safetensors changed since"):
        plan_finetuning(str(folder), [source], "mine")


# labels.json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (labels(emotions=[*SIX[:5], "angry"]), r"the emotion 'angry' occurs 2 times, expected different names"),
        (labels(emotions=["caf\u00e9", "cafe\u0301"]), r"occurs 2 times"),
        (labels(emotions=SIX[:5]), r"has 6 classes, but labels.json names 5 emotions"),
        (labels(emotions=[*SIX, "calm"]), r"has 6 classes, but labels.json names 7 emotions"),
        (labels(emotions=[]), r"emotions is \[\], expected a list of at least two names"),
        (labels(emotions=["sad"]), r"expected a list of at least two names"),
        (labels(emotions="angry"), r"emotions is 'angry', expected a list"),
        (labels(emotions={"angry": 0, "sad": 1}), r"expected a list"),
        (labels(emotions=None), r"emotions is None"),
        (labels(emotions=[*SIX[:5], 3]), r"3 is not the name of an emotion"),
        (labels(emotions=[*SIX[:5], None]), r"None is not the name of an emotion"),
        (labels(emotions=[*SIX[:5], ""]), r"'' is not the name of an emotion"),
        (labels(emotions=[*SIX[:5], " sad"]), r"' sad' is not the name"),
        (labels(emotions=[*SIX[:5], "sad\n"]), r"'sad\\n' is not the name"),
        (labels(emotions=[*SIX[:5], "\x1b[2J"]), r"is not the name of an emotion"),
        (labels(emotions=[*SIX[:5], "\ud800"]), r"is not the name of an emotion"),
        (labels(emotions=[*SIX[:5], "x" * 1000]), r"x{50}.*\.\.\. is not the name of an emotion"),
        (labels(emotions=[*SIX[:5], ["sad"]]), r"is not the name of an emotion"),
        (labels(name="../../etc"), r"the name '\.\./\.\./etc' is not the plain name of a bundle"),
        (labels(name="a\\b"), r"is not the plain name"),
        (labels(name=".."), r"is not the plain name"),
        (labels(name=""), r"is not the plain name"),
        (labels(name=5), r"the name 5 is not the plain name"),
        (labels(name=None), r"the name None is not the plain name"),
        (labels(name="a\nb"), r"is not the plain name"),
        (labels(schema="1"), r"has schema '1'"),
        (labels(schema=None), r"has schema None"),
        (labels(schema=10**400), r"has schema 1000"),
        ('{"schema": ' + "1" * 5000 + "}", r"is not valid JSON"),
        ("[" * 100_000, r"is not valid JSON"),
        ("", r"is not valid JSON"),
        ("[]", r"has no valid schema, name and emotions"),
        ("null", r"has no valid schema, name and emotions"),
        ('"schema"', r"has no valid schema, name and emotions"),
        ("{}", r"has no valid schema, name and emotions"),
        (" " * (MAX_BYTES["labels.json"] + 1), r"has \d+ bytes, expected at most"),
    ],
)
def test_wrong_labels_are_refused_with_the_reason(copy, text, message):
    (copy / "labels.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(BadBundle, match=message):
        Recognizer.load(copy)


def test_labels_that_are_not_utf8_are_refused(copy):
    (copy / "labels.json").write_bytes(b'{"schema": 1, "name": "\xff"}')
    with pytest.raises(BadBundle, match="is not valid JSON"):
        Bundle.open(copy)


@pytest.mark.parametrize("source", ["a" * 5000, "a\0b", "missing", ""])
def test_a_source_that_cannot_be_a_folder_is_not_a_bundle(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadBundle, match="is not a bundle"):
        Bundle.open(source)


# Links and special files


@pytest.mark.parametrize("name", ["labels.json", "config.toml", "model.onnx"])
@pytest.mark.parametrize("target", ["missing", "loop", "/dev/zero", "folder", "pipe"])
def test_a_link_that_does_not_end_at_a_file_counts_as_missing(copy, name, target):
    path = copy / name
    path.unlink()
    (copy / "folder").mkdir()
    os.mkfifo(copy / "pipe")
    path.symlink_to(name if target == "loop" else target)
    with pytest.raises(BadBundle, match=f"is not a bundle|has no {name}"):
        Recognizer.load(copy)


def test_links_to_files_are_followed_as_in_the_caches_of_model_hubs(copy, tmp_path):
    (tmp_path / "snapshot").mkdir()
    for path in copy.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert Recognizer.load(tmp_path / "snapshot").model == Recognizer.load(copy).model


# config.toml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", r"config\.toml is not TOML"),
        ("name = 'a'\nname = 'b'", r"config\.toml is not TOML"),
        ("x = " + "1" * 5000, r"config\.toml is not TOML"),
        ("x = " + "[" * 100_000, r"config\.toml is not TOML"),
        ("#" * (MAX_BYTES["config.toml"] + 1), r"has \d+ bytes, expected at most"),
        ("name = 3", r"config\.toml: Expected `str`, got `int` - at `\$\.name`"),
        ("members = 0", r"\$\.members"),
        ("members = 1000000000000", r"\$\.members"),
        ("members = 1.5", r"\$\.members"),
        ("members = 99999999999999999999999999", r"\$\.members"),
        ("temperature = 0", r"\$\.temperature"),
        ("temperature = -1.0", r"\$\.temperature"),
        ("temperature = nan", r"\$\.temperature"),
        ("temperature = inf", r"\$\.temperature"),
        ("temperature = 'warm'", r"\$\.temperature"),
        ("features = 3", r"\$\.features"),
        ("features = {speech = 'whisper'}", r"\$\.features"),
        ("model = 'mstr'", r"\$\.model"),
        ("recipe = []", r"\$\.recipe"),
        ("recipe = 3", r"\$\.recipe"),
        ("labels = 'six'", r"\$\.labels"),
        ("labels = {merge = 3}", r"\$\.labels\.merge"),
        ("labels = {merge = {a = 1}}", r"\$\.labels\.merge"),
        ("protocol = 1", r"\$\.protocol"),
        ("protocol = {selection = 3}", r"\$\.protocol\.selection"),
        ("lengths = {speech = 'long'}", r"\$\.lengths"),
        ("start = 'default'", r"\$\.start"),
        (f"weights = '{'x' * 20_000}'", r"\$\.weights"),
    ],
)
def test_a_wrong_configuration_is_refused_with_the_key(copy, text, message):
    (copy / "config.toml").write_text(text)
    with pytest.raises(BadBundle, match=message):
        Recognizer.load(copy)
    with pytest.raises(BadBundle, match=message):
        _ = Bundle.open(copy).config


def test_a_configuration_that_is_not_utf8_is_refused(copy):
    (copy / "config.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(BadBundle, match="is not TOML"):
        Recognizer.load(copy)


@pytest.fixture(scope="module")
def default_copy(tmp_path_factory):
    folder = shutil.copytree(ASSETS / "default", tmp_path_factory.mktemp("copies") / "default")
    (folder / "SHA256SUMS").unlink()
    return folder


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("members = 1\n", "members = 900\n"),
        ("members = 1\n", "members = 2\n"),
        ("members = 1\n", ""),
        ("dim = 256\n", "dim = 1000000000\n"),
        ("dim = 256\n", "dim = 0\n"),
        ("dim = 256\n", "dim = -4\n"),
        ("dim = 256\n", "dim = 9223372036854775807\n"),
        ("heads = 4\n", "heads = 7\n"),
        ("heads = 4\n", "heads = 0\n"),
        ("hidden = [\n    256,\n]", "hidden = [\n    1000000000000,\n]"),
        ('name = "mstr"', 'name = "../mstr"'),
        ('name = "whisper"', 'name = "nothing"'),
        ("dim = 384\n", "dim = 10000000\n"),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused_before_memory_is_used(default_copy, old, new):
    path = default_copy / "config.toml"
    config = path.read_text()
    head, tail = config.split("[recipe]")
    assert old in head
    path.write_text(head.replace(old, new) + "[recipe]" + tail)
    try:
        with pytest.raises(BadBundle, match="do not fit together"):
            rebuild(Bundle.open(default_copy))
    finally:
        path.write_text(config)


@pytest.mark.parametrize("data", [b"", b"words", bytes(100), b"\xff" * 1000, (1 << 62).to_bytes(8, "little") + b"{}"])
def test_damaged_weights_are_refused(default_copy, data):
    path = default_copy / "model.safetensors"
    weights = path.read_bytes()
    path.write_bytes(data)
    try:
        with pytest.raises(BadBundle, match="do not fit together"):
            rebuild(Bundle.open(default_copy))
    finally:
        path.write_bytes(weights)


def test_truncated_weights_are_refused(default_copy):
    path = default_copy / "model.safetensors"
    weights = path.read_bytes()
    path.write_bytes(weights[:-1000])
    try:
        with pytest.raises(BadBundle, match="do not fit together"):
            rebuild(Bundle.open(default_copy))
    finally:
        path.write_bytes(weights)


# results.json


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"scores": 3}',
        '{"data": [3]}',
        '{"data": [{"corpus": "cremad"}]}',
        '{"data": {}}',
        "[" * 100_000,
    ],
)
def test_wrong_results_are_refused(copy, text):
    (copy / "results.json").write_text(text)
    with pytest.raises(BadBundle, match=r"results\.json"):
        _ = Bundle.open(copy).results


def test_a_selection_rule_that_does_not_exist_is_refused(default_copy, tmp_path):
    path = default_copy / "config.toml"
    config = path.read_text()
    path.write_text(config.replace('selection = "last"\nepochs', 'selection = "luck"\nepochs'))
    try:
        with pytest.raises(BadBundle, match="no valid 'luck'"):
            evaluate(str(default_copy), Source("folder", str(tmp_path)))
    finally:
        path.write_text(config)
