"""Timelines: the whole recording, all channels, hysteresis, summaries and speakers."""

import numpy as np
import pytest

from affekt.audio.read import SAMPLE_RATE
from affekt.errors import BadAudio, BadConfig
from affekt.inference.recognizer import Recognizer
from affekt.inference.row import Row, make_row
from affekt.interval import Interval, Word
from affekt.timeline.given_intervals import GivenIntervals
from affekt.timeline.hysteresis import Hysteresis, SteadyEmotion
from affekt.timeline.speakers import Speakers, find_changes
from affekt.timeline.summary import TurningPoint, summarize
from affekt.timeline.track import Track
from affekt.timeline.windows import FixedWindows
from tests.sounds import encode_audio
from tests.timeline.speech import conversation, noise, sample, silence

STATUSES = ["ok", "silence", "ok", "ok", "no_speech", "ok", "ok", "silence"]


def test_a_timeline_covers_the_recording(recognizer):
    timeline = recognizer.timeline((conversation(), SAMPLE_RATE))
    segments = timeline.segments
    assert [segment.status for segment in segments] == STATUSES
    assert timeline.duration == segments[-1].end
    assert [segment.start for segment in segments] == [0, *(segment.end for segment in segments[:-1])]
    assert all((segment["speech"] > 0.5) == (segment.status == "ok") for segment in segments)
    assert all(("steady_emotion" in segment) == (segment.status == "ok") for segment in segments)
    assert timeline.segmentation == "speech segments of 1 to 6 s"


def test_a_track_gives_the_same_rows_for_blocks_of_any_size(recognizer):
    waveform = conversation()
    expected = list(recognizer.timeline((waveform, SAMPLE_RATE)).segments)
    for size in (700, 160_000):
        track = Track(recognizer, "<array>")
        rows = [row for start in range(0, waveform.size, size) for row in track.add(waveform[start : start + size])]
        assert [*rows, *track.finish()] == expected


def test_the_segment_that_has_begun_can_be_recognized(recognizer):
    track = Track(recognizer, "call")
    track.add(sample(0)[:SAMPLE_RATE])
    current = track.current()
    assert current.status == "ok"
    assert 0.5 < current.end <= 1
    assert "steady_emotion" not in current


def test_segments_without_a_detector_in_the_model_are_judged_by_voice_activity(recognizer):
    timeline = recognizer.timeline((noise(20, amplitude=0.2), SAMPLE_RATE), segmentation=FixedWindows())
    assert {segment.status for segment in timeline.segments} == {"no_speech"}
    assert timeline.summary().total.speech == 0


def test_without_voice_activity_detection_only_silence_is_refused(tiny_bundle):
    careless = Recognizer.load(tiny_bundle, vad="off")
    waveform = np.concatenate([noise(5), silence(5)])
    timeline = careless.timeline((waveform, SAMPLE_RATE), segmentation=FixedWindows(5, 5))
    assert [segment.status for segment in timeline.segments] == ["ok", "silence"]
    with pytest.raises(BadConfig, match="need voice activity detection"):
        careless.timeline((waveform, SAMPLE_RATE))


def test_channels_that_cancel_are_not_silence(recognizer):
    waveform = np.concatenate([sample(0), sample(1)])
    opposite = (np.stack([waveform, -waveform], axis=1), SAMPLE_RATE)
    mono = recognizer.timeline((waveform, SAMPLE_RATE))
    mixed = recognizer.timeline(opposite)
    assert [s.status for s in mixed.segments] == [s.status for s in mono.segments]
    assert "channel 1 of 2" in mixed.notes["channels"]
    separate = recognizer.timeline(opposite, channels="separate")
    assert list(separate.tracks()) == ["channel 1", "channel 2"]
    assert [s.probabilities for s in separate.tracks()["channel 1"]] == [s.probabilities for s in mono.segments]
    assert {s.status for s in separate.segments} == {"ok"}


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_each_channel_has_its_own_timeline(recognizer, rate):
    size = round(rate * 12)
    first, second = np.zeros(size, np.float32), np.zeros(size, np.float32)
    voice = np.interp(np.arange(0, 2, 1 / rate), np.arange(sample(0).size) / SAMPLE_RATE, sample(0)).astype(np.float32)
    first[rate : rate + voice.size] = voice
    second[6 * rate : 6 * rate + voice.size] = voice
    call = encode_audio(np.stack([first, second], axis=1), rate, subtype="FLOAT")
    timeline = recognizer.timeline(call, channels="separate")
    spoken = [(s["channel"], round(s.start)) for s in timeline.segments if s.status == "ok"]
    assert spoken == [(1, 1), (2, 6)]
    summary = timeline.summary()
    assert {name: track.talk_ratio for name, track in summary.tracks.items()} == pytest.approx(
        {"channel 1": 0.5, "channel 2": 0.5}, abs=0.02
    )


def test_intervals_give_their_fields_to_segments(recognizer):
    words = (Word(0.3, 0.6, "hello"), Word(0.7, 1.1, "there"))
    intervals = (
        Interval(0.2, 2.2, "anna", "hello there", words),
        Interval(1, 3, "ben"),
        Interval(4, 4.1, "anna", "hm"),
    )
    timeline = recognizer.timeline((conversation(), SAMPLE_RATE), segmentation=GivenIntervals(intervals))
    first, second, third = timeline.segments
    assert (first["speaker"], first["text"], first["words"][1]["text"]) == ("anna", "hello there", "there")
    assert (second["speaker"], second.status) == ("ben", "ok")
    assert (third["speaker"], third.status, third.error["code"]) == ("anna", "error", "too_short")
    assert list(timeline.tracks()) == ["anna", "ben"]


def test_turns_assign_speakers_by_the_largest_overlap(recognizer):
    turns = [Interval(0, 2, "anna"), Interval(2, 7, "ben"), Interval(10, 30, "anna")]
    timeline = recognizer.timeline((conversation(), SAMPLE_RATE), turns=turns)
    assert [segment.get("speaker") for segment in timeline.segments if segment.status == "ok"] == [
        "anna", "ben", "anna", "anna", "anna"
    ]  # fmt: skip
    assert all("speaker" not in segment for segment in timeline.segments if segment.status != "ok")
    assert set(timeline.summary().tracks) == {"anna", "ben"}


def test_overlaps_of_one_speaker_are_added():
    speakers = Speakers([Interval(0, 100, None), Interval(0, 1, "a"), Interval(1, 2.5, "b"), Interval(2.5, 4, "a")])
    assert speakers.find(0, 4) == "a"
    assert speakers.find(0.8, 3) == "b"
    assert speakers.find(5, 6) is None


def test_the_speaker_changes_where_another_turn_begins_or_ends():
    turns = [Interval(0, 10, "a"), Interval(3, 4, "b"), Interval(12, 13, "a"), Interval(13, 15, "b"), Interval(16, 17)]
    assert find_changes(turns) == (3, 4, 13)
    assert find_changes([]) == ()


def segment(start, happy, duration=2.0, **fields):
    row = make_row("f", "m", start=start, end=start + duration, probabilities={"happy": happy, "sad": 1 - happy})
    row["speech"] = duration
    row.update(fields)
    return row


def steady(segments, **settings):
    emotion = SteadyEmotion(Hysteresis(**settings))
    return [emotion.add(row) for row in segments]


def test_a_single_doubtful_segment_does_not_change_the_steady_emotion():
    segments = [segment(2 * i, p) for i, p in enumerate([0.9, 0.9, 0.4, 0.9, 0.1, 0.1])]
    assert steady(segments, seconds=3, margin=0.05)[:4] == ["happy"] * 4
    assert steady(segments, seconds=3, margin=0.05)[-1] == "sad"
    assert steady(segments, seconds=0, margin=0)[2] == "sad"


def test_a_long_gap_begins_anew():
    segments = [segment(0, 0.9), segment(2, 0.9), segment(100, 0.4)]
    assert steady(segments, reset=30)[-1] == "sad"
    assert steady(segments, reset=200)[-1] == "happy"


def test_the_steady_emotion_depends_on_no_later_segment():
    segments = [segment(2 * i, p) for i, p in enumerate(np.random.default_rng(0).random(20))]
    assert steady(segments)[:10] == steady(segments[:10])


def test_segments_without_speech_have_no_steady_emotion():
    assert steady([make_row("f", "m", end=3, status_without_emotion="no_speech")]) == [None]


def test_impossible_settings_are_refused():
    with pytest.raises(BadConfig, match="margin"):
        Hysteresis(margin=2)


def test_the_summary_counts_what_overlaps_once():
    rows = [segment(0, 0.9, 4, steady_emotion="happy"), segment(2, 0.9, 4, steady_emotion="happy")]
    rows.append(segment(6, 0.2, 2, steady_emotion="sad"))
    summary = summarize(10, {"": rows})
    assert summary.total.speech == 8
    assert summary.total.emotions == {"happy": 0.75, "sad": 0.25}
    assert summary.total.turning_points == (TurningPoint(6, "happy", "sad"),)
    assert summary.total.statuses == {"ok": 3}


def test_a_segment_is_read_as_it_was_written():
    row = segment(0, 0.9, steady_emotion="happy", text="a", words=[{"start": 0, "end": 1, "text": "a"}], channel=2)
    assert Row.read(dict(row)) == row
    for name, value in {"channel": "x", "speech": float("nan"), "words": [{}], "steady_emotion": "angry"}.items():
        with pytest.raises(ValueError, match=r"invalid|no probability"):
            Row.read({**row, name: value})


def test_a_recording_that_is_too_short_is_refused(recognizer):
    with pytest.raises(BadAudio, match=r"lasts 0\.050 s"):
        recognizer.timeline((silence(0.05), SAMPLE_RATE))
    with pytest.raises(BadConfig, match="expected mix or separate"):
        recognizer.timeline((silence(1), SAMPLE_RATE), channels="both")
