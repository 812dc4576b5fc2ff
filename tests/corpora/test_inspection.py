"""Inspection of corpora (`describe` and `check`), and export to tables."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from affekt.corpora.export import export, timedelta
from affekt.corpora.inspection import check, describe
from affekt.corpora.source import Source
from affekt.errors import BadOutput
from affekt.labels import LABEL_SETS
from tests.corpora.trees import iemocap_turn, meld_table, touch, whole_iemocap, write, write_noise
from tests.sounds import encode_audio, encode_media, noise, tone


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory):
    """All of IEMOCAP's labels, without audio or transcripts."""
    root = tmp_path_factory.mktemp("corpora") / "iemocap"
    whole_iemocap(root)
    return Source("iemocap", str(root))


NO_AUDIO = ("no audio: the corpus is read as text",)


@pytest.mark.slow
def test_iemocap_as_published_has_its_counts(iemocap):
    description = describe(iemocap)
    assert description.problems == NO_AUDIO
    assert (description.utterances, description.hours) == (10_039, 0.0)
    assert (len(description.sessions), len(description.speakers)) == (5, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "count"), [("iemocap-4", 5531), ("iemocap-7", 7487), ("iemocap-improvised-4", 2280)]
)
def test_only_utterances_of_a_label_set_are_counted(labels, count, iemocap):
    description = describe(iemocap, LABEL_SETS[labels])
    assert description.utterances == count == sum(description.emotions.values())
    assert set(description.emotions) == set(LABEL_SETS[labels].emotions)
    assert description.problems == NO_AUDIO


def test_counts_that_differ_are_reported(tmp_path):
    whole_iemocap(tmp_path)
    path = tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    path.write_text(path.read_text().replace("Ses01F_impro01_F0000\tang", "Ses01F_impro01_F0000\tsad"))
    iemocap_turn(tmp_path, "Ses05F_impro02_M000", "fru")
    _, everything, four, seven, improvised = describe(Source("iemocap", str(tmp_path))).problems
    assert everything.startswith(
        "not as published: utterances 10040 of 10039, angry 1102 of 1103, frustrated 1850 of 1849"
    )
    assert four == "iemocap-4: not as published: angry 1102 of 1103, sad 1085 of 1084"
    assert seven.startswith("iemocap-7: not as published: utterances 7488 of 7487")
    assert improvised == "iemocap-improvised-4: not as published: angry 288 of 289, sad 609 of 608"


def test_speakers_and_sessions_that_differ_are_reported(tmp_path):
    whole_iemocap(tmp_path)
    path = tmp_path / "Session2/dialog/EmoEvaluation/Ses02F_script01_1.txt"
    path.write_text(path.read_text().replace("_M0000\t", "_F9999\t"))
    problems = describe(Source("iemocap", str(tmp_path))).problems
    assert "iemocap-4: not as published: speaker Ses02F 482 of 481, speaker Ses02M 541 of 542" in problems


def test_missing_and_unpublished_clips_are_reported(tmp_path):
    touch(tmp_path, "Actor_25/03-01-01-01-01-01-25.wav")
    missing, extra, *_ = describe(Source("ravdess", str(tmp_path))).problems
    assert missing.startswith("1440 of 1440 published utterances are missing: 03-01-01-01-01-01-01,")
    assert missing.endswith("and 1420 more")
    assert extra == "1 utterance not in the published corpus: 03-01-01-01-01-01-25"


def test_excluded_utterances_are_not_reported_as_missing(iemocap):
    without = replace(iemocap, without=("Ses01F_impro01_F0000",))
    description = describe(without)
    assert (description.utterances, description.problems) == (10_038, NO_AUDIO)


def test_every_subset_of_meld_is_compared(tmp_path):
    meld_table(tmp_path, "train", ("Hi.", "Ross", "joy", 0, 0))
    problems = describe(Source("meld", str(tmp_path))).problems
    assert [problem.partition(":")[0] for problem in problems[1:]] == ["train", "dev", "test"]
    assert "dialogues 1 of 1038" in problems[1]


def write_table(tmp_path, *rows):
    """Write a table of (audio, start, end), and return it as a source."""
    text = "".join(json.dumps({"audio": a, "emotion": "sad", "start": s, "end": e}) + "\n" for a, s, e in rows)
    write(tmp_path / "t.jsonl", text)
    return Source("table", str(tmp_path / "t.jsonl"))


def test_hours_are_those_of_the_segments(tmp_path):
    (tmp_path / "a.wav").write_bytes(encode_audio(tone(36)))
    (tmp_path / "b.flac").write_bytes(encode_audio(tone(18), format="FLAC"))
    description = describe(write_table(tmp_path, ("a.wav", 0, 9), ("a.wav", 27, None), ("b.flac", None, None)))
    assert (description.hours, description.problems) == (pytest.approx(0.01), ())


@pytest.mark.slow
def test_hours_of_media_are_read_from_their_headers(tmp_path):
    (tmp_path / "a.mp4").write_bytes(encode_media(tone(18), 16_000, "mp4", "aac"))
    assert describe(write_table(tmp_path, ("a.mp4", None, None))).hours == pytest.approx(0.005, rel=0.02)


def test_check_reports_files_whose_channels_cancel(tmp_path):
    sound = noise(16_000)
    for name, right in {"mono.wav": sound, "opposite.wav": -sound}.items():
        path = tmp_path / "happy" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_audio(np.stack([sound, right], axis=1)))
    report = check(Source("folder", str(tmp_path)))
    (note,) = report.notes
    assert note.startswith("1 file whose channels cancel")
    assert "opposite.wav" in note
    assert "mono.wav" not in note


@pytest.mark.parametrize("name", ["a.wav", "a.mp4"])
def test_describe_and_check_report_missing_and_unreadable_files(name, tmp_path):
    if name == "a.mp4":
        pytest.importorskip("av")
    write(tmp_path / name, "not audio")
    source = write_table(tmp_path, (name, None, None), ("gone.wav", None, None))
    for report in (describe(source), check(source)):
        assert any(problem == "1 utterance whose audio file is missing: gone.wav" for problem in report.problems)
        assert any(
            problem.startswith(f"1 unreadable utterance: {name}; the first one: ") for problem in report.problems
        )


def test_a_corpus_without_faults_has_no_problems(tmp_path):
    for seed in range(3):
        write_noise(tmp_path / "happy" / f"{seed}.wav", seed)
    report = check(Source("folder", str(tmp_path)))
    assert (report.utterances, report.files, report.problems) == (3, 3, ())


def test_check_reports_silent_duplicate_and_too_short_files(tmp_path):
    sounds = {"1.wav": noise(8000), "2.wav": noise(8000), "3.wav": noise(8000, seed=1)}
    sounds |= {"5.wav": np.full(8000, 0.25), "6.wav": noise(100)}
    for name, samples in sounds.items():
        (tmp_path / name).write_bytes(encode_audio(samples))
    report = check(write_table(tmp_path, *((name, None, None) for name in sounds)))
    assert (report.silent, report.duplicates, report.missing) == (("5.wav",), (("1.wav", "2.wav"),), ())
    assert list(report.unreadable) == ["6.wav"]
    assert "at least 0.1 s" in report.unreadable["6.wav"]


def test_a_git_lfs_pointer_is_reported(tmp_path):
    write(tmp_path / "a.wav", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    source = write_table(tmp_path, ("a.wav", None, None))
    for report in (describe(source), check(source)):
        assert "run git lfs pull" in report.problems[0]


def test_duplicates_with_equal_bytes_or_different_labels_are_reported(tmp_path):
    samples = (noise(8000) * 2**14).astype(np.int16)
    touch(tmp_path, "happy/0.txt", "sad/0.txt")
    (tmp_path / "happy/1.wav").write_bytes(encode_audio(samples))
    (tmp_path / "happy/2.wav").write_bytes(encode_audio(samples))
    (problem,) = check(Source("folder", str(tmp_path))).problems
    assert problem == "the same audio and bytes: happy/1.wav, happy/2.wav"
    (tmp_path / "happy/2.wav").unlink()
    (tmp_path / "sad/1.flac").write_bytes(encode_audio(samples, format="FLAC"))
    (problem,) = check(Source("folder", str(tmp_path))).problems
    assert problem == "the same audio, labeled happy and sad: happy/1.wav, sad/1.flac"


def test_segments_of_one_file_are_checked_separately(tmp_path):
    samples = np.concatenate([noise(16_000), np.zeros(16_000), noise(16_000)])
    (tmp_path / "a.wav").write_bytes(encode_audio(samples))
    segments = (("a.wav", 0, 1), ("a.wav", 1, 2), ("a.wav", 2, 3.004), ("a.wav", 2.5, 4))
    calls = []
    report = check(write_table(tmp_path, *segments), lambda *call: calls.append(call))
    assert report.files == 1
    assert calls == [("checking", 1, 1)]
    assert report.silent == ("a.wav#1-2",)
    assert report.duplicates == (("a.wav#0-1", "a.wav#2-3.004"),)
    assert "ends at 3.00 s, the utterance at 4.0 s" in report.unreadable["a.wav#2.5-4"]


# Export


@pytest.fixture
def utterances(tmp_path):
    rows = [
        {"id": "a", "audio": "x/1.wav", "emotion": "sad", "start": 0.5, "end": 61.25, "votes": {"sad": 1}},
        {"id": "b", "audio": "x/2.wav", "emotion": "content", "speaker": "007", "gender": "male", "split": "test"},
    ]
    rows[0]["text"] = 'Say "ja",\nbitte'
    write(tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    return Source("table", str(tmp_path / "t.jsonl")).read()


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
@pytest.mark.parametrize("folder", ["", "elsewhere"])
def test_an_exported_table_is_read_back_unchanged(name, folder, utterances, tmp_path):
    export(utterances, tmp_path / folder / name)
    stored = Source("table", str(tmp_path / folder / name)).read()
    if name == "t.csv":  # audformat tables have no votes
        utterances = [replace(utterance, votes={}) for utterance in utterances]
    assert stored == utterances


def test_an_audformat_table_starts_with_its_index_columns(utterances, tmp_path):
    export(utterances, tmp_path / "table", "audformat")
    with (tmp_path / "table").open(encoding="utf-8", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert list(first)[:3] == ["file", "start", "end"]
    assert (first["file"], first["start"], first["end"]) == (
        "x/1.wav",
        "0 days 00:00:00.500000",
        "0 days 00:01:01.250000",
    )
    assert (second["start"], second["end"]) == ("0 days 00:00:00", "")
    assert "dialogue" not in first


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 days 00:00:00"), (1.9999999, "0 days 00:00:02"), (90_061.5, "1 days 01:01:01.500000"), (None, "")],
)
def test_times_are_formatted_like_pandas_timedeltas(seconds, text):
    assert timedelta(seconds) == text


def test_export_refuses_unknown_formats_and_unwritable_outputs(utterances, tmp_path):
    with pytest.raises(BadOutput, match=r"expected a name ending in \.jsonl or \.csv"):
        export(utterances, tmp_path / "t.xlsx")
    with pytest.raises(BadOutput, match=r"no format 'json'; did you mean 'jsonl'\?"):
        export(utterances, tmp_path / "t.csv", "json")
    with pytest.raises(BadOutput, match="a has no audio"):
        export([replace(utterances[0], audio=None)], tmp_path / "t.csv")
    with pytest.raises(BadOutput, match="cannot be written"):
        export(utterances, tmp_path, "jsonl")
    assert not (tmp_path / "t.csv").exists()
