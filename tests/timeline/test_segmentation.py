"""Segmentation: pieces do not depend on blocks, lose nothing, and keep to their limits."""

import numpy as np
import pytest

from affekt.audio.read import SAMPLE_RATE
from affekt.errors import BadConfig
from affekt.interval import Interval, Word
from affekt.timeline.given_intervals import GivenIntervals
from affekt.timeline.speech_segments import SpeechSegments
from affekt.timeline.windows import FixedWindows
from tests.timeline.speech import conversation, noise, sample, silence

TURNS = (
    Interval(0.2, 2.4, "a"),
    Interval(1.0, 14.5, "b"),
    Interval(3.0, 3.2, "a"),
    Interval(20.0, 30.0, "a"),
    Interval(40, 41),
)
SEGMENTATIONS = [
    SpeechSegments(),
    SpeechSegments(changes=(2.0, 2.3, 6.0, 12.0, 16.3, 20.0)),
    SpeechSegments(min_speech=0.5, max_length=2, max_pause=0.3, max_wait=0.3),
    FixedWindows(),
    FixedWindows(window=3, hop=3),
    GivenIntervals(TURNS),
]


def cut(settings, waveform, size):
    segmenter = settings.segmenter()
    pieces = [
        piece for start in range(0, waveform.size, size) for piece in segmenter.add(waveform[start : start + size])
    ]
    return pieces + segmenter.finish()


def facts(pieces):
    return [(p.start, p.end, p.speech, p.is_silent, p.interval, str(p.error), p.waveform.tobytes()) for p in pieces]


@pytest.mark.parametrize("settings", SEGMENTATIONS, ids=str)
def test_pieces_do_not_depend_on_the_size_of_blocks(settings):
    waveform = conversation()
    whole = facts(cut(settings, waveform, waveform.size))
    for seconds in (0.01, 0.0433, 1, 5):
        assert facts(cut(settings, waveform, round(seconds * SAMPLE_RATE))) == whole


@pytest.mark.parametrize("settings", SEGMENTATIONS, ids=str)
def test_pieces_have_the_audio_of_their_times(settings):
    waveform = conversation()
    for piece in cut(settings, waveform, 5000):
        if piece.waveform.size:
            np.testing.assert_array_equal(piece.waveform, waveform[piece.start : piece.end])
        assert piece.speech <= (piece.end - piece.start) / SAMPLE_RATE + 0.032


@pytest.mark.parametrize("settings", SEGMENTATIONS[:3], ids=str)
def test_speech_segments_cover_the_recording_and_keep_to_the_maximum(settings):
    waveform = conversation()
    pieces = cut(settings, waveform, 16_000)
    assert [piece.start for piece in pieces] == [0, *(piece.end for piece in pieces[:-1])]
    assert pieces[-1].end == waveform.size
    assert all(piece.end - piece.start <= settings.max_length * SAMPLE_RATE for piece in pieces if piece.speech)
    assert sum(piece.speech for piece in pieces) > 10


def test_non_speech_is_silent_or_not():
    waveform = np.concatenate([silence(30), sample(0), noise(30), sample(1)])
    non_speech = [
        (round(p.start / SAMPLE_RATE), p.is_silent) for p in cut(SpeechSegments(), waveform, 4000) if not p.speech
    ]
    assert non_speech == [(0, True), (round(30 + sample(0).size / SAMPLE_RATE), False)]


def test_short_pauses_join_and_long_ones_separate():
    def count(pause):
        waveform = np.concatenate([sample(0), silence(pause), sample(1), silence(1)])
        return sum(piece.speech > 0 for piece in cut(SpeechSegments(), waveform, 3000))

    assert count(0.1) == 1
    assert count(1.0) == 2


def test_segments_are_cut_at_changes():
    def ends(*changes):
        return {
            round(piece.end / SAMPLE_RATE, 1) for piece in cut(SpeechSegments(changes=changes), conversation(), 8000)
        }

    assert {2.0, 16.3} <= ends(2.0, 16.3)
    assert not {2.0, 16.3} & ends()
    assert 2.3 not in ends(2.0, 2.3)  # too soon after the cut before
    assert ends(4.0, 13.0) == ends()  # in pauses


def test_a_recording_without_speech_is_one_segment_in_bounded_memory():
    segmenter = SpeechSegments().segmenter()
    for second in range(60):
        assert segmenter.add(noise(1, seed=second)) == []
        assert segmenter._track._samples.size < 4 * SAMPLE_RATE
    (piece,) = segmenter.finish()
    assert (piece.start, piece.end, piece.speech, piece.is_silent) == (0, 60 * SAMPLE_RATE, 0, False)


def test_the_piece_that_has_begun_grows_with_the_blocks():
    segmenter = SpeechSegments().segmenter()
    assert segmenter.current() is None
    waveform = np.concatenate([silence(1), sample(0)])
    ends = []
    for start in range(0, waveform.size, 4000):
        segmenter.add(waveform[start : start + 4000])
        if (piece := segmenter.current()) and piece.speech:
            np.testing.assert_array_equal(piece.waveform, waveform[piece.start : piece.end])
            ends.append(piece.end)
    assert len(set(ends)) > 4
    assert ends == sorted(ends)


def test_windows_begin_every_hop_and_the_last_one_reaches_the_end():
    waveform = noise(12)
    times = [(p.start / SAMPLE_RATE, p.end / SAMPLE_RATE) for p in cut(FixedWindows(), waveform, 7000)]
    assert times == [(0, 5), (2.5, 7.5), (5, 10), (7.5, 12)]
    *_, last = cut(FixedWindows(3, 3), noise(9.2), 7000)
    assert last.error.code == "too_short"
    assert len(cut(FixedWindows(3, 3), noise(9), 7000)) == 3


def test_intervals_overlap_and_are_cut_or_marked_as_too_short():
    pieces = cut(GivenIntervals(TURNS), conversation(), 9000)
    by_turn = [[p for p in pieces if p.interval == turn] for turn in TURNS]
    assert [[p.error and p.error.code for p in parts] for parts in by_turn] == [
        [None], [None, None], ["too_short"], [None], ["too_short"]
    ]  # fmt: skip
    first, second = by_turn[1]
    assert (first.start, first.end, second.end) == (SAMPLE_RATE, second.start, round(14.5 * SAMPLE_RATE))
    assert by_turn[3][0].end == conversation().size


def test_each_part_of_an_interval_has_its_words():
    words = tuple(Word(second, second + 0.5, f"w{second}") for second in range(20))
    sentence = Interval(0, 20, text=" ".join(word.text for word in words), words=words)
    parts = [piece.interval for piece in cut(GivenIntervals((sentence,)), conversation(), 9000)]
    assert len(parts) > 2
    assert tuple(word for part in parts for word in part.words) == words
    assert " ".join(part.text for part in parts) == sentence.text


@pytest.mark.parametrize(
    "create",
    [
        lambda: SpeechSegments(max_length=20),
        lambda: SpeechSegments(min_speech=4),
        lambda: SpeechSegments(max_pause=2),
        lambda: FixedWindows(window=30),
        lambda: FixedWindows(window=2, hop=3),
        lambda: GivenIntervals((Interval(3, 2),)),
        lambda: GivenIntervals((), max_length=0.2),
    ],
)
def test_impossible_settings_are_refused(create):
    with pytest.raises(BadConfig, match="expected"):
        create()
