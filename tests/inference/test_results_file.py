"""Results files: rows are read back unchanged, an interrupted run resumes, and foreign files are refused."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from affekt import Recognizer, Row
from affekt.errors import BadOutput, MissingExtra
from affekt.inference.csv_rows import MAX_CELL, windows_path
from affekt.inference.results_file import ResultsFile
from tests.sounds import encode_audio, noise, tone

MODEL = "tiny@01234567"
SUFFIXES = (".jsonl", ".csv", ".parquet")
ODD_NAMES = [
    "a,b.wav",
    'she said "no".wav',
    "two\nlines.wav",
    "carriage\rreturn.wav",
    "=SUM(A1:A9).wav",
    "-1.wav",
    " spaces around ",
    "grüß dich 日本 🎙.wav",
    "tab\there.wav",
    "'quoted'.wav",
    "null",
    "1.0",
    "\u2028.wav",
]


def row(file, status="ok", **changes):
    """Return a row with this status and all fields of the contract."""
    probabilities = {"angry": 0.1, "happy": 0.123457, "sad": 0.776543}
    fields = {
        "schema": 1,
        "file": file,
        "start": 0.0,
        "end": 2.5001,
        "duration": 2.5001,
        "status": status,
        "emotion": "sad" if status == "ok" else None,
        "probabilities": probabilities if status == "ok" else None,
        "model": MODEL,
        "error": {"code": "empty", "message": f"{file} is empty"} if status == "error" else None,
    }
    return Row(fields | changes)


def long_row(file, statuses=("ok", "silence", "ok", "ok")):
    windows = [row(file, status, start=10.0 * i, end=10.0 * i + 10) for i, status in enumerate(statuses)]
    return row(file, "ok" if "ok" in statuses else "silence", aggregation="mean", windows=windows)


def write(path, rows, model=MODEL):
    with ResultsFile(path, model) as results:
        for entry in rows:
            results.append(entry)


def read(path, model=MODEL):
    with ResultsFile(path, model) as results:
        return list(results.done.values())


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    if request.param == ".parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"results{request.param}"


# Round trip


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([], id="nothing"),
        pytest.param([row("a.wav")], id="one"),
        pytest.param([row("a.wav", "error")], id="only errors"),
        pytest.param([row("a.wav", "silence")], id="only silence"),
        pytest.param([row("a.wav", "error"), row("b.wav"), row("c.wav", "silence"), row("d.wav")], id="some of each"),
        pytest.param([row("a.wav", "error"), long_row("b.wav"), row("c.wav")], id="windows"),
        pytest.param([long_row("b.wav", ("silence", "silence"))], id="silent windows"),
        pytest.param(
            [
                row("a.wav"),
                row("b.wav", truncated=True, seconds_lost=0.125),
                row("c.wav", truncated=True, seconds_lost=None, channels="channel 1 of 2 is used for 2.0 s"),
                row("d.wav", "silence", channels="channel 2 of 2 is used for 1.0 s"),
            ],
            id="notes",
        ),
        pytest.param(
            [row(name) for name in ODD_NAMES] + [row(name + "!", "error") for name in ODD_NAMES], id="odd names"
        ),
    ],
)
def test_rows_are_read_back_unchanged(path, rows):
    write(path, rows)
    stored = read(path)
    assert stored == rows
    assert [list(entry) for entry in stored] == [list(entry) for entry in rows]
    assert all(isinstance(window, Row) for entry in stored for window in entry.windows)
    windows = [windows_path(path)] if path.suffix == ".csv" and any(entry.windows for entry in rows) else []
    assert sorted(path.parent.iterdir()) == sorted([path, *windows])


def test_rows_of_a_recognizer_are_read_back_unchanged(path, tiny_bundle):
    recognizer = Recognizer.load(tiny_bundle)
    sources = [encode_audio(noise(n, n)) for n in (16_000, 33_333, 31 * 16_000)] + [
        b"words",
        encode_audio(np.zeros(16_000)),
    ]
    rows = [Row(entry | {"file": f"{n}.wav"}) for n, entry in enumerate(recognizer.rows(sources))]
    for entry in rows:
        for window in entry.windows:
            window["file"] = entry.file
    write(path, rows, recognizer.model)
    assert read(path, recognizer.model) == rows


def test_json_lines_have_one_row_per_line(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [row(name) for name in ODD_NAMES] + [long_row("long.wav")]
    write(path, rows)
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == rows


def test_a_csv_file_is_read_by_the_csv_module(tmp_path):
    path = tmp_path / "results.csv"
    write(path, [row(name) for name in ODD_NAMES] + [row("bad.wav", "error")])
    with path.open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [record["file"] for record in table] == [*ODD_NAMES, "bad.wav"]
    assert list(table[0])[6:11] == [
        "emotion",
        "probabilities.angry",
        "probabilities.happy",
        "probabilities.sad",
        "model",
    ]
    assert float(table[0]["probabilities.happy"]) == 0.123457
    assert (table[-1]["emotion"], table[-1]["probabilities.sad"], table[-1]["error.code"]) == ("", "", "empty")


def test_parquet_columns_are_typed(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "results.parquet"
    write(path, [row("a.wav"), long_row("b.wav")])
    schema = parquet.read_schema(path)
    assert schema.field("duration").type == "double"
    assert schema.field("probabilities").type.field("sad").type == "double"
    assert parquet.read_table(path, columns=["file"]).to_pylist() == [{"file": "a.wav"}, {"file": "b.wav"}]


# Interruption


def interrupt_after(path, rows):
    """Interrupt a run after these rows, and return its journal."""
    results = ResultsFile(path, MODEL)

    def run():
        with results:
            for entry in rows:
                results.append(entry)
            raise KeyboardInterrupt("interrupted")

    with pytest.raises(KeyboardInterrupt, match="interrupted"):
        run()
    return results.journal


def test_an_interrupted_run_resumes(path):
    rows = [row("a.wav"), row("b.wav", "error"), long_row("c.wav"), row("d.wav")]
    interrupt_after(path, rows[:2])
    with ResultsFile(path, MODEL) as results:
        assert list(results.done.values()) == rows[:2]
        results.append(rows[2])
        results.append(rows[3])
    assert read(path) == rows
    assert not list(path.parent.glob("*.partial.jsonl"))


def test_rows_can_be_added_to_a_finished_file(path):
    write(path, [row("a.wav")])
    write(path, [row("b.wav"), row("c.wav", "error")])
    assert read(path) == [row("a.wav"), row("b.wav"), row("c.wav", "error")]


def test_a_finished_file_survives_an_interrupted_addition(path):
    write(path, [row("a.wav")])
    interrupt_after(path, [row("b.wav")])
    assert read(path) == [row("a.wav"), row("b.wav")]


@pytest.mark.parametrize("end", [1, 12, 40, -2])
def test_an_incomplete_last_line_is_discarded(path, end):
    journal = interrupt_after(path, [row("ä.wav"), row("b.wav")])
    first, second, _ = journal.read_bytes().split(b"\n")
    journal.write_bytes(first + b"\n" + (second + b"\n")[:end])
    with ResultsFile(path, MODEL) as results:
        assert list(results.done) == ["ä.wav"]
        results.append(row("b.wav"))
    assert read(path) == [row("ä.wav"), row("b.wav")]


def test_a_complete_last_row_without_a_newline_is_kept(path):
    journal = interrupt_after(path, [row("a.wav"), row("b.wav")])
    journal.write_bytes(journal.read_bytes()[:-1])
    with ResultsFile(path, MODEL) as results:
        assert list(results.done) == ["a.wav", "b.wav"]
        results.append(row("c.wav"))
        assert results.journal.read_bytes().count(b"\n") == 3
    assert read(path) == [row("a.wav"), row("b.wav"), row("c.wav")]


FOREIGN_ENDS = [
    '{"schema": "mine", "note": "a',
    '{"schema": 1, "file": "a.wav", "speaker": "anna"',
    '{"schema": 1, "file": "a.wav", "start": "mine"}',
    '{"schema": 1, "name": "a.wav"',
    '["schema"',
    "a,b",
]


@pytest.mark.parametrize("end", FOREIGN_ENDS)
@pytest.mark.parametrize("rows", [[], [row("a.wav")]], ids=["alone", "after a row"])
def test_a_last_line_of_another_program_is_not_overwritten(tmp_path, end, rows):
    path = tmp_path / "results.jsonl"
    content = "".join(json.dumps(entry) + "\n" for entry in rows) + end
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadOutput, match=rf"line {len(rows) + 1}, is not a result"):
        ResultsFile(path, MODEL)
    assert path.read_text(encoding="utf-8") == content


def test_a_fragment_of_a_line_is_overwritten_only_after_rows(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"s', encoding="utf-8")
    with pytest.raises(BadOutput, match="line 1, is not a result"):
        ResultsFile(path, MODEL)
    assert path.read_text(encoding="utf-8") == '{"s'


def test_each_row_is_on_disk_as_soon_as_it_is_appended(path):
    with ResultsFile(path, MODEL) as results:
        for count, name in enumerate(["a.wav", "b.wav", "c.wav"], start=1):
            results.append(row(name))
            assert results.journal.read_bytes().count(b"\n") == count


# Several runs


def test_a_second_run_with_the_same_output_is_refused_at_once(path):
    with ResultsFile(path, MODEL) as results:
        results.append(row("a.wav"))
        with pytest.raises(BadOutput, match=r"results\.\w+ is being written by another run: wait"):
            ResultsFile(path, MODEL)
        results.append(row("b.wav"))
    write(path, [row("c.wav")])
    assert read(path) == [row("a.wav"), row("b.wav"), row("c.wav")]
    assert not list(path.parent.glob(".*"))


def test_the_lock_is_released_after_an_error(path):
    write(path, [row("a.wav")])
    for _ in "first", "again":
        with pytest.raises(BadOutput, match="contains rows of model"):
            ResultsFile(path, "other@89abcdef")
    interrupt_after(path, [row("b.wav")])
    assert read(path) == [row("a.wav"), row("b.wav")]


@pytest.mark.slow
def test_no_row_is_lost_when_processes_write_one_output(tmp_path):
    path = tmp_path / "results.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from affekt.errors import BadOutput\n"
        "from affekt.inference.results_file import ResultsFile; from affekt.inference.row import make_row\n"
        "while True:\n"
        "    try: results = ResultsFile(Path(sys.argv[1]), 'm'); break\n"
        "    except BadOutput: time.sleep(0.001)\n"
        "with results:\n"
        "    for n in range(20): results.append(make_row(f'{sys.argv[2]}-{n}', 'm')); time.sleep(0.001)\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    assert len(read(path, "m")) == 80


# A file that changed


def version(size=10, modified=1_700_000_000.123456):
    return {"size": size, "modified": modified}


def test_a_file_with_another_size_or_time_is_not_resumed(path):
    entry = row("a.wav")
    entry.source = version()
    write(path, [entry, row("b.wav")])
    with ResultsFile(path, MODEL) as results:
        assert results.find("a.wav", version())
        assert results.find("a.wav")
        assert results.find("b.wav", version())
        assert results.find("a.wav", version(size=11)) is None
        assert results.find("a.wav", version(modified=1_700_000_001.0)) is None
        assert "source" not in results.done["a.wav"]


# Limits of spreadsheets, and control characters


def test_no_cell_of_a_csv_file_is_longer_than_a_spreadsheet_can_hold(tmp_path):
    path = tmp_path / "results.csv"
    failed = row("b.wav", "error", error={"code": "undecodable", "message": "x" * 50_000})
    rows = [long_row("a.wav", ("ok",) * 500), failed]
    write(path, rows)
    for table in (path, windows_path(path)):
        with table.open(encoding="utf-8", newline="") as stream:
            records = list(csv.reader(stream))
        assert max(len(cell) for record in records for cell in record) <= MAX_CELL
        assert len({len(record) for record in records}) == 1
    assert len(records) == 501
    assert read(path)[0] == rows[0]


def test_windows_of_a_csv_file_of_an_earlier_version_are_read(tmp_path):
    path = tmp_path / "results.csv"
    entry = long_row("a.wav")
    write(path, [entry])
    with path.open(encoding="utf-8", newline="") as stream:
        (record,) = csv.DictReader(stream)
    record["windows"] = json.dumps(entry.windows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(record))
        writer.writeheader()
        writer.writerow(record)
    windows_path(path).unlink()
    assert read(path) == [entry]


def test_a_csv_row_whose_windows_are_missing_is_recognized_again(tmp_path):
    path = tmp_path / "results.csv"
    write(path, [long_row("a.wav"), row("b.wav")])
    windows_path(path).unlink()
    assert read(path) == [row("b.wav")]


def test_a_foreign_table_of_windows_is_not_overwritten(tmp_path):
    path = tmp_path / "results.csv"
    windows_path(path).write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(BadOutput, match=r"windows\.csv is not a results file"):
        write(path, [long_row("a.wav")])
    assert windows_path(path).read_text(encoding="utf-8") == "a,b\n1,2\n"


def test_control_characters_in_a_name_do_not_break_lines(tmp_path):
    path = tmp_path / "results.jsonl"
    names = [
        "a\nb",
        "a\rb",
        "a\x1b[31mb",
        "a\x85b",
        "a\x9b31mb",
        "a\u2028b",
        "a\u2029b",
        "a\u202eb",
        "a\x0bb",
        "a\x1cb",
    ]
    write(path, [row(name) for name in names])
    text = path.read_text(encoding="utf-8")
    assert [json.loads(line)["file"] for line in text.splitlines()] == names
    assert text.replace("\n", "").isprintable()


# Errors


def test_a_file_with_rows_of_another_model_is_refused(path):
    write(path, [row("a.wav")])
    before = path.read_bytes()
    with pytest.raises(BadOutput, match=r"contains rows of model 'tiny@01234567', but this run uses 'other@89abcdef'"):
        ResultsFile(path, "other@89abcdef")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"a poem", id="text without a newline"),
        pytest.param(b"dear diary\n", id="text"),
        pytest.param(b"a,b,c\n", id="a table's header"),
        pytest.param(b"a,b,c\n1,2,3\n", id="a table"),
        pytest.param(b'{"file": "a.wav"}\n', id="other JSON"),
        pytest.param(b'{"file": "a.wav"}', id="other JSON without a newline"),
        pytest.param(b'{"schema": 2, "file": "a.wav"}\n', id="another schema"),
        pytest.param(b"[1, 2]\n", id="a list"),
        pytest.param(b"\xff\xfe\x00 not text\n", id="bytes"),
    ],
)
def test_a_foreign_file_is_refused_and_left_unchanged(path, content):
    path.write_bytes(content)
    with pytest.raises(BadOutput, match=r"results\.\w+(, line 1,)? is not a result"):
        ResultsFile(path, MODEL)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_foreign_parquet_file_is_refused_and_left_unchanged(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "results.parquet"
    parquet.write_table(pa.table({"file": ["a.wav"], "age": [3]}), path)
    before = path.read_bytes()
    with pytest.raises(BadOutput, match=r"results.parquet is not a results file"):
        ResultsFile(path, MODEL)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["results.txt", "results", "results.json", "results.jsonl.gz"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(BadOutput, match=rf"results file .*{name}: expected a name ending in .jsonl, .csv, .parquet"):
        ResultsFile(tmp_path / name, MODEL)
    assert not any(tmp_path.iterdir())


def test_a_suffix_may_be_upper_case(tmp_path):
    write(tmp_path / "RESULTS.CSV", [row("a.wav")])
    assert read(tmp_path / "RESULTS.CSV") == [row("a.wav")]


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"writing results.parquet needs pyarrow: pip install 'affekt\[parquet\]'"):
        ResultsFile(tmp_path / "results.parquet", MODEL)
    assert not any(tmp_path.iterdir())


def test_a_path_that_cannot_be_written_is_refused(path):
    path.mkdir()
    with pytest.raises(BadOutput, match=r"results file .*results\.\w+ is a folder"):
        ResultsFile(path, MODEL)
    inside_a_file = path.parent / "file" / path.name
    (path.parent / "file").touch()
    with pytest.raises(BadOutput, match=r"results file .*results\.\w+ cannot be written: .+"):
        ResultsFile(inside_a_file, MODEL)


def test_missing_folders_are_created(path):
    deep = path.parent / "a" / "b" / path.name
    write(deep, [row("a.wav")])
    assert read(deep) == [row("a.wav")]


def test_the_rows_of_these_tests_have_the_fields_of_a_recognizers_row(tiny_bundle):
    assert list(row("a.wav")) == list(Recognizer.load(tiny_bundle)(tone(), 16_000))


@pytest.mark.parametrize("change", ["cells missing", "cell added", "cut"])
def test_a_csv_file_with_a_damaged_line_is_refused_and_left_unchanged(tmp_path, change):
    path = tmp_path / "rows.csv"
    write(path, [row("a.wav")])
    text = path.read_text("utf-8").rstrip()
    text = {"cells missing": text.rsplit(",", 6)[0], "cell added": text + ",x,y", "cut": text[: len(text) - 60]}[change]
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadOutput, match="is not a results file"):
        ResultsFile(path, MODEL)
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "\ud800"},
        {"start": None},
        {"end": float("nan")},
        {"duration": 10**400},
        {"probabilities": "sad"},
        {"probabilities": {"sad": "1"}},
        {"emotion": "bored"},
        {"status": "done"},
        {"error": "none"},
        {"source": {"size": float("inf"), "modified": 1}},
        {"windows": 3, "aggregation": "mean"},
    ],
)
def test_a_line_whose_fields_are_not_those_of_a_row_is_refused(tmp_path, changes):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("a.wav") | changes) + "\n", encoding="utf-8")
    with pytest.raises(BadOutput, match="line 1, is not a result"):
        ResultsFile(path, MODEL)


def test_an_empty_file_is_a_results_file_without_rows(path):
    path.touch()
    write(path, [row("a.wav")])
    assert [entry.file for entry in read(path)] == ["a.wav"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    with pytest.raises(BadOutput, match="is a pipe or a device"):
        ResultsFile(tmp_path / "pipe.jsonl", MODEL)
    with pytest.raises(BadOutput, match="expected a name ending in"):
        ResultsFile(tmp_path / "full.jsonl", MODEL)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_a_link_remains_and_the_file_to_which_it_points_is_written(path):
    target = path.with_name(f"target{path.suffix}")
    path.symlink_to(target.name)
    write(path, [row("a.wav", "error")])
    write(path, [row("a.wav")])
    assert path.is_symlink()
    assert [entry.status for entry in read(target)] == ["ok"]
