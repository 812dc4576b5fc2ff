"""A manifest is recognized shard by shard: every row once, whatever fails, and a run continues where it stopped."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from affekt import BadBundle, BadConfig, BadCorpus, BadOutput, Recognizer, recognize_files
from affekt.cli.manifest_options import ManifestOptions
from affekt.collection.folder import ResultsFolder
from affekt.inference.results_file import _read_parquet
from affekt.inference.row import Row
from affekt.inference.worker import recognize_segments
from affekt.workflows.recognize_manifest import RecognitionWorker, recognize_manifest
from tests.cli.test_cli import affekt
from tests.collection.test_manifest import memory  # noqa: F401
from tests.conftest import write_tiny_bundle
from tests.sounds import babble, encode_audio, noise, tone

pytestmark = pytest.mark.slow  # starts worker processes

pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")
dataset = pytest.importorskip("pyarrow.dataset")


@pytest.fixture
def clips(tmp_path):
    """Return a folder with clips: ordinary ones, a long one, a silent one, and one that is no audio."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed, name in enumerate("abc"):
        (folder / f"{name}.wav").write_bytes(encode_audio(noise(4000, seed=seed)))
    (folder / "d-long.wav").write_bytes(encode_audio(babble(20 * 16_000)))
    (folder / "e.wav").write_bytes(b"no audio")
    (folder / "f.wav").write_bytes(encode_audio(np.zeros(4000)))
    return folder


def manifest_of(folder, names, path=None):
    path = path or folder / "manifest.csv"
    rows = "".join(f"{name},{index}\n" for index, name in enumerate(names))
    path.write_text("file,id\n" + rows, encoding="utf-8")
    return str(path)


def table(output):
    return dataset.dataset(output, format="parquet").to_table().to_pylist()


def test_rows_are_those_of_recognize_files(recognizer, clips, tmp_path):
    names = ["d-long.wav", "a.wav", "e.wav", "f.wav", "b.wav", "a.wav", "missing.wav", ""]
    for jobs in (1, 2):
        output = tmp_path / f"results-{jobs}"
        summary = recognize_manifest(
            manifest_of(clips, names), str(output), recognizer=recognizer, shard_rows=3, jobs=jobs
        )
        assert (summary.rows, summary.failed, summary.resumed) == (8, 3, 0)
        rows = table(output)
        assert [row["file"] for row in rows] == names
        assert [row["id"] for row in rows] == [str(index) for index in range(8)]
        by_name = {Path(row.file).name: row for row in recognize_files([clips], recognizer=recognizer)}
        for row in map(Row.read, rows[:6]):
            expected = by_name[row.file]
            assert row == Row({**expected, "file": row.file}) | (
                {"windows": [{**window, "file": row.file} for window in expected.windows]} if expected.windows else {}
            )
        assert [row["error"]["code"] for row in rows if row["error"]] == ["not_audio", "missing", "missing"]
    assert len(table(tmp_path / "results-2")[0]["windows"]) > 1


def test_all_parts_have_one_schema(recognizer, clips, tmp_path):
    manifest = manifest_of(clips, ["e.wav", "a.wav", "d-long.wav"])
    recognize_manifest(manifest, str(tmp_path / "out"), recognizer=recognizer, shard_rows=1, jobs=1)
    schemas = [
        pyarrow.parquet.read_schema(path).remove_metadata() for path in sorted((tmp_path / "out").glob("*.parquet"))
    ]
    assert len(schemas) == 3
    assert schemas[0] == schemas[1] == schemas[2]
    assert not any(pyarrow.types.is_null(field.type) for field in schemas[0])
    assert _read_parquet(next((tmp_path / "out").glob("part-00001*")))[0].file == "a.wav"


def test_segments_are_recognized_with_their_times(recognizer, clips, tmp_path):
    path = clips / "segments.csv"
    path.write_text("file,start,end\nd-long.wav,2,4\nd-long.wav,3,15\na.wav,9,\na.wav,,\n", encoding="utf-8")
    recognize_manifest(str(path), str(tmp_path / "out"), recognizer=recognizer, jobs=1)
    two, twelve, late, whole = map(Row.read, table(tmp_path / "out"))
    assert (two.start, two.end, two.duration, two.status) == (2, 4, 2, "ok")
    waveform = babble(20 * 16_000)
    expected = recognizer((np.round(waveform[2 * 16_000 : 4 * 16_000] * 32768).astype(np.int16), 16_000))
    assert two.probabilities == pytest.approx(expected.probabilities, abs=0.02)
    assert (twelve.windows[0].start, twelve.windows[-1].end, twelve.end) == (3, 15, 15)
    assert (late.error["code"], late.start, late.end, late.duration) == ("too_short", 9, 9, 0)
    assert "a.wav ends before" in late.error["message"]
    assert whole.duration == 0.25


def test_names_of_results_are_not_overwritten(recognizer, clips, tmp_path):
    path = clips / "m.jsonl"
    rows = [{"audio": "a.wav", "status": "new", "n": 1}, {"audio": "b.wav", "n": 2.5, "tags": ["x"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recognize_manifest(str(path), str(tmp_path / "out"), recognizer=recognizer, jobs=1)
    first, second = table(tmp_path / "out")
    assert (first["status"], first["manifest_status"], first["n"], first["tags"]) == ("ok", "new", 1.0, None)
    assert (second["manifest_status"], second["n"], second["tags"]) == (None, 2.5, '["x"]')


# Resuming


def test_a_stopped_run_continues_with_the_unfinished_shards(recognizer, clips, tmp_path, monkeypatch):
    manifest, output = manifest_of(clips, ["a.wav", "b.wav", "c.wav"] * 2), tmp_path / "out"
    tables = RecognitionWorker.tables

    def stop_in_third(worker, rows, on_clip):
        if rows[0].carried["id"] == "4":
            raise KeyboardInterrupt
        return tables(worker, rows, on_clip)

    monkeypatch.setattr(RecognitionWorker, "tables", stop_in_third)
    with pytest.raises(KeyboardInterrupt):
        recognize_manifest(manifest, str(output), recognizer=recognizer, shard_rows=2, jobs=1)
    monkeypatch.undo()
    assert len(list(output.iterdir())) == 3  # two parts and the settings; nothing unfinished
    calls = []
    summary = recognize_manifest(
        manifest, str(output), recognizer=recognizer, shard_rows=2, jobs=1, progress=lambda *call: calls.append(call)
    )
    assert (summary.rows, summary.resumed) == (6, 4)
    assert calls == [("recognizing", 4, 6), ("recognizing", 5, 6), ("recognizing", 6, 6)]
    assert [row["id"] for row in table(output)] == [str(index) for index in range(6)]
    assert json.loads((output / "_affekt.json").read_text("utf-8"))["rows"] == 6


def test_rows_can_be_appended_but_not_changed(recognizer, clips, tmp_path):
    output = tmp_path / "out"
    manifest = manifest_of(clips, ["a.wav", "b.wav", "c.wav"])
    recognize_manifest(manifest, str(output), recognizer=recognizer, shard_rows=2, jobs=1)
    (first_rows,) = output.glob("part-00001*")
    content = first_rows.read_bytes()
    manifest_of(clips, ["a.wav", "b.wav", "c.wav", "f.wav", "a.wav"])
    for resumed in (2, 5):
        summary = recognize_manifest(manifest, str(output), recognizer=recognizer, shard_rows=2, jobs=1)
        assert (summary.rows, summary.resumed) == (5, resumed)
        assert [row["file"] for row in table(output)] == ["a.wav", "b.wav", "c.wav", "f.wav", "a.wav"]
        first_rows.write_bytes(content)  # as if the run had died before it deleted the file
    first_rows.unlink()
    for names, message in (
        (["a.wav", "c.wav", "c.wav", "f.wav", "a.wav"], "part-00000.* contains results of rows that have since"),
        (["a.wav", "b.wav"], "part-00001.* of rows that .* no longer has"),
    ):
        manifest_of(clips, names)
        with pytest.raises(BadOutput, match=message):
            recognize_manifest(manifest, str(output), recognizer=recognizer, shard_rows=2, jobs=1)
    assert len(table(output)) == 5


def test_failed_files_are_tried_again_on_request(recognizer, clips, tmp_path):
    manifest, output = manifest_of(clips, ["a.wav", "late.wav", "b.wav"]), str(tmp_path / "out")
    options = {"recognizer": recognizer, "shard_rows": 2, "jobs": 1}
    assert recognize_manifest(manifest, output, **options).failed == 1
    (clips / "late.wav").write_bytes(encode_audio(tone()))
    assert recognize_manifest(manifest, output, **options).failed == 1
    summary = recognize_manifest(manifest, output, retry_failed=True, **options)
    assert (summary.failed, summary.resumed) == (0, 1)
    assert [row["status"] for row in table(output)] == ["ok", "ok", "ok"]


def test_results_of_another_model_or_with_other_settings_are_refused(recognizer, clips, tmp_path):
    manifest, output = manifest_of(clips, ["a.wav"]), str(tmp_path / "out")
    recognize_manifest(manifest, output, recognizer=recognizer, jobs=1)
    write_tiny_bundle(tmp_path / "other", ("angry", "happy"), seed=1)
    other = Recognizer.load(tmp_path / "other")
    for options, message in (
        ({"recognizer": other}, "model = .tiny@.* but this run has .other@"),
        ({"recognizer": recognizer, "shard_rows": 5}, "shard_rows = 1000, but this run has 5"),
        ({"recognizer": recognizer, "lenient": True}, "lenient = false, but this run has true"),
    ):
        with pytest.raises(BadOutput, match=message):
            recognize_manifest(manifest, output, jobs=1, **options)
    manifest_of(clips, ["a.wav"])
    (clips / "manifest.csv").write_text("file,name\na.wav,x\n", encoding="utf-8")
    with pytest.raises(BadOutput, match="part-00000"):
        recognize_manifest(manifest, output, recognizer=recognizer, jobs=1)


def test_a_folder_with_other_files_and_a_locked_one_are_refused(recognizer, clips, tmp_path):
    manifest = manifest_of(clips, ["a.wav"])
    with pytest.raises(BadOutput, match=r"contains other files, such as a\.wav"):
        recognize_manifest(manifest, str(clips), recognizer=recognizer, jobs=1)
    with pytest.raises(BadOutput, match="is a file: expected a folder"):
        recognize_manifest(manifest, manifest, recognizer=recognizer, jobs=1)
    folder = ResultsFolder(str(tmp_path / "out"))
    with folder.open({}), pytest.raises(BadOutput, match="being written by another run"):
        recognize_manifest(manifest, str(tmp_path / "out"), recognizer=recognizer, jobs=1)
    with pytest.raises(BadConfig, match="shard_rows = 0"):
        recognize_manifest(manifest, str(tmp_path / "new"), recognizer=recognizer, shard_rows=0)
    (clips / "empty.csv").write_text("text\n", encoding="utf-8")
    with pytest.raises(BadCorpus, match="no column of audio files"):
        recognize_manifest(str(clips / "empty.csv"), str(tmp_path / "new"), recognizer=recognizer)
    assert not (tmp_path / "new").exists()
    (clips / "empty.csv").write_text("file\n", encoding="utf-8")
    with pytest.raises(BadConfig, match="has no rows"):
        recognize_manifest(str(clips / "empty.csv"), str(tmp_path / "new"), recognizer=recognizer)


# Crashes, object stores, the command


def test_a_file_with_which_workers_die_is_a_row(recognizer, clips, tmp_path, monkeypatch):
    monkeypatch.setattr("affekt.inference.worker_pool.ENTRY", "tests.inference.dying_worker:work")
    for name in ("dies.wav", "once.wav"):
        (clips / name).write_bytes(encode_audio(tone(0.2)))
    manifest = manifest_of(clips, ["a.wav", "dies.wav", "once.wav", "dies.wav", "b.wav"])
    summary = recognize_manifest(manifest, str(tmp_path / "out"), recognizer=recognizer, shard_rows=3, jobs=1)
    assert (summary.rows, summary.failed) == (5, 2)
    rows = table(tmp_path / "out")
    assert [row["status"] for row in rows] == ["ok", "error", "ok", "error", "ok"]
    assert {row["error"]["code"] for row in rows if row["error"]} == {"crashed"}


def test_a_worker_with_another_model_ends_the_run(recognizer, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(recognizer, "model", "tiny@00000000")
    with pytest.raises(BadBundle, match=r"is tiny@.*, but expected tiny@00000000"):
        recognize_manifest(manifest_of(clips, ["a.wav"]), str(tmp_path / "out"), recognizer=recognizer, jobs=1)


def test_results_are_written_to_an_object_store(recognizer, clips, memory):  # noqa: F811
    manifest = manifest_of(clips, ["a.wav", "b.wav", "e.wav"])
    output = "memory://bucket/results"
    options = {"recognizer": recognizer, "shard_rows": 2, "jobs": 1}
    assert recognize_manifest(manifest, output, **options).failed == 1
    assert recognize_manifest(manifest, output, **options).resumed == 3
    files = []
    for path in sorted(memory.glob("/bucket/results/*.parquet")):
        with memory.open(path) as stream:
            files += pyarrow.parquet.read_table(stream)["file"].to_pylist()
    assert files == ["a.wav", "b.wav", "e.wav"]


def test_audio_is_read_from_an_object_store(recognizer, clips, memory, monkeypatch):  # noqa: F811
    monkeypatch.setitem(sys.modules, "s3fs", None)
    content = (clips / "d-long.wav").read_bytes()
    memory.pipe_file("/bucket/d-long.wav", content)
    row = recognizer.row("memory://bucket/d-long.wav")
    assert row == recognizer.row(clips / "d-long.wav") | {"file": row.file, "windows": row.windows}
    segments = [(2.0, 4.0), (30.0, None)]
    rows = recognize_segments(recognizer, path="memory://bucket/d-long.wav", segments=segments)
    local = recognize_segments(recognizer, path=str(clips / "d-long.wav"), segments=segments)
    assert rows[0] == local[0] | {"file": row.file}
    assert (rows[1].error["code"], rows[1].error["message"][:26]) == ("too_short", "memory://bucket/d-long.wav")
    codes = {
        url: recognizer.row(url).error["code"] for url in ("memory://bucket/no.wav", "s3://b/a.wav", "nothing://b/a")
    }
    assert list(codes.values()) == ["missing", "missing_extra", "unreadable"]


def test_the_command(clips, tiny_bundle, tmp_path):
    manifest = manifest_of(clips, ["a.wav", "b.wav"])
    arguments = ("recognize", "--manifest", manifest, "--output", "out", "--model", tiny_bundle, "--jobs", 1)
    run = affekt(*arguments, folder=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "out: 2 rows, 0 failed\n")
    assert [row["status"] for row in table(tmp_path / "out")] == ["ok", "ok"]


def given(options, inputs, output):
    """Return the arguments of options that are used."""
    return options.are_used(inputs, output, {"--json": False}) and options.arguments()


@pytest.mark.parametrize(
    ("options", "inputs", "output", "message"),
    [
        ({"manifest": None, "ray": "auto"}, ["x.wav"], None, "--ray is an option for large collections"),
        ({"manifest": None}, None, None, "nothing to recognize"),
        ({}, ["x.wav"], "out", r"leave out x\.wav"),
        ({}, None, None, "needs --output FOLDER"),
        ({"columns": ["audio"]}, None, "out", "'audio': expected KEY=VALUE"),
    ],
)
def test_options_that_contradict_one_another_are_refused(options, inputs, output, message):
    defaults = {
        "manifest": "m.csv",
        "ray": None,
        "shard_rows": None,
        "columns": None,
        "delimiter": "",
        "retry_failed": False,
    }
    with pytest.raises(BadConfig, match=message):
        given(ManifestOptions(**defaults | options), inputs, output)
    with pytest.raises(BadConfig, match="--json cannot be used with --manifest"):
        ManifestOptions(**defaults).are_used(None, "out", {"--json": True})
