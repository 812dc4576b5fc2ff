"""Exported timelines, read back by the programs that they are for, or by their libraries."""

import csv
import json
import re

import audformat
import pyarrow.parquet
import pytest
import webvtt
from praatio import textgrid as praatio
from pyannote.database.util import load_rttm

from affekt.errors import BadOutput, BadTranscript, UnknownName
from affekt.timeline.exports import FORMATS, export_timeline, read_timeline
from affekt.timeline.transcripts import read_intervals
from tests.timeline.made import EMOTIONS, MODEL, TRICKY, WORDS, call, make_segment, make_timeline


@pytest.fixture
def export(tmp_path):
    """Return a function that exports a timeline and returns the path."""

    def export(name, timeline=None, **options):
        export_timeline(timeline or call(), tmp_path / name, **options)
        return tmp_path / name

    return export


def test_json_is_read_as_the_same_timeline(export):
    path = export("a.json")
    assert read_timeline(path) == call()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["segments"][0]["words"] == WORDS
    assert content["summary"]["tracks"]["Anna Lee"]["emotions"] == {"happy": 1.0}
    assert read_timeline(export("empty.json", make_timeline([]))) == make_timeline([])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"duration": 10.0', '"duration": "x"', "duration is missing or invalid"),
        ('"schema": 1, "file": "calls', '"schema": 2, "file": "calls', "expected a timeline"),
        ('"speaker": "Bob"', '"speaker": 3', "segment 2: speaker 3 is invalid"),
        ('"steady_emotion": "happy"', '"steady_emotion": "sad"', "segment 1: steady_emotion"),
        ('"status": "no_speech"', '"status": "ok"', "segment 4"),
        ("]}", "]", "is not JSON"),
    ],
)
def test_damaged_json_is_refused(export, old, new, message):
    path = export("a.json")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1) if old != "]}" else text[: text.rindex(old)], encoding="utf-8")
    with pytest.raises(BadTranscript, match=message):
        read_timeline(path)


def test_csv_has_a_row_per_segment(export):
    with export("a.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["start"], row["speaker"], row["status"], row["emotion"], row["steady_emotion"]) for row in rows] == [
        ("0.5", "Anna Lee", "ok", "happy", "happy"),
        ("2.0", "Bob", "ok", "angry", "angry"),
        ("2.25", "Anna Lee", "ok", "neutral", "happy"),
        ("4.0", "", "no_speech", "", ""),
        ("6.0", "Bob", "unknown", "", ""),
    ]
    assert rows[0]["text"] == TRICKY
    assert [rows[1][f"probabilities.{emotion}"] for emotion in EMOTIONS] == ["0.8", "0.1", "0.1"]
    assert rows[4]["decision.threshold"] == "0.9"


def test_parquet_has_a_row_per_segment(export):
    rows = pyarrow.parquet.read_table(export("a.parquet")).to_pylist()
    assert [row["steady_emotion"] for row in rows] == ["happy", "angry", "happy", None, None]
    assert rows[0]["probabilities"] == {"angry": 0.1, "happy": 0.8, "neutral": 0.1}
    assert rows[0]["words"] == WORDS
    assert pyarrow.parquet.read_table(export("empty.parquet", make_timeline([]))).num_rows == 0


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.parquet"])
def test_segments_can_be_read_as_intervals(export, name):
    """The segments of one timeline can be those of another."""
    intervals = read_intervals(export(name))
    assert [(interval.start, interval.speaker, interval.text) for interval in intervals] == [
        (row.start, row.get("speaker"), " ".join(row["text"].split()) if "text" in row else None)
        for row in call().segments
    ]


def test_webvtt_is_read_by_webvtt_py(export):
    path = export("a.vtt")
    captions = webvtt.read(path)
    assert [(caption.start, caption.end, caption.voice) for caption in captions.captions] == [
        ("00:00:00.500", "00:00:02.250", "Anna Lee"),
        ("00:00:02.000", "00:00:03.500", "Bob"),
        ("00:00:02.250", "00:00:04.000", "Anna Lee"),
        ("00:00:06.000", "00:00:07.500", "Bob"),
    ]
    assert [caption.text for caption in captions.captions][1:] == ["[angry] No.", "[happy]", "[unknown] Well, well."]
    assert read_intervals(path)[0].text == f"[happy] {TRICKY}"


def test_times_of_webvtt_are_rounded_without_reaching_60_seconds(export):
    path = export("a.vtt", make_timeline([make_segment(59.9996, 36000.5, "happy")]))
    assert webvtt.read(path)[0].start == "00:01:00.000"
    assert webvtt.read(path)[0].end == "10:00:00.500"


def test_labels_have_the_grammar_of_audacity(export):
    """Two numbers with a point, the second not smaller, and the label, divided by tabs (manual, Importing and Exporting)."""
    lines = export("a.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    parsed = [re.fullmatch(r"(\d+\.\d{6})\t(\d+\.\d{6})\t([^\t\n\r]*)", line) for line in lines]
    assert all(match and float(match[1]) <= float(match[2]) for match in parsed)
    assert [match[3] for match in parsed] == [
        f"Anna Lee: happy: {TRICKY}",
        "Bob: angry: No.",
        "Anna Lee: happy",
        "Bob: unknown: Well, well.",
    ]


def test_rttm_is_read_by_pyannote(export):
    annotations = load_rttm(export("a.rttm"))
    assert list(annotations) == ["my_call"]
    assert [
        (turn.start, turn.end, speaker) for turn, _, speaker in annotations["my_call"].itertracks(yield_label=True)
    ] == [
        (0.5, 4.0, "Anna_Lee"),
        (2.0, 3.5, "Bob"),
        (6.0, 7.5, "Bob"),
    ]


def test_the_speakers_of_rttm_may_be_channels(export):
    segments = [make_segment(0, 1, "happy", channel=channel) for channel in (1, 2)]
    assert [line.split()[2:8:5] for line in export("a.rttm", make_timeline(segments)).read_text().splitlines()] == [
        ["1", "channel_1"],
        ["2", "channel_2"],
    ]
    with pytest.raises(BadOutput, match="--channels separate"):
        export("b.rttm", make_timeline([make_segment(0, 1, "happy")]))


def test_a_textgrid_is_read_by_praatio(export):
    grid = praatio.openTextgrid(str(export("a.TextGrid")), includeEmptyIntervals=False)
    assert (grid.minTimestamp, grid.maxTimestamp) == (0, 10)
    assert {name: [tuple(entry) for entry in grid.getTier(name).entries] for name in grid.tierNames} == {
        "Anna Lee - emotion": [(0.5, 2.25, "happy"), (2.25, 4.0, "happy")],
        "Anna Lee - text": [(0.5, 2.25, TRICKY)],
        "Bob - emotion": [(2.0, 3.5, "angry"), (6.0, 7.5, "unknown")],
        "Bob - text": [(2.0, 3.5, "No."), (6.0, 7.5, "Well, well.")],
    }
    assert [interval.speaker for interval in read_intervals(export("a.TextGrid"))] == ["Anna Lee", "Bob", "Bob"]


def test_overlapping_segments_of_a_tier_last_to_the_next(export):
    segments = [make_segment(start, start + 5, "happy") for start in (0.0, 2.5, 5.0)]
    grid = praatio.openTextgrid(str(export("a.TextGrid", make_timeline(segments))), includeEmptyIntervals=True)
    assert [tuple(entry)[:2] for entry in grid.getTier("emotion").entries] == [(0.0, 2.5), (2.5, 5.0), (5.0, 10.0)]


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # audformat with pandas 3.1
def test_audformat_is_read_by_its_library(export):
    database = audformat.Database.load(export("corpus"))
    table = database["segments"].df
    assert database.schemes["emotion"].labels == list(EMOTIONS)
    assert database.raters["model"].description == MODEL
    assert set(table.index.get_level_values("file")) == {"calls/my call.wav"}
    assert list(table.index.get_level_values("start").total_seconds()) == [0.5, 2.0, 2.25, 4.0, 6.0]
    assert table["emotion"].dropna().tolist() == ["happy", "angry", "neutral"]
    assert table["text"].iloc[0] == TRICKY
    assert table["probability.happy"].tolist()[:3] == pytest.approx([0.8, 0.1, 0.1])
    export("corpus")
    (database_folder := export("corpus")).joinpath("mine.txt").write_text("x")
    with pytest.raises(BadOutput, match="choose a new folder"):
        export_timeline(call(), database_folder)


def test_the_format_can_be_named(export):
    assert export("a.txt", format="csv").read_text(encoding="utf-8").startswith("schema,file")
    with pytest.raises(UnknownName, match="did you mean 'webvtt'"):
        export("a.txt", format="web-vtt")
    with pytest.raises(BadOutput, match=r"\.vtt"):
        export("a.docx")


@pytest.mark.parametrize("name", FORMATS)
def test_a_failed_export_leaves_nothing(tmp_path, name):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadOutput):
        export_timeline(call(), tmp_path / "file" / "a", format=name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
