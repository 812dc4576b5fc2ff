"""`affekt recognize --timeline`."""

import json

import numpy as np
import pytest
import soundfile

from affekt.audio.read import SAMPLE_RATE
from tests.commands import affekt
from tests.timeline.speech import conversation, sample


@pytest.fixture
def call(tmp_path):
    """A call whose two sides speak at different times."""
    first, second = np.zeros((2, 8 * SAMPLE_RATE), np.float32)
    first[SAMPLE_RATE : SAMPLE_RATE + sample(0).size] = sample(0)
    second[5 * SAMPLE_RATE : 5 * SAMPLE_RATE + sample(1).size] = sample(1)
    soundfile.write(tmp_path / "call.wav", np.stack([first, second], axis=1), SAMPLE_RATE)
    return tmp_path / "call.wav"


def recognize(*arguments):
    return affekt("recognize", *arguments, "--timeline")


def test_segments_and_a_summary_are_printed(call, tiny_bundle):
    run = recognize(call, "--model", tiny_bundle, "--channels", "separate")
    assert run.returncode == 0, run.stderr
    title, *lines = run.stdout.splitlines()
    assert title == str(call)
    assert sum(" to " in line and "channel 1" in line for line in lines) == 3
    assert "of all speech" in run.stdout


def test_json_has_a_line_for_each_segment(call, tiny_bundle):
    run = recognize(call, "--model", tiny_bundle, "--json", "--window", "2", "--hop", "2")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["start"] for row in rows] == [0, 2, 4, 6]
    assert all("speech" in row for row in rows)


def test_a_transcript_divides_and_files_are_written(call, tiny_bundle, tmp_path):
    transcript = tmp_path / "call.srt"
    transcript.write_text("1\n00:00:01,000 --> 00:00:03,500\nHello\n\n2\n00:00:05,000 --> 00:00:07,000\nGood-bye\n")
    exported, picture, output = tmp_path / "call.json", tmp_path / "call.html", tmp_path / "out.jsonl"
    arguments = ("--transcript", transcript, "--export", exported, "--plot", picture, "--output", output)
    run = recognize(call, "--model", tiny_bundle, *arguments)
    assert run.returncode == 0, run.stderr
    assert "1 file, 2 segments" in run.stderr
    assert [row["text"] for row in json.loads(exported.read_text())["segments"]] == ["Hello", "Good-bye"]
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == ["Hello", "Good-bye"]
    assert "<html" in picture.read_text(encoding="utf-8")


def test_a_diarization_assigns_speakers(call, tiny_bundle, tmp_path):
    rttm = tmp_path / "call.rttm"
    rttm.write_text("SPEAKER call 1 0.5 3.5 <NA> <NA> anna <NA> <NA>\nSPEAKER call 1 4.8 3 <NA> <NA> ben <NA> <NA>\n")
    run = recognize(call, "--model", tiny_bundle, "--rttm", rttm, "--json")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row.get("speaker") for row in rows if row["status"] == "ok"] == ["anna", "ben"]


def test_a_file_that_cannot_be_read_fails_alone(call, tiny_bundle, tmp_path):
    run = recognize(tmp_path / "none.wav", call, "--model", tiny_bundle)
    assert run.returncode == 2
    assert "does not exist" in run.stdout
    assert "of speech" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hop", "1"], "--hop is for --window"),
        (["--hop", "0"], "--hop is for --window"),
        (["--window", "20"], "expected 0.5 to 8 s"),
        (["--window", "2", "--segments", "a.csv"], "use one of them"),
        (["--window", "2", "--min-speech", "1"], "--min-speech is for segments of speech"),
        (["--transcript", "a.srt", "--rttm", "a.rttm"], "--rttm assigns"),
        (["--channels", "left"], "expected mix or separate"),
        (["--jobs", "2"], "--jobs cannot be used with --timeline"),
        (["--vad", "off"], "need voice activity detection"),
        (["--plot", "a.gif"], "expected a name ending in"),
        (["--export", "a.xyz"], "expected a name ending in"),
        (["--transcript", "none.srt"], "none.srt"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_read(call, tiny_bundle, arguments, message):
    run = recognize(call, "--model", tiny_bundle, *arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert message in run.stderr


def test_options_of_timelines_need_the_timeline(call, tiny_bundle):
    run = affekt("recognize", call, "--model", tiny_bundle, "--window", "5")
    assert run.returncode == 2
    assert "--window is an option of timelines: it needs --timeline" in run.stderr


def test_a_file_of_one_recording_is_not_for_two(call, tiny_bundle, tmp_path):
    soundfile.write(tmp_path / "other.wav", conversation(), SAMPLE_RATE)
    for option, name in (("--plot", "a.png"), ("--export", "a.vtt"), ("--transcript", "a.srt")):
        run = recognize(call, tmp_path / "other.wav", "--model", tiny_bundle, option, tmp_path / name)
        assert run.returncode == 2
        assert option in run.stderr
        assert "of one recording, but there are 2" in run.stderr
