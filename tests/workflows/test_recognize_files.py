"""`recognize_files` recognizes many files and resumes from its results file."""

import json

import pytest

from affekt import BadAudio, BadOutput, Recognizer, recognize_files
from tests.sounds import encode_audio, noise, tone


@pytest.fixture(scope="module")
def recognizer(tiny_bundle):
    return Recognizer.load(tiny_bundle)


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.wav").write_bytes(encode_audio(noise(16_000)))
    (folder / "d.wav").write_bytes(b"no audio")
    return folder


def test_rows_are_those_of_the_recognizer_without_duplicates(recognizer, clips):
    rows = list(recognize_files([clips, clips / "a.wav"], recognizer=recognizer))
    assert rows == list(recognizer.rows(sorted(clips.iterdir())))
    assert not any(row.resumed for row in rows)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_interrupted_run_is_resumed_and_failures_are_retried(recognizer, clips, tmp_path, suffix):
    output = tmp_path / f"rows.{suffix}"
    first = recognize_files([clips], output, recognizer=recognizer)
    first_rows = [next(first), next(first)]
    first.close()
    calls = []
    rows = list(
        recognize_files([clips], output, recognizer=recognizer, progress=lambda *arguments: calls.append(arguments))
    )
    assert rows[:2] == first_rows
    assert [row.resumed for row in rows] == [True, True, False, False]
    assert [row.status for row in rows] == ["ok", "ok", "ok", "error"]
    assert calls == [("recognizing", done, 4) for done in range(1, 5)]
    (clips / "d.wav").write_bytes(encode_audio(tone()))
    again = list(recognize_files([clips], output, recognizer=recognizer))
    assert [row.resumed for row in again] == [True, True, True, False]
    assert again[3].status == "ok"


def test_resumed_is_not_written_to_the_results_file(recognizer, clips, tmp_path):
    output = tmp_path / "rows.jsonl"
    for _ in range(2):
        rows = list(recognize_files([clips], output, recognizer=recognizer))
    stored = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
    assert [{key: row[key] for key in row if key != "source"} for row in stored] == rows
    assert "resumed" not in stored[0]


def test_an_output_of_another_model_is_refused(recognizer, clips, tmp_path):
    output = tmp_path / "rows.jsonl"
    list(recognize_files([clips / "a.wav"], output, recognizer=recognizer))
    output.write_text(output.read_text("utf-8").replace(recognizer.model, "other@00000000"), "utf-8")
    with pytest.raises(BadOutput, match="other@00000000"):
        next(recognize_files([clips], output, recognizer=recognizer))


def test_an_empty_name_is_refused(recognizer):
    with pytest.raises(BadAudio, match="empty") as error:
        list(recognize_files([""], recognizer=recognizer))
    assert error.value.code == "missing"
