"""Timelines of files: an interrupted run resumes, and damaged or changed recordings lose nothing."""

import json

import pytest
import soundfile

from affekt.audio.read import SAMPLE_RATE
from affekt.errors import BadConfig, BadOutput
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row
from affekt.inference.transcript import NO_WORDS
from affekt.timeline.timeline import Timeline
from affekt.timeline.windows import FixedWindows
from affekt.workflows.make_timelines import Division, make_timelines
from tests.timeline.speech import conversation, sample


@pytest.fixture
def call(tmp_path):
    soundfile.write(tmp_path / "call.wav", conversation(), SAMPLE_RATE)
    return tmp_path / "call.wav"


class CountingRecognizer(Recognizer):
    """A recognizer that counts the segments that it recognizes."""

    count = 0

    def recognize_segment(self, name, start, segment, passage=NO_WORDS):
        self.count += 1
        return super().recognize_segment(name, start, segment, passage)


@pytest.fixture
def counting(recognizer):
    return CountingRecognizer(recognizer.graph)


def read(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    from affekt.inference.csv_rows import read_csv

    if path.suffix == ".csv":
        return read_csv(path)
    pq = pytest.importorskip("pyarrow.parquet")
    return [Row.read(record) for record in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_an_interrupted_run_resumes(counting, call, tmp_path, suffix):
    output = tmp_path / f"segments.{suffix}"

    def interrupt(row, _):
        if row.start > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(make_timelines([call], output, recognizer=counting, on_segment=interrupt))
    assert counting.count == 3
    (timeline,) = make_timelines([call], output, recognizer=counting)
    assert counting.count == 5
    assert timeline == counting.timeline(call)
    rows = read(output)
    assert [{**row, "source": 0} for row in rows] == [{**segment, "source": 0} for segment in timeline.segments]
    before = counting.count
    assert list(make_timelines([call], output, recognizer=counting)) == [timeline]
    assert counting.count == before
    assert read(output) == rows
    assert not list(tmp_path.glob("*.partial*"))


def test_another_division_reuses_nothing_and_replaces_the_rows(counting, call, tmp_path):
    output = tmp_path / "segments.jsonl"
    list(make_timelines([call], output, recognizer=counting))
    windows = Division(FixedWindows(5, 5))
    (timeline,) = make_timelines([call], output, recognizer=counting, divide=lambda _: windows)
    assert [row["start"] for row in read(output)] == [0, 5, 10, 15, 20, 25] == [s.start for s in timeline.segments]


def test_a_changed_file_is_recognized_again(counting, call, tmp_path):
    output = tmp_path / "segments.jsonl"
    list(make_timelines([call], output, recognizer=counting))
    soundfile.write(call, sample(0), SAMPLE_RATE)
    before = counting.count
    (timeline,) = make_timelines([call], output, recognizer=counting)
    assert counting.count == before + 1
    assert len(read(output)) == len(timeline.segments)


def test_a_failure_is_a_row_and_keeps_the_segments_before_it(recognizer, call, tmp_path):
    output = tmp_path / "segments.jsonl"
    damaged = tmp_path / "damaged.wav"
    damaged.write_bytes(call.read_bytes()[: call.stat().st_size // 2])
    failed, timeline = make_timelines([damaged, call], output, recognizer=recognizer)
    assert (failed.status, failed.error["code"]) == ("error", "truncated")
    assert isinstance(timeline, Timeline)
    (lenient,) = make_timelines([damaged], output, recognizer=recognizer, lenient=True)
    assert lenient.notes["truncated"]
    assert [segment.get("truncated") for segment in lenient.segments][-2:] == [None, True]
    rows = [row for row in read(output) if row["file"] == str(damaged)]
    assert [row["end"] for row in rows] == [segment.end for segment in lenient.segments]


def test_other_results_stay_unchanged(recognizer, call, tmp_path):
    output = tmp_path / "segments.jsonl"
    output.write_text('{"a": 1}\n')
    with pytest.raises(BadOutput, match="is not a result"):
        list(make_timelines([call], output, recognizer=recognizer))
    assert output.read_text() == '{"a": 1}\n'
    with pytest.raises(BadConfig, match="timeout"):
        list(make_timelines([call], recognizer=recognizer, timeout=0))
