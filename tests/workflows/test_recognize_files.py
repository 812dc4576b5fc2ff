"""`recognize_files` recognizes many files and resumes from its results file."""

import json
import os
import threading

import pytest

from affekt import BadAudio, BadOutput, recognize_files
from tests.sounds import babble, encode_audio, noise, tone


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


# Long files


@pytest.fixture
def long_clip(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(encode_audio(babble(95 * 16_000)))  # 15 windows of 6 s, and one of 5 s
    return path


def interrupt(recognizer, clip, output, after):
    """Interrupt the recognition of a long file after this number of windows."""
    windows = []

    def count(window):
        windows.append(window)
        if len(windows) == after:
            raise KeyboardInterrupt("pressed")

    with pytest.raises(KeyboardInterrupt, match="pressed"):
        list(recognize_files([clip], output, recognizer=recognizer, on_window=count))
    return windows


def count_inferences(recognizer, monkeypatch):
    calls, infer = [], recognizer.infer
    monkeypatch.setattr(
        recognizer, "infer", lambda waveform, text: calls.append(waveform.size) or infer(waveform, text)
    )
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_interrupted_long_file_continues_with_its_next_window(recognizer, long_clip, tmp_path, monkeypatch, suffix):
    output = tmp_path / f"rows.{suffix}"
    expected = recognizer(long_clip)
    assert len(expected.windows) == 16
    assert interrupt(recognizer, long_clip, output, after=6) == expected.windows[:6]
    calls = count_inferences(recognizer, monkeypatch)
    (row,) = recognize_files([long_clip], output, recognizer=recognizer)
    assert len(calls) == 10
    assert row == expected
    assert not list(tmp_path.glob("*.partial.jsonl"))
    (again,) = recognize_files([long_clip], output, recognizer=recognizer)
    assert (again, again.resumed, len(calls)) == (expected, True, 10)


@pytest.mark.slow
def test_windows_of_a_file_that_changed_are_not_used(recognizer, long_clip, tmp_path, monkeypatch):
    output = tmp_path / "rows.jsonl"
    interrupt(recognizer, long_clip, output, after=6)
    long_clip.write_bytes(encode_audio(babble(95 * 16_000, seed=1)))
    os.utime(long_clip, (1, 1))
    calls = count_inferences(recognizer, monkeypatch)
    (row,) = recognize_files([long_clip], output, recognizer=recognizer)
    assert len(calls) == 16
    assert row == recognizer(long_clip)


@pytest.mark.slow
def test_an_incomplete_line_of_windows_is_recognized_again(recognizer, long_clip, tmp_path, monkeypatch):
    output = tmp_path / "rows.jsonl"
    interrupt(recognizer, long_clip, output, after=6)
    (journal,) = tmp_path.glob("rows.jsonl.windows-*.partial.jsonl")
    journal.write_bytes(journal.read_bytes()[:-20])
    calls = count_inferences(recognizer, monkeypatch)
    assert list(recognize_files([long_clip], output, recognizer=recognizer)) == [recognizer(long_clip)]
    assert len(calls) == 11 + 16


def test_a_short_file_writes_no_journal_of_windows(recognizer, clips, tmp_path):
    windows = []
    for _ in recognize_files([clips], tmp_path / "rows.jsonl", recognizer=recognizer, on_window=windows.append):
        assert not list(tmp_path.glob("*.windows*"))
    assert not windows


# Changes of files


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_file_is_recognized_again_if_its_size_or_time_changes(recognizer, clips, tmp_path, suffix):
    output = tmp_path / f"rows.{suffix}"
    list(recognize_files([clips], output, recognizer=recognizer))
    os.utime(clips / "a.wav", (1, 1))
    (clips / "b.wav").write_bytes(encode_audio(noise(32_000)))
    (clips / "c.wav").unlink()
    rows = list(recognize_files([clips, clips / "c.wav"], output, recognizer=recognizer))
    assert [row.resumed for row in rows] == [False, False, False, True]
    assert [row.duration for row in rows] == [1.0, 2.0, 0.0, 1.0]
    if suffix == "jsonl":
        assert output.read_text("utf-8").count("b.wav") == 1


def test_whatever_a_model_raises_becomes_a_row(recognizer, clips, monkeypatch):
    def fail(_, __):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(recognizer, "infer", fail)
    row = next(recognize_files([clips / "a.wav"], recognizer=recognizer))
    assert row.error == {
        "code": "unrecognizable",
        "message": f"{clips / 'a.wav'} cannot be recognized: RuntimeError: out of memory",
    }


def test_a_failed_file_before_a_long_one_does_not_delete_its_windows(
    recognizer, clips, long_clip, tmp_path, monkeypatch
):
    output = tmp_path / "rows.jsonl"
    interrupt(recognizer, long_clip, output, after=6)
    calls = count_inferences(recognizer, monkeypatch)
    inputs = [tmp_path / "missing.wav", clips / "d.wav", clips / "a.wav", long_clip]
    *_, row = recognize_files(inputs, output, recognizer=recognizer)
    assert len(calls) == 1 + 10
    assert len(row.windows) == 16


def test_a_journal_of_windows_that_cannot_be_written_does_not_end_the_run(recognizer, long_clip, tmp_path):
    interrupt(recognizer, long_clip, tmp_path / "rows.jsonl", after=6)
    (journal,) = tmp_path.glob("rows.jsonl.windows-*.partial.jsonl")
    journal.unlink()
    journal.mkdir()
    (row,) = recognize_files([long_clip], tmp_path / "rows.jsonl", recognizer=recognizer)
    assert row == recognizer(long_clip)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_again_in_each_run(recognizer, tmp_path):
    pipe, output, audio = tmp_path / "pipe.wav", tmp_path / "rows.jsonl", encode_audio(noise(16_000))
    os.mkfifo(pipe)
    for _ in range(2):
        writer = threading.Thread(target=pipe.write_bytes, args=[audio], daemon=True)
        writer.start()
        (row,) = recognize_files([pipe], output, recognizer=recognizer)
        writer.join(5)
        assert (row.status, row.resumed) == ("ok", False)
