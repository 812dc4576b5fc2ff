"""Manifests name audio files in tables, folders and object stores."""

import json
import sys

import pytest

from affekt import BadConfig, BadCorpus, MissingExtra
from affekt.collection.manifest import Clip, locate, open_manifest
from affekt.collection.shards import Columns, Shard, divide
from affekt.tabular.delimited import stream_delimited
from tests.sounds import encode_audio, tone

fsspec = pytest.importorskip("fsspec")
pa = pytest.importorskip("pyarrow")


def read(name, **options):
    with open_manifest(str(name), **options) as manifest:
        return manifest, list(manifest.clips)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def memory():
    """A file system in memory, empty."""
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


# Tables


def test_rows_are_the_same_in_all_formats(tmp_path):
    import pyarrow.parquet

    csv = write(tmp_path / "m.csv", "id,file,start,end,note\n1,a.wav,,,x\n2,b.wav,0.5,1.5,\n")
    rows = [
        {"id": "1", "file": "a.wav", "start": None, "end": None, "note": "x"},
        {"id": "2", "file": "b.wav", "start": 0.5, "end": 1.5, "note": None},
    ]
    lines = write(tmp_path / "m.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    expected = [
        Clip("a.wav", 0.0, None, {"id": "1", "note": "x"}),
        Clip("b.wav", 0.5, 1.5, {"id": "2", "note": None}),
    ]
    for path in (csv, lines, tmp_path / "m.parquet"):
        manifest, clips = read(path)
        assert clips == expected
        assert manifest.base == str(tmp_path)


def test_a_long_table_is_read_in_chunks_with_the_right_line_numbers(tmp_path):
    text = "file,note\n" + "".join(f'{index}.wav,"two\nlines ""{index}"""\n' for index in range(20))
    path = write(tmp_path / "m.csv", text)
    for chunk_lines in (1, 2, 3, 100):
        columns, records = stream_delimited(path, chunk_lines=chunk_lines)
        assert columns == ["file", "note"]
        rows = [(record.position, record.values["file"], record.values["note"]) for record in records]
        assert rows == [(f"line {2 + 2 * n}", f"{n}.wav", f'two\nlines "{n}"') for n in range(20)]
    path = write(tmp_path / "m.csv", text + "20.wav\n")
    _, records = stream_delimited(path, chunk_lines=2)
    with pytest.raises(BadCorpus, match="line 42, has 1 field"):
        list(records)


def test_a_quote_inside_a_field_does_not_divide_a_row(tmp_path):
    path = write(tmp_path / "m.csv", 'file,note\n1.wav,5" pipe\n2.wav,"a\nb"\n3.wav,x\n')
    for chunk_lines in (1, 2, 3, 4):
        _, records = stream_delimited(path, chunk_lines=chunk_lines)
        assert [record.values["note"] for record in records] == ['5" pipe', "a\nb", "x"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n", {}, "no column of audio files .it has: a, b"),
        ("file\na.wav\n", {"columns": {"audio": "fil"}}, "no column 'fil'.*'file'"),
        ("file\na.wav\n", {"columns": {"text": "file"}}, "no field 'text'"),
        ("file,start,end\na.wav,2,1\n", {}, "line 2: end 1 is not after start 2"),
        ("file,start\na.wav,soon\n", {}, "line 2: start 'soon'"),
        ("", {}, "is empty"),
    ],
)
def test_what_cannot_be_read_is_named(text, options, message, tmp_path):
    with pytest.raises((BadCorpus, BadConfig), match=message):
        read(write(tmp_path / "m.csv", text), **options)


def test_columns_can_be_chosen(tmp_path):
    path = write(tmp_path / "m.csv", "file,clip,start\nx,a.wav,1999\n")
    _, clips = read(path, columns={"audio": "clip", "start": ""})
    assert clips == [Clip("a.wav", carried={"file": "x", "start": "1999"})]


def test_a_column_of_bytes_is_no_column_of_files(tmp_path):
    import pyarrow.parquet

    path = tmp_path / "m.parquet"
    pyarrow.parquet.write_table(pa.table({"audio": [b"x"], "n": [1]}), path)
    with pytest.raises(BadCorpus, match="'audio' contains bytes values"):
        read(path)


def test_names_that_do_not_exist_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadCorpus, match=r"m.csv not found"):
        read(tmp_path / "m.csv")
    with pytest.raises(BadCorpus, match="has no audio files"):
        read(tmp_path)
    with pytest.raises(MissingExtra, match="s3fs"):
        read("s3://bucket/m.csv")


# Folders and object stores


def test_the_files_of_a_folder_are_listed(tmp_path):
    for name in ("b.wav", "a.WAV", ".hidden.wav", "x.txt"):
        (tmp_path / name).touch()
    _, clips = read(tmp_path)
    assert [clip.audio for clip in clips] == [str(tmp_path / "a.WAV"), str(tmp_path / "b.wav")]


def test_the_files_below_a_url_are_listed(memory):
    for name in ("b/2.wav", "a/1.wav", "a/.x/3.wav", "a/notes.txt"):
        memory.pipe_file(f"/bucket/{name}", encode_audio(tone()))
    _, clips = read("memory://bucket")
    assert [clip.audio for clip in clips] == ["memory:///bucket/a/1.wav", "memory:///bucket/b/2.wav"]
    with pytest.raises(BadCorpus, match="has no audio files"):
        read("memory://elsewhere")


def test_a_table_in_an_object_store_names_files_beside_it(memory):
    memory.pipe_file("/bucket/m.csv", b"file\na.wav\n/disk/b.wav\ns3://other/c.wav\n")
    manifest, clips = read("memory://bucket/m.csv")
    places = [locate(manifest.base, clip.audio) for clip in clips]
    assert places == ["memory://bucket/a.wav", "/disk/b.wav", "s3://other/c.wav"]
    with pytest.raises(BadCorpus, match="cannot be read"):
        read("memory://bucket/other.csv")


# Shards


def test_a_key_depends_on_every_row_and_setting():
    clips = [Clip("a.wav"), Clip("b.wav", 1.0, 2.0, {"id": 1})]
    key = Shard.make(0, clips, {"model": "m"}).key
    others = [
        Shard.make(0, clips, {"model": "n"}),
        Shard.make(0, clips[::-1], {"model": "m"}),
        Shard.make(0, [clips[0], Clip("b.wav", 1.0, 2.0, {"id": 2})], {"model": "m"}),
        Shard.make(0, [clips[0], Clip("b.wav", 1.0, None, {"id": 1})], {"model": "m"}),
    ]
    assert key not in {shard.key for shard in others}
    assert Shard.make(1, clips, {"model": "m"}).key == key


def test_shards_contain_every_row_once():
    clips = [Clip(f"{index}.wav", carried={"id": index}) for index in range(25)]
    shards = [shard for shard, _ in divide(clips, 10, {})]
    assert [shard.num_rows for shard in shards] == [10, 10, 5]
    assert [clip for shard in shards for clip in shard.clips()] == clips


def test_columns_have_the_narrowest_kind_that_fits_all_values():
    columns = Columns({"known": "text"})
    values = {"i": [1, 2], "f": [1, 2.5], "b": [True, False], "t": ["a", None], "m": [1, "a"], "o": [[1], None]}
    for index in range(2):
        columns.add([Clip("a", carried={name: value[index] for name, value in values.items()} | {"none": None})])
    assert columns.kinds() == {
        "known": "text", "i": "integer", "f": "number", "b": "boolean", "t": "text", "m": "nested", "o": "nested",
        "none": "text",
    }  # fmt: skip
