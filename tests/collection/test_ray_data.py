"""An actor returns the counts of its shards or an error that names its machine; what it has written is not written again."""

import shutil
from pathlib import Path

import pytest

from affekt import BadOutput, Recognizer
from affekt.collection import ray_data
from affekt.collection.folder import Counts, ResultsFolder
from affekt.collection.manifest import Clip
from affekt.collection.process import Work
from affekt.collection.ray_data import ShardActor, _room
from affekt.collection.shards import Shard
from affekt.workflows import recognize_manifest as module
from affekt.workflows.recognize_manifest import recognize_manifest
from tests.sounds import encode_audio, tone

pa = pytest.importorskip("pyarrow")


@pytest.fixture
def setup(recognizer, tmp_path, monkeypatch):
    """The description of the task for an actor, as `recognize_manifest` makes it."""
    made = []
    monkeypatch.setattr(module, "process", lambda _manifest, _output, work, **_: made.append(work))
    recognize_manifest("m.csv", "out", recognizer=recognizer)
    monkeypatch.undo()
    monkeypatch.setattr(ray_data, "worker_name", lambda: "10.0.0.7 (node7)")
    (tmp_path / "a.wav").write_bytes(encode_audio(tone(0.2)))
    (tmp_path / "out").mkdir()
    return made[0].setup | {"base": str(tmp_path)}


def item(*names, again=False):
    shard = Shard.make(0, [Clip(name) for name in names], {})
    content = {"index": 0, "key": shard.key, "num_rows": shard.num_rows, "content": shard.content, "again": again}
    return shard, pa.Table.from_pylist([content])


def act(setup, folder, items):
    actor = ShardActor(module.ENTRY, setup, str(folder), {})
    with actor._stack:
        return actor(items).to_pylist()[0]


@pytest.mark.slow
def test_a_shard_is_written_once(setup, tmp_path):
    folder = tmp_path / "out"
    shard, items = item("a.wav", "missing.wav")
    first = act(setup, folder, items)
    assert (first["rows"], first["failed"], first["error"]) == (2, 1, "")
    part = Path(ResultsFolder(str(folder)).path(ResultsFolder.part_name(shard)))
    rows = pa.parquet.read_table(part).to_pylist()
    assert rows[1]["error"]["message"].endswith("missing.wav does not exist (on the worker 10.0.0.7 (node7))")
    written = part.stat().st_mtime_ns
    assert act(setup | {"recognizer": {}}, folder, items) == first  # needs no model
    assert part.stat().st_mtime_ns == written
    act(setup, folder, item("a.wav", "missing.wav", again=True)[1])
    assert part.stat().st_mtime_ns > written


def test_errors_that_end_the_run_name_the_machine(setup, recognizer, tmp_path):
    _, items = item("a.wav")
    (tmp_path / "file").touch()
    result = act(setup, tmp_path / "file", items)
    assert result["kind"] == "BadOutput"
    assert "file/part-00000" in result["error"]
    assert result["error"].endswith("Not a directory (on the worker 10.0.0.7 (node7))")
    shutil.copytree(recognizer.bundle.folder, tmp_path / "bundle")
    moved = Recognizer.load(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle")
    described = setup["recognizer"] | {"bundle": str(moved.bundle.folder)}
    result = act(setup | {"recognizer": described}, tmp_path / "out", items)
    assert result["kind"] == "BadBundle"
    assert "bundle is not a bundle" in result["error"]
    assert "(on the worker 10.0.0.7 (node7))" in result["error"]
    (older,) = ShardActor(module.ENTRY, setup, str(tmp_path / "out"), {}, "0.0.1")(items).to_pylist()
    assert older["error"].startswith("this worker has affekt ")
    assert older["error"].endswith("with 0.0.1: install the same version (on the worker 10.0.0.7 (node7))")


def test_a_folder_that_is_not_shared_is_named(recognizer, tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text("file\na.wav\n", encoding="utf-8")
    monkeypatch.setattr(ray_data, "run_on_ray", lambda *_: iter([(0, Counts(1, 0))]))
    with pytest.raises(BadOutput, match=r"1 files, such as part-00000.*, were written but are not in .*/out"):
        recognize_manifest(str(tmp_path / "m.csv"), str(tmp_path / "out"), ray="auto", recognizer=recognizer)


def test_a_cluster_has_room_for_as_many_actors_as_its_cores_and_gpus_allow():
    resources = {"CPU": 10.0, "GPU": 2.0}
    for threads, gpus, room in ((1, 0.0, 10), (4, 0.0, 2), (16, 0.0, 1), (1, 1.0, 2), (1, 0.25, 8), (4, 0.25, 2)):
        assert _room(resources, Work("", "", {}, {}, threads, gpus)) == room
    assert _room({}, Work("", "", {}, {})) == 1
