"""Transcripts that are kept beside a results file."""

import os
from pathlib import Path

import pytest

from affekt.inference.transcript import Transcript
from affekt.interval import Interval, Word
from affekt.workflows.transcripts_file import TranscriptsFile, transcripts_path
from tests.logs import logged

NAME = "asr:fake"
TRANSCRIPT = Transcript(
    NAME, (Interval(0.5, 1.5, text="a jacket", words=(Word(0.5, 0.7, "a"), Word(0.7, 1.5, "jacket"))),)
)


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "call.wav"
    path.write_bytes(b"sound")
    return path


@pytest.fixture
def path(tmp_path):
    return transcripts_path(tmp_path / "results.csv")


def test_a_transcript_is_found_by_the_next_run(path, recording):
    TranscriptsFile(path, NAME, "en").add(recording, TRANSCRIPT)
    assert path.name == "results.transcripts.jsonl"
    assert TranscriptsFile(path, NAME, "en").find(recording) == TRANSCRIPT
    assert TranscriptsFile(path, NAME, "en").find(recording.with_name("other.wav")) is None


def test_a_recording_without_words_is_not_transcribed_again(path, recording):
    TranscriptsFile(path, NAME, "").add(recording, Transcript(NAME))
    assert TranscriptsFile(path, NAME, "").find(recording) == Transcript(NAME)


@pytest.mark.parametrize(("name", "language"), [("asr:other", "en"), (NAME, "de"), (NAME, "")])
def test_another_model_or_language_transcribes_again(name, language, path, recording):
    TranscriptsFile(path, NAME, "en").add(recording, TRANSCRIPT)
    assert TranscriptsFile(path, name, language).find(recording) is None


def test_a_changed_recording_is_transcribed_again(path, recording):
    file = TranscriptsFile(path, NAME, "en")
    file.add(recording, TRANSCRIPT)
    recording.write_bytes(b"other sound")
    assert file.find(recording) is None
    assert TranscriptsFile(path, NAME, "en").find(recording) is None


@pytest.mark.parametrize(
    "damage", ['{"file": "x.wav", "by', "[]\n", '{"file": 1, "intervals": [], "by": "x"}\n', "\xff"]
)
def test_damaged_lines_are_ignored(damage, path, recording):
    path.write_bytes(damage.encode("latin-1"))
    TranscriptsFile(path, NAME, "en").add(recording, TRANSCRIPT)
    assert TranscriptsFile(path, NAME, "en").find(recording) == TRANSCRIPT


def test_a_stream_and_a_file_that_cannot_be_written(tmp_path, recording):
    file = TranscriptsFile(tmp_path / "no folder" / "x.transcripts.jsonl", NAME, "en")
    with logged() as messages:
        file.add(recording, TRANSCRIPT)
    assert "cannot be written: No such file" in messages[0]
    assert file.find(recording) == TRANSCRIPT
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for stream in (Path("-"), pipe):
        file.add(stream, TRANSCRIPT)
        assert file.find(stream) is None
