"""`affekt corpus`, run in separate processes."""

import json
import sys

import pytest

from tests.cli.test_cli import affekt as affekt_alone
from tests.commands import affekt
from tests.corpora.trees import touch, write, write_noise, write_tone


@pytest.fixture
def calls(tmp_path):
    folder = tmp_path / "calls"
    for speaker, emotion, seed in (("anna", "anger", 1), ("anna", "joy", 2), ("ben", "joy", 3)):
        write_noise(folder / speaker / emotion / "1.wav", seed)
    return folder


def test_list_prints_licenses_and_what_they_allow():
    run = affekt("corpus", "list")
    assert run.returncode == 0, run.stderr
    rows = {line.split()[0]: line for line in run.stdout.splitlines()}
    assert "  yes  " in rows["emodb"]
    assert "CC0 1.0" in rows["emodb"]
    assert "  no  " in rows["tess"]
    assert "CC BY-NC-ND 4.0" in rows["tess"]
    assert not {"folder", "table"} & set(rows)
    entries = {entry["name"]: entry for entry in json.loads(affekt("corpus", "list", "--json").stdout)}
    assert (entries["emogator"]["speech"], entries["emogator"]["is_open"]) == (False, True)
    assert entries["urdu"]["style"] == "talk shows"


def test_describe_can_be_restricted_to_a_list_of_clips(calls, tmp_path):
    write(tmp_path / "list.txt", "anna/joy/1.wav\n")
    run = affekt("corpus", "describe", "folder", calls, "--only", tmp_path / "list.txt", "--json")
    assert json.loads(run.stdout)["emotions"] == {"happy": 1}


def test_describe_prints_one_json_object(calls):
    run = affekt("corpus", "describe", "folder", calls, "--json")
    assert run.returncode == 0, run.stderr
    description = json.loads(run.stdout)
    assert list(description) == [
        "corpus",
        "utterances",
        "hours",
        "emotions",
        "sessions",
        "speakers",
        "splits",
        "problems",
    ]
    assert (description["corpus"], description["utterances"], description["hours"]) == ("calls", 3, 0.0004)
    assert (description["emotions"], description["speakers"]) == ({"angry": 1, "happy": 2}, {"anna": 2, "ben": 1})
    assert (description["sessions"], description["problems"]) == ({}, [])


def test_describe_prints_text(calls):
    run = affekt("corpus", "describe", "folder", calls, "--emotion", "joy=delight")
    assert run.returncode == 0, run.stderr
    assert "3 utterances" in run.stdout
    assert "delight" in run.stdout
    assert "problem" not in run.stdout


@pytest.mark.slow
def test_describe_works_in_an_ascii_locale(calls):
    write_noise(calls / "zoë" / "joy" / "1.wav", 4)
    for form in ("--json", "--labels=six"):
        run = affekt_alone("corpus", "describe", "folder", calls, form, PYTHONIOENCODING="ascii")
        assert (run.returncode, run.stderr) == (0, "")


def test_the_exit_status_of_check(calls):
    run = affekt("corpus", "check", "folder", calls)
    assert (run.returncode, run.stderr) == (0, "")
    write_tone(calls / "ben" / "joy" / "2.wav")
    write_tone(calls / "ben" / "joy" / "3.wav")
    run = affekt("corpus", "check", "folder", calls, "--json")
    assert (run.returncode, run.stderr) == (1, "")
    assert json.loads(run.stdout)["duplicates"] == [["ben/joy/2.wav", "ben/joy/3.wav"]]
    run = affekt("corpus", "check", "folder", calls / "nowhere")
    assert run.returncode == 2
    assert run.stderr.startswith("affekt: ")
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.slow
def test_an_exported_corpus_has_the_same_description(calls, tmp_path):
    for output in ("calls.jsonl", "calls.csv"):
        run = affekt("corpus", "export", "folder", calls, tmp_path / output)
        assert run.returncode == 0, run.stderr
        original, exported = (
            json.loads(affekt("corpus", "describe", name, root, "--json").stdout)
            for name, root in (("folder", calls), ("table", tmp_path / output))
        )
        assert original == exported


def test_columns_are_mapped_by_an_option(calls):
    write(calls / "table.csv", "clip,feeling\nanna/anger/1.wav,anger\n")
    columns = ("--column", "audio=clip", "--column", "emotion=feeling")
    run = affekt("corpus", "describe", "table", calls / "table.csv", *columns, "--labels", "six", "--json")
    assert json.loads(run.stdout)["emotions"] == {"angry": 1}
    run = affekt("corpus", "describe", "table", calls / "table.csv", "--column", "audio")
    assert (run.returncode, run.stdout) == (2, "")
    assert "--column 'audio': expected KEY=VALUE" in run.stderr


def test_reading_a_corpus_needs_no_torch(tmp_path):
    touch(tmp_path, "wav/03a01Fa.wav")
    code = "import sys; from affekt.corpora import inspection, export; from affekt.corpora.source import Source; "
    code += (
        f"Source('emodb', {str(tmp_path)!r}).read(); sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    run = affekt_alone(python=[sys.executable, "-c", code])
    assert run.returncode == 0, run.stderr


def test_the_layout_is_an_option_and_the_split_is_listed(tmp_path):
    pairs = [f"{emotion}/{speaker}" for emotion in ("content", "angst") for speaker in ("anna", "ben")]
    clips = [f"{pair}/{split}/1.wav" for pair in pairs for split in ("dev", "test")]
    touch(tmp_path / "calls", *clips)
    run = affekt("corpus", "describe", "folder", tmp_path / "calls")
    assert run.returncode == 2
    assert "--layout emotion/speaker or --layout speaker/emotion or --layout speaker/emotion/split" in run.stderr
    run = affekt("corpus", "describe", "folder", tmp_path / "calls", "--layout", "emotion/speaker/split")
    assert run.returncode == 0, run.stderr
    assert "dev (validation)           4   50.0%" in run.stdout
    assert "angst" in run.stdout
