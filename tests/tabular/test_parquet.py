"""Parquet tables."""

import datetime
import json
import sys

import pytest

from affekt.corpora.source import Source
from affekt.errors import BadCorpus, MissingExtra

NANOSECONDS = 1_500_000_001


@pytest.fixture
def arrow():
    pytest.importorskip("pyarrow.parquet")
    return pytest.importorskip("pyarrow")


def write(arrow, path, columns):
    import pyarrow.parquet

    arrays, names = list(columns.values()), list(columns)
    pyarrow.parquet.write_table(arrow.Table.from_arrays(arrays, names=names), path)
    return Source("table", str(path))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_durations_of_any_unit_are_seconds(arrow, unit, tmp_path):
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    columns = {
        "file": arrow.array(["a.wav", "a.wav"]),
        "start": arrow.array([0, 2 * scale], arrow.duration(unit)),
        "end": arrow.array([2 * scale, None], arrow.duration(unit)),
        "emotion": arrow.array(["happy", "sad"]).dictionary_encode(),
    }
    first, second = write(arrow, tmp_path / "t.parquet", columns).read()
    assert [(u.start, u.end, u.emotion) for u in (first, second)] == [(0.0, 2.0, "happy"), (2.0, None, "sad")]


def test_durations_with_nanoseconds_are_read(arrow, tmp_path):
    columns = {
        "file": arrow.array(["a.wav"]),
        "start": arrow.array([NANOSECONDS], arrow.duration("ns")),
        "emotion": arrow.array(["sad"]),
    }
    assert write(arrow, tmp_path / "t.parquet", columns).read()[0].start == pytest.approx(1.500000001)


def test_columns_that_are_not_needed_are_not_converted(arrow, tmp_path):
    columns = {
        "file": arrow.array(["a.wav"]),
        "emotion": arrow.array(["sad"]),
        "made": arrow.array([NANOSECONDS], arrow.timestamp("ns")),
        "far": arrow.array([2**40], arrow.timestamp("s")),
        "length": arrow.array([NANOSECONDS], arrow.duration("ns")),
        "bytes": arrow.array([b"\xff"]),
        "a.b": arrow.array([[1.0]]),
    }
    assert write(arrow, tmp_path / "t.parquet", columns).read()[0].emotion == "sad"


def test_missing_values_and_timestamps(arrow, tmp_path):
    columns = {
        "file": arrow.array(["a.wav", "b.wav"]),
        "emotion": arrow.array(["sad", "happy"]),
        "speaker": arrow.array([float("nan"), None], arrow.float64()),
        "session": arrow.array([datetime.datetime(2020, 1, 2), None], arrow.timestamp("ns")),
    }
    first, second = write(arrow, tmp_path / "t.parquet", columns).read()
    assert (first.speaker, second.speaker, second.session) == ("", "", "")
    assert first.session.startswith("2020-01-02")


@pytest.mark.parametrize(
    ("emotion", "message"),
    [
        ([None], r"row 1: has no emotion"),
        ([b"sad"], "row 1: column 'emotion' contains bytes"),
        ([["sad"]], "contains a list"),
    ],
)
def test_a_damaged_row_is_named(arrow, emotion, message, tmp_path):
    columns = {"file": arrow.array(["a.wav"]), "emotion": arrow.array(emotion)}
    with pytest.raises(BadCorpus, match=message):
        write(arrow, tmp_path / "t.parquet", columns).read()


def test_repeated_columns_are_refused(arrow, tmp_path):
    import pyarrow.parquet

    arrays = [arrow.array(["a.wav"]), arrow.array(["sad"]), arrow.array(["happy"])]
    table = arrow.Table.from_arrays(arrays, names=["file", "emotion", "emotion"])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(BadCorpus, match="has several columns 'emotion'"):
        Source("table", str(tmp_path / "t.parquet")).read()


def test_a_truncated_file_is_refused(arrow, tmp_path):
    source = write(arrow, tmp_path / "t.parquet", {"file": arrow.array(["a.wav"]), "emotion": arrow.array(["sad"])})
    data = (tmp_path / "t.parquet").read_bytes()
    for content in (data[:-1], data[: len(data) // 2], data[:40] + bytes(60) + data[100:], b""):
        (tmp_path / "t.parquet").write_bytes(content)
        with pytest.raises(BadCorpus, match=r"t\.parquet"):
            source.read()


def test_parquet_without_its_library_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"affekt\[parquet\]"):
        Source("table", str(tmp_path / "t.parquet")).read()


def test_numbers_of_classes_are_their_names(arrow, tmp_path):
    import pyarrow.parquet

    features = {"label": {"names": ["neutral", "sad"], "_type": "ClassLabel"}, "file": {"_type": "Value"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}

    def read(*labels):
        table = arrow.table({"file": [f"{number}.wav" for number in range(len(labels))], "label": list(labels)})
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
        return [u.emotion for u in Source("table", str(tmp_path / "t.parquet")).read()]

    assert read(1, 0) == ["sad", "neutral"]
    assert read(1, 5) == ["sad", "5"]
    with pytest.raises(BadCorpus, match="row 2: has no emotion"):
        read(1, -1)


def test_numbers_that_became_floats_are_whole_numbers(arrow, tmp_path):
    columns = {
        "file": arrow.array(["a.wav", "b.wav"]),
        "speaker": arrow.array([3.0, float("nan")]),
        "label": arrow.array([1.0, 0.0]),
    }
    assert [(u.emotion, u.speaker) for u in write(arrow, tmp_path / "t.parquet", columns).read()] == [
        ("1", "3"),
        ("0", ""),
    ]


def test_an_unread_column_of_audio_files_in_any_type_of_text_is_an_error(arrow, tmp_path):
    columns = {
        "clip": arrow.array(["a.wav"], arrow.string_view()),
        "text": arrow.array(["Yes."]),
        "emotion": arrow.array(["sad"]),
    }
    with pytest.raises(BadCorpus, match="column 'clip' contains audio files"):
        write(arrow, tmp_path / "t.parquet", columns).read()
